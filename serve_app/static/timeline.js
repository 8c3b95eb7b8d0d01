// The scores along a clip: bars to look at and to jump with, a table to read.

import { drawer, make } from "./dom.js";
import { number, percent, say, seconds } from "./i18n.js";
import { notes } from "./verdict.js";

/** Summary, bars and table of a clip's answer; onSeek hears the second of a bar that was clicked. */
export function clipPart(answer, onSeek) {
  const fakes = answer.frames.filter((frame) => frame.verdict === "fake").length;
  const values = { fakes, scored: answer.scored_frames, percent: () => percent(answer.p_fake) };
  return make(
    "div",
    { className: "clip-answer" },
    answer.p_fake === null ? make("p", { said: "help.no_face" }) : make("p", { said: "clip.meaning", values }),
    bars(answer.frames, answer.duration_s, onSeek),
    make("p", { className: "help", said: "clip.help" }),
    notes(answer.warnings ?? []),
    drawer("clip.table", table(answer.frames)),
  );
}

function bars(frames, end, onSeek) {
  const plot = make("div", { className: "bars", aria: { role: "img" } });
  say(plot, "clip.timeline", {}, "aria-label");
  for (const frame of frames) {
    const bar = make("span", { className: `bar-of ${frame.verdict}` }, make("span"));
    bar.firstChild.style.height = frame.p_fake === null ? "0" : `${Math.max(4, 100 * frame.p_fake)}%`;
    bar.addEventListener("click", () => onSeek(frame.time_s));
    plot.append(bar);
  }
  const time = (value) => say(make("span"), "plain", { value: () => `${seconds(value)} s` });
  const ends = make("p", { className: "ends", aria: { hidden: "true" } }, time(0), time(end));
  return make("div", { className: "timeline" }, plot, ends);
}

function table(frames) {
  const cell = (value, tag = "td") => say(make(tag), "plain", { value });
  const head = ["time", "chance", "verdict"].map((name) => make("th", { said: `clip.${name}`, scope: "col" }));
  const rows = frames.map(({ time_s: time, p_fake, verdict }) =>
    make(
      "tr",
      {},
      cell(() => number(time, { minimumFractionDigits: 2, maximumFractionDigits: 2 })),
      cell(() => (p_fake === null ? "–" : percent(p_fake))),
      make("td", { said: `short.${verdict}` }),
    ),
  );
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}
