// Every word of the page: key -> [English, German]. {name} is filled in by say(); which language, i18n.js decides.

export const LANGUAGES = ["en", "de"];

export const TEXTS = {
  plain: ["{value}", "{value}"],
  "page.title": ["Real or generated face?", "Echtes oder künstliches Gesicht?"],
  "page.skip": ["Skip to the pictures", "Zu den Bildern springen"],
  "page.heading": ["Is this face real?", "Ist dieses Gesicht echt?"],
  "page.lead": [
    "Show a picture. The detector tells you whether the face looks photographed or made by a computer, and how sure it is.",
    "Zeigen Sie ein Bild. Der Detektor sagt Ihnen, ob das Gesicht nach einem Foto aussieht oder vom Computer erzeugt ist – und wie sicher er sich ist.",
  ],
  "page.language": ["Language", "Sprache"],
  "page.kept": ["Nothing is kept.", "Nichts wird aufbewahrt."],
  "page.kept.more": [
    "Your picture is judged in memory and forgotten at once. Its file name never leaves this device.",
    "Ihr Bild wird im Arbeitsspeicher beurteilt und sofort vergessen. Sein Dateiname verlässt dieses Gerät nie.",
  ],
  "page.humble": [
    "A detector can be wrong. Do not judge a person by this answer alone.",
    "Ein Detektor kann irren. Beurteilen Sie niemanden allein nach dieser Antwort.",
  ],
  "page.results": ["Your pictures", "Ihre Bilder"],
  "page.clear": ["Remove all", "Alle entfernen"],
  "page.api": ["For programs: the HTTP API", "Für Programme: die HTTP-Schnittstelle (englisch)"],
  "demo.title": ["This is a demo model.", "Das ist ein Vorführmodell."],
  "demo.more": [
    "It learnt from painted demo portraits, not from photographs. What it says about your pictures means nothing.",
    "Es hat an gemalten Übungsporträts gelernt, nicht an Fotos. Was es über Ihre Bilder sagt, bedeutet nichts.",
  ],
  "model.line": ["Model {version}, trained on {data}.", "Modell {version}, trainiert mit {data}."],
  "model.good": ["How often is it right?", "Wie oft liegt es richtig?"],
  "model.test": [
    "On {n} test pictures from {data}: {accuracy} judged rightly, {passed} of the generated ones passed as photographs, {flagged} of the photographs called generated (AUC {auc}).",
    "Bei {n} Testbildern aus {data}: {accuracy} richtig beurteilt, {passed} der künstlichen als Foto durchgegangen, {flagged} der Fotos für künstlich gehalten (AUC {auc}).",
  ],

  "intake.label": ["Add pictures", "Bilder hinzufügen"],
  "intake.choose": ["Choose pictures", "Bilder auswählen"],
  "intake.camera": ["Take a photo", "Foto aufnehmen"],
  "intake.paste": ["Paste", "Einfügen"],
  "intake.hint": ["or drop them here, or paste with Ctrl + V", "oder hierher ziehen, oder mit Strg + V einfügen"],
  "intake.kinds": ["JPEG, PNG, WebP or AVIF", "JPEG, PNG, WebP oder AVIF"],
  "intake.kinds.video": ["JPEG, PNG, WebP, AVIF, or a short video", "JPEG, PNG, WebP, AVIF oder ein kurzes Video"],
  "intake.drop": ["Let go to add", "Zum Hinzufügen loslassen"],
  "intake.nothing": [
    "There was no picture in it, perhaps only a link. Save the picture first, then choose the file.",
    "Darin war kein Bild, vielleicht nur ein Link. Speichern Sie das Bild zuerst und wählen Sie dann die Datei.",
  ],
  "intake.clipboard": [
    "There is no picture to paste, or your browser does not allow it. Copy a picture, or choose a file.",
    "Es gibt kein Bild zum Einfügen, oder Ihr Browser erlaubt es nicht. Kopieren Sie ein Bild, oder wählen Sie eine Datei.",
  ],

  "card.picture": ["Picture {n}", "Bild {n}"],
  "card.video": ["Video {n}", "Video {n}"],
  "card.alt": ["Picture {n}, as you chose it", "Bild {n}, wie Sie es gewählt haben"],
  "card.unseen": ["Your browser cannot show this file.", "Ihr Browser kann diese Datei nicht anzeigen."],
  "card.unseen.more": [
    "The service may still be able to read it.",
    "Der Dienst kann sie vielleicht trotzdem lesen.",
  ],
  "card.remove": ["Remove", "Entfernen"],
  "card.remove.label": ["Remove {name}", "{name} entfernen"],
  "card.cancel": ["Cancel", "Abbrechen"],
  "card.again": ["Try again", "Noch einmal versuchen"],
  "card.cancelled": ["Cancelled.", "Abgebrochen."],
  "card.cancelled.more": ["Nothing was judged.", "Es wurde nichts beurteilt."],
  "card.removed": ["{name} removed.", "{name} entfernt."],
  "step.waiting": ["Waiting its turn …", "Wartet, bis es an der Reihe ist …"],
  "step.sending": ["Sending: {percent}", "Wird gesendet: {percent}"],
  "step.looking": ["Looking closely …", "Wird genau angesehen …"],
  "step.progress": ["Sent so far", "Bisher gesendet"],
  "step.again": [
    "The service is busy. Trying again in {seconds} s, you need not do anything.",
    "Der Dienst ist ausgelastet. Neuer Versuch in {seconds} s, Sie müssen nichts tun.",
  ],

  "verdict.real": ["This looks like a photograph.", "Das sieht nach einem Foto aus."],
  "verdict.fake": ["This looks generated.", "Das sieht künstlich erzeugt aus."],
  "verdict.uncertain": ["The detector cannot tell.", "Der Detektor kann es nicht sagen."],
  "verdict.no_face": ["No face was found here.", "Hier wurde kein Gesicht gefunden."],
  "many.real": ["All {m} faces look photographed.", "Alle {m} Gesichter sehen nach Fotos aus."],
  "many.fake.one": ["1 of {m} faces looks generated.", "1 von {m} Gesichtern sieht künstlich erzeugt aus."],
  "many.fake": ["{n} of {m} faces look generated.", "{n} von {m} Gesichtern sehen künstlich erzeugt aus."],
  "face.real": ["Face {n} looks like a photograph.", "Gesicht {n} sieht nach einem Foto aus."],
  "face.fake": ["Face {n} looks generated.", "Gesicht {n} sieht künstlich erzeugt aus."],
  "face.uncertain": ["Face {n}: the detector cannot tell.", "Gesicht {n}: Der Detektor kann es nicht sagen."],
  "chance.real": ["estimated chance that it is a photograph", "geschätzte Wahrscheinlichkeit, dass es ein Foto ist"],
  "chance.fake": ["estimated chance that it is generated", "geschätzte Wahrscheinlichkeit, dass es künstlich erzeugt ist"],
  "chance.scale": ["Estimated chance that it is generated", "Geschätzte Wahrscheinlichkeit, dass es künstlich erzeugt ist"],
  "chance.value": [
    "{percent}. Below {low} it is called a photograph, from {high} on generated, in between uncertain.",
    "{percent}. Unter {low} heißt es Foto, ab {high} künstlich erzeugt, dazwischen unsicher.",
  ],
  "short.real": ["photograph", "Foto"],
  "short.fake": ["generated", "künstlich"],
  "short.uncertain": ["uncertain", "unsicher"],
  "short.no_face": ["no face", "kein Gesicht"],
  "zone.real": ["photograph", "Foto"],
  "zone.uncertain": ["uncertain", "unsicher"],
  "zone.fake": ["generated", "künstlich"],
  "of.about": [
    "Of 100 pictures scored like this, about {n} are generated.",
    "Von 100 Bildern mit dieser Bewertung sind etwa {n} künstlich erzeugt.",
  ],
  "of.one": ["Of 100 pictures scored like this, about 1 is generated.", "Von 100 Bildern mit dieser Bewertung ist etwa 1 künstlich erzeugt."],
  "of.few": [
    "Of 100 pictures scored like this, fewer than 1 is generated.",
    "Von 100 Bildern mit dieser Bewertung ist weniger als 1 künstlich erzeugt.",
  ],
  "of.most": [
    "Of 100 pictures scored like this, more than 99 are generated.",
    "Von 100 Bildern mit dieser Bewertung sind mehr als 99 künstlich erzeugt.",
  ],
  "help.real": [
    "This is no proof: a new or very good generator can slip through. If something still feels wrong, ask where the picture comes from.",
    "Das ist kein Beweis: Ein neuer oder sehr guter Generator kann durchrutschen. Wenn sich etwas falsch anfühlt, fragen Sie, woher das Bild stammt.",
  ],
  "help.fake": [
    "This is a strong hint, not a proof. Before you act on it, ask where the picture comes from, and whether the same person appears elsewhere.",
    "Das ist ein deutlicher Hinweis, kein Beweis. Bevor Sie danach handeln, fragen Sie, woher das Bild stammt und ob dieselbe Person anderswo zu sehen ist.",
  ],
  "help.uncertain": [
    "The traces point both ways, and guessing would not help you. The original file, or a larger picture of the same face, may give a clear answer.",
    "Die Spuren zeigen in beide Richtungen, und Raten würde Ihnen nicht helfen. Die Originaldatei oder ein größeres Bild desselben Gesichts kann Klarheit bringen.",
  ],
  "help.no_face": [
    "The detector judges faces only, so this says nothing about whether the picture is real. A picture helps in which the face is larger, sharper or turned to the camera.",
    "Der Detektor beurteilt nur Gesichter; ob das Bild echt ist, sagt das also nicht. Es hilft ein Bild, auf dem das Gesicht größer, schärfer oder der Kamera zugewandt ist.",
  ],
  "faces.label": ["Faces in this picture", "Gesichter in diesem Bild"],
  "faces.one": ["Face {n}: {percent} generated", "Gesicht {n}: {percent} künstlich"],
  "faces.note": [
    "Each was judged by itself; the highest score decides for the picture.",
    "Jedes wurde für sich beurteilt; der höchste Wert entscheidet für das Bild.",
  ],

  "note.title": ["Good to know", "Gut zu wissen"],
  "note.recompressed": [
    "The picture has been compressed again, as messengers do. That blurs the traces: the original file gives a better answer.",
    "Das Bild wurde noch einmal komprimiert, wie Messenger es tun. Das verwischt Spuren: Die Originaldatei gibt eine bessere Antwort.",
  ],
  "note.upscaled": [
    "The picture is very small and had to be enlarged, so the answer is less reliable.",
    "Das Bild ist sehr klein und musste vergrößert werden, die Antwort ist daher weniger verlässlich.",
  ],
  "note.several_faces": [
    "There are several faces. Each was judged by itself; the highest score decides.",
    "Es sind mehrere Gesichter zu sehen. Jedes wurde für sich beurteilt; der höchste Wert entscheidet.",
  ],
  "note.cropped": [
    "Only the marked square was judged. For the best answer, cut the picture to the face without making it smaller.",
    "Nur das markierte Quadrat wurde beurteilt. Schneiden Sie das Bild am besten auf das Gesicht zu, ohne es zu verkleinern.",
  ],
  "note.small": ["This face is small in the picture, so there is less to see.", "Das Gesicht ist klein im Bild, es gibt also weniger zu sehen."],
  "note.blurred": ["This face is blurred, which hides traces.", "Das Gesicht ist unscharf, das verdeckt Spuren."],
  "note.dark": ["This face is dark, which hides traces.", "Das Gesicht ist dunkel, das verdeckt Spuren."],
};
