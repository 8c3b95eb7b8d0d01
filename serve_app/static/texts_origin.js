// Texts of the page about what a file says about its origin: key -> [English, German].

export const ORIGIN = {
  "origin.title": ["What the file says about its origin", "Was die Datei über ihre Herkunft sagt"],
  "origin.none": [
    "Nothing. That is no sign of anything: most files say nothing, and anybody can remove such a statement.",
    "Nichts. Das bedeutet nichts: Die meisten Dateien sagen nichts, und jeder kann eine solche Angabe entfernen.",
  ],
  "origin.apart": [
    "The score does not depend on this. Other files without such a statement may be of the same origin.",
    "Der Wert hängt davon nicht ab. Andere Dateien ohne solche Angabe können dieselbe Herkunft haben.",
  ],
  "origin.kind.c2pa": ["Content Credentials (C2PA):", "Content Credentials (C2PA):"],
  "origin.kind.iptc": ["IPTC source type:", "IPTC-Quellentyp:"],
  "origin.kind.generator_text": ["Text of an image generator:", "Text eines Bildgenerators:"],
  "origin.kind.camera": ["Camera data (EXIF):", "Kameradaten (EXIF):"],
  "origin.says.generated": ["made by AI.", "von KI erzeugt."],
  "origin.says.partly_generated": ["made by AI in part.", "teilweise von KI erzeugt."],
  "origin.says.camera": ["taken with a camera.", "mit einer Kamera aufgenommen."],
  "origin.says.other": ["no statement about AI or a camera.", "keine Angabe zu KI oder Kamera."],
  "origin.says.broken": ["cannot be relied on.", "nicht verlässlich."],
  "origin.tool": ["Named: {tool}.", "Genannt: {tool}."],
  "origin.date": ["Dated {date}.", "Datum: {date}."],
  "origin.standing.listed_signer": [
    "Signed, and the signer is on the operator’s list.",
    "Signiert, und der Unterzeichner steht auf der Liste des Betreibers.",
  ],
  "origin.standing.listed_signer.by": [
    "Signed by {signer}, who is on the operator’s list.",
    "Signiert von {signer}; das steht auf der Liste des Betreibers.",
  ],
  "origin.standing.signed": [
    "Signed, but the signer may be anybody.",
    "Signiert, aber der Unterzeichner kann irgendjemand sein.",
  ],
  "origin.standing.signed.by": [
    "Signed in the name of {signer}, but nobody vouches for that name.",
    "Signiert im Namen von {signer}, aber niemand bürgt für diesen Namen.",
  ],
  "origin.standing.unsigned": [
    "Not signed: anybody can write this into a file.",
    "Nicht signiert: Das kann jeder in eine Datei schreiben.",
  ],
  "origin.standing.broken": [
    "The signature does not match the file, or it cannot be read: the file was changed afterwards, or is damaged.",
    "Die Signatur passt nicht zur Datei oder ist nicht lesbar: Die Datei wurde danach verändert oder ist beschädigt.",
  ],
};
