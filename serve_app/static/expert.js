// The details for experts: the exact numbers of a result.

import { drawer, make } from "./dom.js";
import { number, setText } from "./i18n.js";

const exact = (value) => () => number(value, { minimumFractionDigits: 4, maximumFractionDigits: 4 });
const short = (value) => () => number(value, { maximumFractionDigits: 3 });

/** A list of the numbers of one result, closed at first. */
export function expertPart(result, answer) {
  const { thresholds, size, crop_box: crop, faces, model } = result;
  const [left, top, right, bottom] = (crop ?? []).map(Math.round);
  const rows = [
    ["p_fake", result.p_fake !== null && ["plain", { value: exact(result.p_fake) }]],
    ["thresholds", ["expert.thresholds.value", { low: exact(thresholds.real_below), high: exact(thresholds.fake_above) }]],
    ["size", size && ["expert.size.value", size]],
    ["scored", crop && ["expert.scored.value", { left, top, right, bottom }]],
    ["detector", faces.length && ["plain", { value: () => faces.map((face) => short(face.score)()).join(" · ") }]],
    ["model", ["plain", { value: model.version }]],
    ["weights", ["plain", { value: model.sha256 }]],
    ["time", ["plain", { value: () => timing({ ...answer.timing_ms, ...result.timing_ms }) }]],
    ["request", ["plain", { value: answer.request_id }]],
  ];
  const list = make("dl");
  for (const [name, arguments_] of rows.filter(([, value]) => value)) {
    list.append(make("dt", { textKey: `expert.${name}` }), setText(make("dd"), ...arguments_));
  }
  return drawer("expert.title", list);
}

const timing = (milliseconds) =>
  Object.entries(milliseconds)
    .map(([stage, ms]) => `${stage} ${number(ms, { maximumFractionDigits: 0 })} ms`)
    .join(" · ");
