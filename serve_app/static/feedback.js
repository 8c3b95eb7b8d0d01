// "Was this wrong?": a person may give the picture, knowing what is stored. Without consent nothing is sent.

import { feedback } from "./api.js";
import { announceText, button, drawer, focusOn, make, uniqueId } from "./dom.js";
import { advice } from "./errors.js";
import { say } from "./i18n.js";

/** A closed form under a verdict. */
export function feedbackPart(file, { verdict }, requestId) {
  const name = uniqueId("truth");
  const noteId = uniqueId("note");
  const storedId = uniqueId("stored");
  const radios = ["real", "fake"].map((value) => make("input", { type: "radio", name, value }));
  const consent = make("input", { type: "checkbox", aria: { describedby: `${storedId} ${noteId}` } });
  const note = make("p", { id: noteId, className: "complaint", hidden: true });
  const send = button("feedback.send", give);
  const choices = radios.map((radio) => make("label", {}, radio, make("span", { said: `feedback.${radio.value}` })));
  const form = make(
    "div",
    { className: "feedback" },
    make("fieldset", {}, make("legend", { said: "feedback.truth" }), ...choices),
    make("p", { id: storedId, className: "quiet", said: "feedback.stored" }),
    make("label", { className: "consent" }, consent, make("span", { said: "feedback.consent" })),
    note,
    send,
  );
  consent.addEventListener("change", () => consent.removeAttribute("aria-invalid"));
  return drawer("feedback.ask", form);

  function complain(key, at, values) {
    say(note, key, values).hidden = false;
    at.setAttribute("aria-invalid", "true");
    at.focus();
    announceText(key, values);
  }

  async function give() {
    const chosen = radios.find((radio) => radio.checked);
    if (!chosen) return complain("feedback.choose", radios[0]);
    if (!consent.checked) return complain("feedback.no_consent", consent);
    note.hidden = true;
    send.disabled = true;
    say(send, "feedback.sending");
    const fields = { label: chosen.value, consent: "true", request_id: requestId, verdict };
    try {
      const { id } = await feedback(file, fields);
      const thanks = make("p", { className: "thanks", said: "feedback.thanks", values: { id } });
      form.replaceChildren(thanks);
      focusOn(thanks);
      announceText("feedback.thanks", { id });
    } catch (error) {
      send.disabled = false;
      say(send, "feedback.send");
      const [key, values] = advice(error, file);
      complain(key, send, values);
    }
  }
}
