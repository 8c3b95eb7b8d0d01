// A verdict in words and on a scale, notes about it, and the choice between several faces.

import { make, uniqueId } from "./dom.js";
import { percent, setText } from "./i18n.js";

/** The key and values of the headline of a picture; left: the faces that were found but not scored. */
export function headline({ verdict, faces, faces_left_out: left }) {
  const n = faces.filter((face) => face.verdict === "fake").length;
  const values = { n, m: faces.length, found: faces.length + left.length };
  if (left.length && faces.every((face) => face.verdict === "real")) {
    return [faces.length > 1 ? "many.left_out" : "many.left_out.one", values];
  }
  if (faces.length > 1 && verdict === "fake" && n) return [n > 1 ? "many.fake" : "many.fake.one", values];
  if (faces.length > 1 && verdict === "real") return ["many.real", values];
  return [`verdict.${verdict}`, {}];
}

/** The key and values of "Of 100 pictures with this score, about N are AI-generated.", or why nothing can be said. */
export function ofHundred(p_fake, isDemo) {
  if (isDemo) return ["of.demo", {}];
  const n = Math.round(100 * p_fake);
  const key = { 0: "of.few", 1: "of.one", 100: "of.most" }[n] ?? "of.about";
  return [key, { n }];
}

/** The percentage of a verdict, the scale with its uncertain zone, and sentences that explain the percentage. */
export function score({ p_fake, verdict }, thresholds, isDemo) {
  const [key, values] = ofHundred(p_fake, isDemo);
  const shown = verdict === "real" ? ["chance.real", 1 - p_fake] : ["chance.fake", p_fake];
  return make(
    "div",
    { className: `score ${verdict}` },
    make(
      "p",
      { className: "chance" },
      setText(make("strong"), "plain", { value: () => percent(shown[1]) }),
      " ",
      make("span", { textKey: shown[0] }),
    ),
    scale(p_fake, thresholds),
    make("p", { className: "of-hundred", textKey: key, values }),
    !isDemo && make("p", { className: "quiet", textKey: "of.mix" }),
  );
}

function scale(p_fake, { real_below: low, fake_above: high }) {
  const bar = make("div", {
    className: "bar",
    aria: { role: "meter", valuemin: 0, valuemax: 100, valuenow: Math.round(100 * p_fake) },
  });
  setText(bar, "chance.scale", {}, "aria-label");
  const values = { percent: () => percent(p_fake), low: () => percent(low), high: () => percent(high) };
  const isSharp = percent(low) === percent(high); // there is no uncertain zone, or none that anybody could see
  setText(bar, isSharp ? "chance.value.sharp" : "chance.value", values, "aria-valuetext");
  const all = [["real", low], ["uncertain", high - low], ["fake", 1 - high]];
  const zones = all.filter(([zone]) => !isSharp || zone !== "uncertain");
  for (const [zone, width] of zones) {
    const part = make("span", { className: `zone ${zone}` });
    part.style.flexGrow = width;
    bar.append(part);
  }
  const needle = make("span", { className: "needle" });
  needle.style.left = `${100 * p_fake}%`;
  bar.append(needle);
  const word = (zone) => make("span", { className: zone }, make("i"), make("span", { textKey: `short.${zone}` }));
  const words = make("p", { className: "zones", aria: { hidden: "true" } }, ...zones.map(([zone]) => word(zone)));
  return make("div", { className: "scale" }, bar, words);
}

/** A list of warnings and quality flags in words, about a picture or a clip; null if there are none. */
export function notes(warnings, about = "note", values = {}) {
  const codes = warnings.filter((code) => code !== "demo_model"); // the card is marked instead
  if (!codes.length) return null;
  return make(
    "div",
    { className: "notes" },
    make("h4", { textKey: "note.title" }),
    make("ul", {}, ...codes.map((code) => make("li", { textKey: `${about}.${code}`, values }))),
  );
}

/** A list of faces to choose from; onPick receives the index of the chosen one. */
export function faceChoice(faces, picked, onPick) {
  const name = uniqueId("face");
  const radio = (face, index) => {
    const values = { n: index + 1, percent: () => percent(face.p_fake) };
    const input = make("input", { type: "radio", name, value: index, checked: index === picked });
    input.addEventListener("change", () => onPick(index));
    return make("label", { className: face.verdict }, input, make("span", { textKey: "faces.one", values }));
  };
  return make(
    "fieldset",
    { className: "faces" },
    make("legend", { textKey: "faces.label" }),
    ...faces.map(radio),
    make("p", { className: "quiet", textKey: "faces.note" }),
  );
}
