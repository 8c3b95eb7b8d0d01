// The heat map of a picture: asked for on demand, laid over the picture, slid in and out.

import { announceText, button, focusOn, make } from "./dom.js";
import { detect } from "./api.js";
import { advice } from "./errors.js";
import { number, say } from "./i18n.js";
import { inTurn, patiently } from "./queue.js";

const AT_FIRST = 70;

/** A button that becomes a slider. */
export function heatPart(file, overlay, card) {
  const said = make("p", { className: "quiet", hidden: true });
  const ask = button("heat.ask", show);
  const part = make("div", { className: "heat-part" }, ask, said);
  return part;

  async function show() {
    const { signal } = new AbortController();
    ask.disabled = true;
    say(said, "heat.asking").hidden = false;
    announceText("heat.asking");
    try {
      const answer = await inTurn(() => patiently(() => detect(file, { explain: true }), signal, () => {}), signal);
      const map = answer.results[0].heatmap;
      if (!map) return say(said, "heat.none");
      const setVisible = await overlay.heat(map);
      const slider = sliderFor(setVisible);
      ask.replaceWith(slider);
      say(said, `heat.${map.toward}`);
      focusOn(slider.querySelector("input"));
      announceText("heat.shown", { name: card.title });
    } catch (error) {
      const [key, values] = advice(error, file);
      say(said, key, values);
      announceText(key, values);
      ask.disabled = false;
    }
  }
}

function sliderFor(setVisible) {
  const range = make("input", { type: "range", min: 0, max: 100, step: 5, value: AT_FIRST });
  const follow = () => {
    setVisible(range.value / 100);
    const shown = () => number(range.value / 100, { style: "percent" });
    say(range, "heat.value", { percent: shown }, "aria-valuetext");
  };
  range.addEventListener("input", follow);
  say(range, "heat.label", {}, "aria-label");
  follow();
  const end = (said) => make("span", { said, aria: { hidden: "true" } });
  return make("div", { className: "slider" }, end("heat.off"), range, end("heat.on"));
}
