// The heat map of a picture: requested on demand, shown over the picture, with a slider for its opacity.

import { announceText, button, focusOn, make } from "./dom.js";
import { detect } from "./api.js";
import { advice } from "./errors.js";
import { number, setText } from "./i18n.js";
import { inTurn, withRetries } from "./queue.js";

const INITIAL_PERCENT = 70;

/** A button that requests the heat map and is then replaced by a slider. */
export function heatPart(file, overlay, card) {
  const status = make("p", { className: "quiet", hidden: true });
  const ask = button("heat.ask", show);
  const part = make("div", { className: "heat-part" }, ask, status);
  return part;

  async function show() {
    const { signal } = new AbortController();
    ask.disabled = true;
    setText(status, "heat.asking").hidden = false;
    announceText("heat.asking");
    try {
      const answer = await inTurn(() => withRetries(() => detect(file, { explain: true }), signal, () => {}), signal);
      const map = answer.results[0].heatmap;
      if (!map) return setText(status, "heat.none");
      const setVisible = await overlay.heat(map);
      const slider = sliderFor(setVisible);
      ask.replaceWith(slider);
      setText(status, `heat.${map.toward}`);
      focusOn(slider.querySelector("input"));
      announceText("heat.shown", { name: card.title });
    } catch (error) {
      const [key, values] = advice(error, file);
      setText(status, key, values);
      announceText(key, values);
      ask.disabled = false;
    }
  }
}

function sliderFor(setVisible) {
  const range = make("input", { type: "range", min: 0, max: 100, step: 5, value: INITIAL_PERCENT });
  const follow = () => {
    setVisible(range.value / 100);
    const shown = () => number(range.value / 100, { style: "percent" });
    setText(range, "heat.value", { percent: shown }, "aria-valuetext");
  };
  range.addEventListener("input", follow);
  setText(range, "heat.label", {}, "aria-label");
  follow();
  const end = (textKey) => make("span", { textKey, aria: { hidden: "true" } });
  return make("div", { className: "slider" }, end("heat.off"), range, end("heat.on"));
}
