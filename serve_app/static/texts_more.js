// The words of what a person may ask for beyond the verdict, and of what can go wrong: key -> [English, German].

export const MORE = {
  "heat.ask": ["Show what moved the score", "Zeigen, was den Ausschlag gab"],
  "heat.asking": ["Drawing the heat map …", "Wärmebild wird gezeichnet …"],
  "heat.label": ["Heat map over the picture", "Wärmebild über dem Bild"],
  "heat.value": ["{percent} visible", "{percent} sichtbar"],
  "heat.off": ["picture", "Bild"],
  "heat.on": ["heat map", "Wärmebild"],
  "heat.fake": [
    "The brighter, the more this place moved the score towards “generated”. A heat map shows what moved the score, not what is false.",
    "Je heller, desto mehr schob diese Stelle die Bewertung Richtung „künstlich“. Das Wärmebild zeigt, was die Bewertung bewegte, nicht was falsch ist.",
  ],
  "heat.real": [
    "The brighter, the more this place moved the score towards “photograph”. A heat map shows what moved the score, not what is true.",
    "Je heller, desto mehr schob diese Stelle die Bewertung Richtung „Foto“. Das Wärmebild zeigt, was die Bewertung bewegte, nicht was wahr ist.",
  ],
  "heat.none": ["There is no heat map for this picture.", "Für dieses Bild gibt es kein Wärmebild."],
  "heat.shown": ["Heat map shown over {name}.", "Wärmebild liegt über {name}."],

  "expert.title": ["Details for experts", "Einzelheiten für Fachleute"],
  "expert.p_fake": ["p(fake), calibrated", "p(künstlich), kalibriert"],
  "expert.thresholds": ["Thresholds", "Schwellen"],
  "expert.thresholds.value": ["real < {low} · fake ≥ {high}", "echt < {low} · künstlich ≥ {high}"],
  "expert.size": ["Picture", "Bild"],
  "expert.size.value": ["{width} × {height} px, upright", "{width} × {height} px, aufrecht"],
  "expert.scored": ["Square judged", "Beurteiltes Quadrat"],
  "expert.scored.value": ["{left}, {top} – {right}, {bottom} px", "{left}, {top} – {right}, {bottom} px"],
  "expert.detector": ["Face found with score", "Gesicht gefunden mit Wert"],
  "expert.model": ["Model", "Modell"],
  "expert.weights": ["Weights, SHA-256", "Gewichte, SHA-256"],
  "expert.request": ["Request", "Anfrage"],
  "expert.time": ["Time spent", "Zeitbedarf"],

  "video.frame": ["Choose a moment", "Wählen Sie einen Augenblick"],
  "video.hint": [
    "Move to a moment in which the face is large and sharp. Only that frame is sent.",
    "Gehen Sie zu einem Augenblick, in dem das Gesicht groß und scharf ist. Nur dieses Bild wird gesendet.",
  ],
  "video.time": ["Moment in the video", "Stelle im Video"],
  "video.at": ["{time} of {end} seconds", "{time} von {end} Sekunden"],
  "video.back": ["A little back", "Etwas zurück"],
  "video.forth": ["A little on", "Etwas weiter"],
  "video.pick": ["Judge this frame", "Dieses Bild beurteilen"],
  "video.clip": ["Judge the whole clip", "Den ganzen Clip beurteilen"],
  "video.name": ["{name} at {time} s", "{name} bei {time} s"],
  "video.unseen": ["Your browser cannot play this video.", "Ihr Browser kann dieses Video nicht abspielen."],
  "video.unseen.more": [
    "Make a screenshot of the moment that matters and choose that, or save the video as MP4 (H.264) or WebM.",
    "Machen Sie ein Bildschirmfoto des wichtigen Augenblicks und wählen Sie dieses, oder speichern Sie das Video als MP4 (H.264) oder WebM.",
  ],
  "video.label": ["Video {n}, shown without sound", "Video {n}, ohne Ton"],
  "clip.real": ["This clip looks filmed.", "Dieser Clip sieht gefilmt aus."],
  "clip.fake": ["The face in this clip looks generated.", "Das Gesicht in diesem Clip sieht künstlich erzeugt aus."],
  "clip.uncertain": ["The detector cannot tell for this clip.", "Der Detektor kann es bei diesem Clip nicht sagen."],
  "clip.no_face": ["No face was found in this clip.", "In diesem Clip wurde kein Gesicht gefunden."],
  "clip.meaning": [
    "{fakes} of {scored} frames with a face look generated; the middle score is {percent}.",
    "{fakes} von {scored} Bildern mit Gesicht sehen künstlich erzeugt aus; der mittlere Wert ist {percent}.",
  ],
  "clip.timeline": ["Scores along the clip: each bar is one frame, higher is more likely generated", "Werte im Verlauf: jeder Balken ein Bild, höher heißt eher künstlich"],
  "clip.table": ["All frames as a table", "Alle Bilder als Tabelle"],
  "clip.time": ["Second", "Sekunde"],
  "clip.chance": ["Chance generated", "Künstlich zu"],
  "clip.verdict": ["Verdict", "Urteil"],
  "clip.help": [
    "Frames are judged one by one; movement and sound are not. A single odd frame says little.",
    "Die Bilder werden einzeln beurteilt, Bewegung und Ton nicht. Ein einzelner Ausreißer sagt wenig.",
  ],

  "feedback.ask": ["Was this wrong?", "War das falsch?"],
  "feedback.truth": ["What do you know about this picture?", "Was wissen Sie über dieses Bild?"],
  "feedback.real": ["It is a photograph", "Es ist ein Foto"],
  "feedback.fake": ["It is generated", "Es ist künstlich erzeugt"],
  "feedback.consent": [
    "I may give this picture away, and I agree that it is stored so that the detector can learn from it.",
    "Ich darf dieses Bild weitergeben und stimme zu, dass es gespeichert wird, damit der Detektor daraus lernen kann.",
  ],
  "feedback.stored": [
    "Stored are: the picture (without date, place and other hidden information in the file), your answer, the detector’s verdict, the model, the number of the request and the time. Not stored are: your name, your address and the name of the file. Without your consent nothing is sent.",
    "Gespeichert werden: das Bild (ohne Datum, Ort und andere versteckte Angaben in der Datei), Ihre Antwort, das Urteil des Detektors, das Modell, die Nummer der Anfrage und der Zeitpunkt. Nicht gespeichert werden: Ihr Name, Ihre Adresse und der Name der Datei. Ohne Ihre Zustimmung wird nichts gesendet.",
  ],
  "feedback.send": ["Give the picture", "Bild überlassen"],
  "feedback.sending": ["Sending …", "Wird gesendet …"],
  "feedback.choose": ["Please say first what you know about the picture.", "Bitte sagen Sie zuerst, was Sie über das Bild wissen."],
  "feedback.no_consent": [
    "Without your consent nothing is sent. Tick the box if you agree.",
    "Ohne Ihre Zustimmung wird nichts gesendet. Setzen Sie das Häkchen, wenn Sie einverstanden sind.",
  ],
  "feedback.thanks": [
    "Thank you. The picture was stored under the number {id}; give this number to the operator if you want it deleted.",
    "Danke. Das Bild wurde unter der Nummer {id} gespeichert; nennen Sie dem Betreiber diese Nummer, wenn es gelöscht werden soll.",
  ],
  "key.title": ["This service asks for a key", "Dieser Dienst verlangt einen Schlüssel"],
  "key.more": [
    "You get it from whoever runs the service. It stays in this tab and is forgotten when you close it.",
    "Sie bekommen ihn vom Betreiber des Dienstes. Er bleibt in diesem Tab und wird vergessen, wenn Sie ihn schließen.",
  ],
  "key.label": ["Key", "Schlüssel"],
  "key.save": ["Use this key", "Schlüssel verwenden"],
  "key.wrong": ["This key was not accepted. Check it, or ask for another.", "Dieser Schlüssel wurde nicht angenommen. Prüfen Sie ihn, oder fragen Sie nach einem anderen."],
  "key.enter": ["Enter the key", "Schlüssel eingeben"],

  "error.title": ["There is no answer for this file.", "Für diese Datei gibt es keine Antwort."],
  "error.0": [
    "The service cannot be reached. Check your connection, then try again.",
    "Der Dienst ist nicht erreichbar. Prüfen Sie Ihre Verbindung und versuchen Sie es dann noch einmal.",
  ],
  "error.400": [
    "It could not be read as a picture; it may be damaged. Save it as JPEG or PNG and choose it again.",
    "Sie lässt sich nicht als Bild lesen und ist vielleicht beschädigt. Speichern Sie sie als JPEG oder PNG und wählen Sie sie noch einmal.",
  ],
  "error.heic": [
    "It could not be read. On an iPhone, set Settings › Camera › Formats to “Most Compatible” for new photos, or take the photo with the button here. On a computer, save it as JPEG.",
    "Sie lässt sich nicht lesen. Stellen Sie am iPhone unter Einstellungen › Kamera › Formate „Maximale Kompatibilität“ für neue Fotos ein, oder nehmen Sie das Foto mit der Schaltfläche hier auf. Am Computer: als JPEG speichern.",
  ],
  "error.video": [
    "It could not be read as a video. Save it as MP4 (H.264) or WebM, or choose a single frame.",
    "Sie lässt sich nicht als Video lesen. Speichern Sie sie als MP4 (H.264) oder WebM, oder wählen Sie ein einzelnes Bild.",
  ],
  "error.401": ["The service needs a key before it answers.", "Der Dienst braucht einen Schlüssel, bevor er antwortet."],
  "error.404": [
    "The service no longer offers this. Reload the page.",
    "Der Dienst bietet das nicht mehr an. Laden Sie die Seite neu.",
  ],
  "error.408": [
    "It took too long to arrive. Try again, perhaps with a better connection.",
    "Die Übertragung hat zu lange gedauert. Versuchen Sie es noch einmal, vielleicht mit besserer Verbindung.",
  ],
  "error.413": [
    "It is larger than this service accepts. Cut out the part with the face and save that. Do not make the picture smaller: shrinking destroys the traces the detector looks for.",
    "Sie ist größer, als dieser Dienst annimmt. Schneiden Sie den Teil mit dem Gesicht aus und speichern Sie ihn. Verkleinern Sie das Bild nicht: Das zerstört die Spuren, nach denen der Detektor sucht.",
  ],
  "error.413.bytes": [
    "It has {size}, and this service takes up to {most}. Cut out the part with the face and save that. Do not make the picture smaller: shrinking destroys the traces the detector looks for.",
    "Sie hat {size}, und dieser Dienst nimmt höchstens {most}. Schneiden Sie den Teil mit dem Gesicht aus und speichern Sie ihn. Verkleinern Sie das Bild nicht: Das zerstört die Spuren, nach denen der Detektor sucht.",
  ],
  "error.413.pixels": [
    "It has {size} megapixels, and this service takes up to {most}. Cut out the part with the face and save that. Do not make the picture smaller: shrinking destroys the traces the detector looks for.",
    "Sie hat {size} Megapixel, und dieser Dienst nimmt höchstens {most}. Schneiden Sie den Teil mit dem Gesicht aus und speichern Sie ihn. Verkleinern Sie das Bild nicht: Das zerstört die Spuren, nach denen der Detektor sucht.",
  ],
  "error.413.video": [
    "This video is longer or larger than the service takes. Choose a single frame above, or cut the clip to the seconds that matter.",
    "Dieses Video ist länger oder größer, als der Dienst annimmt. Wählen Sie oben ein einzelnes Bild, oder schneiden Sie den Clip auf die wichtigen Sekunden zu.",
  ],
  "error.415": [
    "The service does not read this kind of file. Choose a picture as JPEG, PNG or WebP.",
    "Diese Art von Datei liest der Dienst nicht. Wählen Sie ein Bild als JPEG, PNG oder WebP.",
  ],
  "error.422": [
    "No picture arrived with the request. Choose the file once more.",
    "Mit der Anfrage kam kein Bild an. Wählen Sie die Datei noch einmal.",
  ],
  "error.429": [
    "Many pictures came from here in a short time. Try again in {seconds} s.",
    "Von hier kamen in kurzer Zeit viele Bilder. Versuchen Sie es in {seconds} s noch einmal.",
  ],
  "error.500": [
    "The service made a mistake; it is not your picture’s fault. Try again, and tell the operator if it happens again.",
    "Der Dienst hat einen Fehler gemacht; an Ihrem Bild liegt es nicht. Versuchen Sie es noch einmal, und sagen Sie dem Betreiber Bescheid, wenn es wieder geschieht.",
  ],
  "error.503": ["The service is very busy. Try again in {seconds} s.", "Der Dienst ist stark ausgelastet. Versuchen Sie es in {seconds} s noch einmal."],
  "error.now": ["You can try again now.", "Sie können es jetzt noch einmal versuchen."],
  "error.request": ["Number of the request: {id}", "Nummer der Anfrage: {id}"],
};
