// The scores over the length of a clip: as bars that can be clicked, and as a table.

import { drawer, make } from "./dom.js";
import { number, percent, setText, seconds } from "./i18n.js";
import { notes } from "./verdict.js";

/** The summary, bars and table of a clip's answer; onSeek receives the time of a clicked bar, in seconds. */
export function clipPart(answer, onSeek) {
  const hasFaces = answer.frames.some((frame) => frame.faces.length);
  const fakes = answer.frames.filter((frame) => frame.verdict === "fake").length;
  const values = { n: answer.frames.length, fakes, scored: answer.scored_frames, percent: () => percent(answer.p_fake) };
  return make(
    "div",
    { className: "clip-answer" },
    answer.p_fake === null
      ? make("p", { textKey: "clip.help.no_face", values })
      : make("p", { textKey: hasFaces ? "clip.meaning" : "clip.meaning.frames", values }),
    bars(answer.frames, answer.duration_s, onSeek),
    make("p", { className: "help", textKey: "clip.help" }),
    notes(answer.warnings, "clip.note", faceCounts(answer.frames)),
    drawer("clip.table", table(answer.frames)),
  );
}

/** How many faces were found and scored in the frame of which most were left out. */
function faceCounts(frames) {
  const counts = frames.map(({ faces, faces_left_out: left }) => ({ scored: faces.length, found: faces.length + left.length }));
  return counts.reduce((most, each) => (each.found > most.found ? each : most), { scored: 0, found: 0 });
}

function bars(frames, end, onSeek) {
  const plot = make("div", { className: "bars", aria: { role: "img" } });
  setText(plot, "clip.timeline", {}, "aria-label");
  for (const frame of frames) {
    const bar = make("span", { className: `bar-of ${frame.verdict}` }, make("span"));
    bar.firstChild.style.height = frame.p_fake === null ? "0" : `${Math.max(4, 100 * frame.p_fake)}%`;
    bar.addEventListener("click", () => onSeek(frame.time_s));
    plot.append(bar);
  }
  const time = (value) => setText(make("span"), "plain", { value: () => `${seconds(value)} s` });
  const ends = make("p", { className: "ends", aria: { hidden: "true" } }, time(0), time(end));
  return make("div", { className: "timeline" }, plot, ends);
}

function table(frames) {
  const cell = (value, tag = "td") => setText(make(tag), "plain", { value });
  const head = ["time", "chance", "verdict"].map((name) => make("th", { textKey: `clip.${name}`, scope: "col" }));
  const rows = frames.map(({ time_s: time, p_fake, verdict }) =>
    make(
      "tr",
      {},
      cell(() => number(time, { minimumFractionDigits: 2, maximumFractionDigits: 2 })),
      cell(() => (p_fake === null ? "–" : percent(p_fake))),
      make("td", { textKey: `short.${verdict}` }),
    ),
  );
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}
