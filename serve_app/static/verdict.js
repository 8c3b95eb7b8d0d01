// A score in words and on a scale; what one should know about it; the faces of a picture to choose from.

import { make, uniqueId } from "./dom.js";
import { percent, say } from "./i18n.js";

/** Key and values of the headline over a picture. */
export function headline({ verdict, faces }) {
  const n = faces.filter((face) => face.verdict === "fake").length;
  const values = { n, m: faces.length };
  if (faces.length > 1 && verdict === "fake" && n) return [n > 1 ? "many.fake" : "many.fake.one", values];
  if (faces.length > 1 && verdict === "real") return ["many.real", values];
  return [`verdict.${verdict}`, {}];
}

/** "Of 100 pictures scored like this, about N are generated." as key and values. */
export function ofHundred(p_fake) {
  const n = Math.round(100 * p_fake);
  const key = { 0: "of.few", 1: "of.one", 100: "of.most" }[n] ?? "of.about";
  return [key, { n }];
}

/** The percentage of a verdict, the scale with its uncertain zone, and the sentence that says what it means. */
export function score({ p_fake, verdict }, thresholds) {
  const shown = verdict === "real" ? ["chance.real", 1 - p_fake] : ["chance.fake", p_fake];
  return make(
    "div",
    { className: `score ${verdict}` },
    make(
      "p",
      { className: "chance" },
      say(make("strong"), "plain", { value: () => percent(shown[1]) }),
      " ",
      make("span", { said: shown[0] }),
    ),
    scale(p_fake, thresholds),
    make("p", { className: "of-hundred", said: ofHundred(p_fake)[0], values: ofHundred(p_fake)[1] }),
  );
}

function scale(p_fake, { real_below: low, fake_above: high }) {
  const bar = make("div", {
    className: "bar",
    aria: { role: "meter", valuemin: 0, valuemax: 100, valuenow: Math.round(100 * p_fake) },
  });
  say(bar, "chance.scale", {}, "aria-label");
  const values = { percent: () => percent(p_fake), low: () => percent(low), high: () => percent(high) };
  say(bar, "chance.value", values, "aria-valuetext");
  for (const [zone, share] of [["real", low], ["uncertain", high - low], ["fake", 1 - high]]) {
    const part = make("span", { className: `zone ${zone}` });
    part.style.flexGrow = share;
    bar.append(part);
  }
  const needle = make("span", { className: "needle" });
  needle.style.left = `${100 * p_fake}%`;
  bar.append(needle);
  const word = (zone) => make("span", { className: zone }, make("i"), make("span", { said: `zone.${zone}` }));
  const words = make("p", { className: "zones", aria: { hidden: "true" } }, ...["real", "uncertain", "fake"].map(word));
  return make("div", { className: "scale" }, bar, words);
}

/** A list of warnings and quality flags in words; null where there is none. */
export function notes(codes) {
  if (!codes.length) return null;
  return make(
    "div",
    { className: "notes" },
    make("h4", { said: "note.title" }),
    make("ul", {}, ...codes.map((code) => make("li", { said: `note.${code}` }))),
  );
}

/** A list of faces, of which one is picked; onPick hears its index. */
export function faceChoice(faces, picked, onPick) {
  const name = uniqueId("face");
  const radio = (face, index) => {
    const values = { n: index + 1, percent: () => percent(face.p_fake) };
    const input = make("input", { type: "radio", name, value: index, checked: index === picked });
    input.addEventListener("change", () => onPick(index));
    return make("label", { className: face.verdict }, input, make("span", { said: "faces.one", values }));
  };
  return make(
    "fieldset",
    { className: "faces" },
    make("legend", { said: "faces.label" }),
    ...faces.map(radio),
    make("p", { className: "quiet", said: "faces.note" }),
  );
}
