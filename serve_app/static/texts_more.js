// More texts of the page, about what comes after the verdict and about errors: key -> [English, German].

export const MORE = {
  "heat.ask": ["Show what influenced the score", "Zeigen, was den Wert beeinflusst hat"],
  "heat.asking": ["Computing the heat map …", "Heatmap wird berechnet …"],
  "heat.label": ["Heat map over the picture", "Heatmap über dem Bild"],
  "heat.value": ["{percent} visible", "{percent} sichtbar"],
  "heat.off": ["picture", "Bild"],
  "heat.on": ["heat map", "Heatmap"],
  "heat.fake": [
    "The brighter an area, the more it moved the score toward “AI-generated”. The heat map shows what influenced the score, not what is false in the picture.",
    "Je heller ein Bereich, desto stärker hat er den Wert in Richtung „KI-generiert“ verschoben. Die Heatmap zeigt, was den Wert beeinflusst hat, nicht was am Bild falsch ist.",
  ],
  "heat.real": [
    "The brighter an area, the more it moved the score toward “photograph”. The heat map shows what influenced the score, not what is genuine in the picture.",
    "Je heller ein Bereich, desto stärker hat er den Wert in Richtung „Foto“ verschoben. Die Heatmap zeigt, was den Wert beeinflusst hat, nicht was am Bild echt ist.",
  ],
  "heat.none": ["No heat map is available for this picture.", "Für dieses Bild ist keine Heatmap verfügbar."],
  "heat.shown": ["The heat map is shown over {name}.", "Die Heatmap liegt über {name}."],

  "expert.title": ["Details for experts", "Details für Fachleute"],
  "expert.p_fake": ["p(fake), calibrated", "p(fake), kalibriert"],
  "expert.thresholds": ["Thresholds", "Schwellenwerte"],
  "expert.thresholds.value": ["real < {low} · fake ≥ {high}", "real < {low} · fake ≥ {high}"],
  "expert.size": ["Picture size", "Bildgröße"],
  "expert.size.value": ["{width} × {height} px, after EXIF rotation", "{width} × {height} px, nach EXIF-Drehung"],
  "expert.scored": ["Analyzed area", "Ausgewerteter Bereich"],
  "expert.scored.value": ["{left}, {top} – {right}, {bottom} px", "{left}, {top} – {right}, {bottom} px"],
  "expert.detector": ["Face detection confidence", "Konfidenz der Gesichtserkennung"],
  "expert.model": ["Model", "Modell"],
  "expert.weights": ["Weights, SHA-256", "Gewichte, SHA-256"],
  "expert.request": ["Request ID", "Anfrage-ID"],
  "expert.time": ["Processing time", "Verarbeitungszeit"],

  "save.button": ["Save this answer", "Antwort speichern"],
  "save.name": ["answer", "antwort"],
  "save.title": ["An answer of the face detector", "Eine Antwort des Gesichtsdetektors"],
  "save.made": [
    "Saved on {time} from {origin}. This page is complete in itself; nobody has checked whether it was changed since.",
    "Gespeichert am {time} von {origin}. Diese Seite ist in sich vollständig; ob sie danach geändert wurde, hat niemand geprüft.",
  ],
  "save.sha256": ["File, SHA-256", "Datei, SHA-256"],

  "video.frame": ["Choose a moment", "Wählen Sie einen Moment"],
  "video.hint": [
    "Move to a moment in which the face is large and sharp. Only this one frame is sent.",
    "Gehen Sie zu einem Moment, in dem das Gesicht groß und scharf ist. Nur dieses Einzelbild wird gesendet.",
  ],
  "video.time": ["Position in the video", "Position im Video"],
  "video.at": ["{time} of {end} seconds", "{time} von {end} Sekunden"],
  "video.back": ["Step back", "Einen Schritt zurück"],
  "video.forth": ["Step forward", "Einen Schritt vor"],
  "video.pick": ["Analyze this frame", "Dieses Einzelbild auswerten"],
  "video.clip": ["Analyze the whole clip", "Ganzen Clip auswerten"],
  "video.name": ["{name} at {time} s", "{name} bei {time} s"],
  "video.unseen": ["Your browser cannot play this video.", "Ihr Browser kann dieses Video nicht abspielen."],
  "video.unseen.more": [
    "Take a screenshot of the moment that matters and add it here, or save the video as MP4 (H.264) or WebM.",
    "Machen Sie ein Bildschirmfoto des entscheidenden Moments und fügen Sie es hier hinzu, oder speichern Sie das Video als MP4 (H.264) oder WebM.",
  ],
  "video.label": ["Video {n}, shown without sound", "Video {n}, ohne Ton"],
  "clip.real": ["This clip looks like real footage.", "Dieser Clip sieht nach einer echten Aufnahme aus."],
  "clip.fake": ["This clip looks AI-generated.", "Dieser Clip sieht KI-generiert aus."],
  "clip.uncertain": ["The detector cannot tell for this clip.", "Bei diesem Clip ist sich der Detektor nicht sicher."],
  "clip.no_face": ["No face was found in this clip.", "In diesem Clip wurde kein Gesicht gefunden."],
  "clip.meaning": [
    "Faces in {n} moments of the clip were analyzed. Moments with a face: {scored}; of these, {fakes} look AI-generated. The median score is {percent}.",
    "Ausgewertet wurden die Gesichter in {n} Momenten des Clips. Momente mit Gesicht: {scored}; davon sehen {fakes} KI-generiert aus. Der Median der Werte ist {percent}.",
  ],
  "clip.meaning.frames": [
    "The middle of the picture was analyzed in {n} moments of the clip, without looking for faces; {fakes} of them look AI-generated. The median score is {percent}.",
    "Ausgewertet wurde die Bildmitte in {n} Momenten des Clips, ohne nach Gesichtern zu suchen; {fakes} davon sehen KI-generiert aus. Der Median der Werte ist {percent}.",
  ],
  "clip.help.no_face": [
    "The detector examines faces only, and found none in {n} moments of the clip. This says nothing about whether the clip is real. Choose a moment in which a face is large and sharp.",
    "Der Detektor untersucht nur Gesichter und hat in {n} Momenten des Clips keines gefunden. Ob der Clip echt ist, sagt das nicht. Wählen Sie einen Moment, in dem ein Gesicht groß und scharf ist.",
  ],
  "clip.note.recompressed": [
    "The clip is heavily compressed, which removes traces.",
    "Der Clip ist stark komprimiert; dabei gehen Spuren verloren.",
  ],
  "clip.note.upscaled": [
    "In some moments the face is very small and had to be enlarged, so the answer is less reliable.",
    "In manchen Momenten ist das Gesicht sehr klein und musste vergrößert werden; die Antwort ist daher weniger verlässlich.",
  ],
  "clip.note.several_faces": [
    "Several faces can be seen. At each moment, the one with the highest score counts.",
    "Es sind mehrere Gesichter zu sehen. In jedem Moment zählt das mit dem höchsten Wert.",
  ],
  "clip.note.faces_left_out": [
    "At some moment only {scored} of {found} faces were judged, the largest ones. Any of the others may be AI-generated.",
    "In manchen Momenten wurden nur {scored} von {found} Gesichtern bewertet, die größten. Jedes der anderen kann KI-generiert sein.",
  ],
  "clip.note.crowd": [
    "At some moment so much looks like a face that only the larger ones were searched. Any of the smaller ones may be AI-generated.",
    "In manchen Momenten sieht so vieles wie ein Gesicht aus, dass nur nach größeren gesucht wurde. Jedes der kleineren kann KI-generiert sein.",
  ],
  "clip.note.too_small": [
    "The clip is only a few pixels in size, so there is nothing to examine.",
    "Der Clip ist nur wenige Pixel groß; es gibt darin nichts zu untersuchen.",
  ],
  "clip.note.blank": [
    "At some moments the clip shows one color only; they were not scored.",
    "In manchen Momenten zeigt der Clip nur eine Farbe; sie wurden nicht bewertet.",
  ],
  "clip.note.not_as_shown": [
    "A video player shows this clip differently, for example with other colors or turned, so the answer is less reliable.",
    "Ein Videoplayer zeigt diesen Clip anders, zum Beispiel mit anderen Farben oder gedreht; die Antwort ist daher weniger verlässlich.",
  ],
  "clip.note.damaged_frames": [
    "Parts of the clip are damaged and could not be examined.",
    "Teile des Clips sind beschädigt und konnten nicht untersucht werden.",
  ],
  "clip.note.cropped": [
    "Only the square in the middle of the picture was analyzed.",
    "Nur das Quadrat in der Bildmitte wurde ausgewertet.",
  ],
  "clip.timeline": [
    "Scores over time: each bar is one frame; the higher it is, the more likely the frame is AI-generated",
    "Werte im Zeitverlauf: Jeder Balken ist ein Einzelbild; je höher er ist, desto wahrscheinlicher ist es KI-generiert",
  ],
  "clip.table": ["All frames as a table", "Alle Einzelbilder als Tabelle"],
  "clip.time": ["Second", "Sekunde"],
  "clip.chance": ["Score", "Wert"],
  "clip.verdict": ["Verdict", "Ergebnis"],
  "clip.help": [
    "Each frame is analyzed on its own; movement and sound are not taken into account. A single outlier says little.",
    "Jedes Einzelbild wird für sich ausgewertet; Bewegung und Ton werden nicht berücksichtigt. Ein einzelner Ausreißer sagt wenig aus.",
  ],

  "feedback.ask": ["Was this wrong?", "War das falsch?"],
  "feedback.truth": ["What do you know about this picture?", "Was wissen Sie über dieses Bild?"],
  "feedback.real": ["It is a photograph", "Es ist ein Foto"],
  "feedback.fake": ["It is AI-generated", "Es ist KI-generiert"],
  "feedback.consent": [
    "I have the right to share this picture, and I agree that it is stored and used to improve the detector.",
    "Ich darf dieses Bild weitergeben und bin damit einverstanden, dass es gespeichert und zur Verbesserung des Detektors verwendet wird.",
  ],
  "feedback.stored": [
    "Stored: the picture (without date, location and other hidden data in the file), your answer, the detector’s verdict, the model, the request ID and the time. Not stored: your name, your address and the file name. Nothing is sent without your consent.",
    "Gespeichert werden das Bild (ohne Datum, Ort und andere versteckte Daten in der Datei), Ihre Angabe, das Ergebnis des Detektors, das Modell, die Anfrage-ID und der Zeitpunkt. Nicht gespeichert werden Ihr Name, Ihre Adresse und der Dateiname. Ohne Ihre Zustimmung wird nichts gesendet.",
  ],
  "feedback.send": ["Send the picture", "Bild senden"],
  "feedback.sending": ["Sending …", "Wird gesendet …"],
  "feedback.choose": [
    "Please choose first what you know about the picture.",
    "Bitte wählen Sie zuerst aus, was Sie über das Bild wissen.",
  ],
  "feedback.no_consent": [
    "Nothing is sent without your consent. Tick the box if you agree.",
    "Ohne Ihre Zustimmung wird nichts gesendet. Setzen Sie das Häkchen, wenn Sie einverstanden sind.",
  ],
  "feedback.thanks": [
    "Thank you. The picture was stored with the ID {id}. Give this ID to the operator of the service if you want the picture to be deleted.",
    "Danke. Das Bild wurde mit der ID {id} gespeichert. Nennen Sie dem Betreiber des Dienstes diese ID, wenn das Bild gelöscht werden soll.",
  ],
  "key.title": ["This service requires a key", "Für diesen Dienst brauchen Sie einen Schlüssel"],
  "key.more": [
    "You get the key from the operator of the service. It stays in this tab and is forgotten when you close it.",
    "Den Schlüssel erhalten Sie vom Betreiber des Dienstes. Er bleibt in diesem Tab und wird vergessen, wenn Sie ihn schließen.",
  ],
  "key.label": ["Key", "Schlüssel"],
  "key.save": ["Use this key", "Schlüssel verwenden"],
  "key.wrong": [
    "This key was not accepted. Check it, or ask the operator for another one.",
    "Dieser Schlüssel wurde nicht akzeptiert. Prüfen Sie ihn oder bitten Sie den Betreiber um einen anderen.",
  ],
  "key.enter": ["Enter the key", "Schlüssel eingeben"],

  "error.title.link": ["This picture could not be analyzed.", "Dieses Bild konnte nicht ausgewertet werden."],
  "error.title": ["This file could not be analyzed.", "Diese Datei konnte nicht ausgewertet werden."],
  "error.0": [
    "The service cannot be reached. Check your connection and try again.",
    "Der Dienst ist nicht erreichbar. Prüfen Sie Ihre Verbindung und versuchen Sie es erneut.",
  ],
  "error.400": [
    "It cannot be read as a picture and may be damaged. Save it as JPEG or PNG and add it again.",
    "Sie lässt sich nicht als Bild lesen und ist möglicherweise beschädigt. Speichern Sie sie als JPEG oder PNG und fügen Sie sie erneut hinzu.",
  ],
  "error.heic": [
    "The service cannot read this format. On an iPhone, choose “Most Compatible” under Settings › Camera › Formats for new photos, or take the photo with the button on this page. On a computer, save the picture as JPEG.",
    "Der Dienst kann dieses Format nicht lesen. Wählen Sie auf dem iPhone unter Einstellungen › Kamera › Formate „Maximale Kompatibilität“ für neue Fotos, oder nehmen Sie das Foto mit der Schaltfläche auf dieser Seite auf. Am Computer speichern Sie das Bild als JPEG.",
  ],
  "error.video": [
    "It cannot be read as a video. Save it as MP4 (H.264) or WebM, or choose a single frame.",
    "Sie lässt sich nicht als Video lesen. Speichern Sie sie als MP4 (H.264) oder WebM, oder wählen Sie ein Einzelbild aus.",
  ],
  "error.401": ["The service requires a key.", "Für diesen Dienst brauchen Sie einen Schlüssel."],
  "error.404": [
    "The service no longer offers this. Reload the page.",
    "Der Dienst bietet das nicht mehr an. Laden Sie die Seite neu.",
  ],
  "error.408": [
    "The upload took too long. Try again, with a better connection if possible.",
    "Das Hochladen hat zu lange gedauert. Versuchen Sie es erneut, möglichst mit einer besseren Verbindung.",
  ],
  "error.413": [
    "It is larger than this service accepts. Crop the picture to the face and save that part. Do not scale the picture down: that destroys the traces that the detector looks for.",
    "Sie ist größer, als dieser Dienst erlaubt. Schneiden Sie das Bild auf das Gesicht zu und speichern Sie diesen Ausschnitt. Verkleinern Sie das Bild nicht: Das zerstört die Spuren, nach denen der Detektor sucht.",
  ],
  "error.413.bytes": [
    "Its size is {size}, but this service accepts at most {most}. Crop the picture to the face and save that part. Do not scale the picture down: that destroys the traces that the detector looks for.",
    "Sie ist {size} groß, aber dieser Dienst erlaubt höchstens {most}. Schneiden Sie das Bild auf das Gesicht zu und speichern Sie diesen Ausschnitt. Verkleinern Sie das Bild nicht: Das zerstört die Spuren, nach denen der Detektor sucht.",
  ],
  "error.413.pixels": [
    "It has {size} megapixels, but this service accepts at most {most}. Crop the picture to the face and save that part. Do not scale the picture down: that destroys the traces that the detector looks for.",
    "Sie hat {size} Megapixel, aber dieser Dienst erlaubt höchstens {most}. Schneiden Sie das Bild auf das Gesicht zu und speichern Sie diesen Ausschnitt. Verkleinern Sie das Bild nicht: Das zerstört die Spuren, nach denen der Detektor sucht.",
  ],
  "error.413.video": [
    "This video is longer or larger than the service accepts. Choose a single frame above, or cut the clip to the seconds that matter.",
    "Dieses Video ist länger oder größer, als der Dienst erlaubt. Wählen Sie oben ein Einzelbild aus, oder kürzen Sie den Clip auf die entscheidenden Sekunden.",
  ],
  "error.415": [
    "The service cannot read this kind of file. Choose a JPEG, PNG or WebP picture.",
    "Der Dienst kann diese Art von Datei nicht lesen. Wählen Sie ein Bild im Format JPEG, PNG oder WebP.",
  ],
  "error.422": [
    "The service received no picture. Choose the file again.",
    "Beim Dienst kam kein Bild an. Wählen Sie die Datei noch einmal aus.",
  ],
  "error.link": [
    "The service cannot fetch a picture from this address. It must lead to a picture file that anybody on the web can open. Otherwise save the picture and choose the file.",
    "Von dieser Adresse kann der Dienst kein Bild abrufen. Sie muss zu einer Bilddatei führen, die jeder im Web öffnen kann. Speichern Sie sonst das Bild und wählen Sie die Datei aus.",
  ],
  "error.link.file": [
    "What this address leads to is not a picture that the service can read. Many addresses lead to a page around the picture: save the picture itself and choose the file.",
    "Was sich unter dieser Adresse befindet, kann der Dienst nicht als Bild lesen. Viele Adressen führen zu einer Seite mit dem Bild: Speichern Sie das Bild selbst und wählen Sie die Datei aus.",
  ],
  "error.receipt": [
    "The service no longer recognizes this answer. Add the picture again, then send it.",
    "Der Dienst erkennt diese Antwort nicht mehr. Fügen Sie das Bild noch einmal hinzu und senden Sie es dann.",
  ],
  "error.429": [
    "Too many files were sent from your connection in a short time. Try again in {seconds} s.",
    "Von Ihrem Anschluss wurden in kurzer Zeit zu viele Dateien gesendet. Versuchen Sie es in {seconds} s erneut.",
  ],
  "error.500": [
    "Something went wrong in the service; your file is not the cause. Try again, and tell the operator if it happens again.",
    "Im Dienst ist ein Fehler aufgetreten; an Ihrer Datei liegt es nicht. Versuchen Sie es erneut, und informieren Sie den Betreiber, wenn es wieder geschieht.",
  ],
  "error.503": [
    "The service cannot answer at the moment. Try again in {seconds} s.",
    "Der Dienst kann im Moment nicht antworten. Versuchen Sie es in {seconds} s erneut.",
  ],
  "error.now": ["You can try again now.", "Sie können es jetzt erneut versuchen."],
  "error.request": ["Request ID: {id}", "Anfrage-ID: {id}"],
};
