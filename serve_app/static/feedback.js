// "Was this wrong?": a form to send the picture with its true label. Nothing is sent without consent.

import { feedback } from "./api.js";
import { announceText, button, drawer, focusOn, make, uniqueId } from "./dom.js";
import { advice } from "./errors.js";
import { setText } from "./i18n.js";
import { countGift } from "./promise.js";

/** The feedback form below a verdict, closed at first. */
export function feedbackPart(file, { receipt }) {
  const name = uniqueId("truth");
  const noteId = uniqueId("note");
  const storedId = uniqueId("stored");
  const radios = ["real", "fake"].map((value) => make("input", { type: "radio", name, value }));
  const consent = make("input", { type: "checkbox", aria: { describedby: `${storedId} ${noteId}` } });
  const note = make("p", { id: noteId, className: "complaint", hidden: true });
  const send = button("feedback.send", submit);
  const choices = radios.map((radio) => make("label", {}, radio, make("span", { textKey: `feedback.${radio.value}` })));
  const form = make(
    "div",
    { className: "feedback" },
    make("fieldset", {}, make("legend", { textKey: "feedback.truth" }), ...choices),
    make("p", { id: storedId, className: "quiet", textKey: "feedback.stored" }),
    make("label", { className: "consent" }, consent, make("span", { textKey: "feedback.consent" })),
    note,
    send,
  );
  consent.addEventListener("change", () => consent.removeAttribute("aria-invalid"));
  return drawer("feedback.ask", form);

  function showProblem(key, control, values) {
    setText(note, key, values).hidden = false;
    control.setAttribute("aria-invalid", "true");
    control.focus();
    announceText(key, values);
  }

  async function submit() {
    const selected = radios.find((radio) => radio.checked);
    if (!selected) return showProblem("feedback.choose", radios[0]);
    if (!consent.checked) return showProblem("feedback.no_consent", consent);
    note.hidden = true;
    send.disabled = true;
    setText(send, "feedback.sending");
    try {
      const { id } = await feedback(file, { label: selected.value, consent: "true", receipt });
      countGift(id);
      const thanks = make("p", { className: "thanks", textKey: "feedback.thanks", values: { id } });
      form.replaceChildren(thanks);
      focusOn(thanks);
      announceText("feedback.thanks", { id });
    } catch (error) {
      send.disabled = false;
      setText(send, "feedback.send");
      const [key, values] = advice(error, file);
      showProblem(key, send, values);
    }
  }
}
