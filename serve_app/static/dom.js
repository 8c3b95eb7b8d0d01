// Creates elements without a framework, and announces to screen readers.

import { setText, text } from "./i18n.js";

export const element = (id) => document.getElementById(id);

/** Creates an element: DOM properties (on* are listeners), `textKey` with `values` for its text, then children. */
export function make(tag, { textKey, values, aria = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(name === "role" ? name : `aria-${name}`, value);
  if (textKey) setText(made, textKey, values);
  made.append(...children.filter(Boolean));
  return made;
}

export const button = (textKey, onclick, className = "plain") =>
  make("button", { type: "button", textKey, onclick, className });

/** A part that is closed at first: <details>. */
export const drawer = (textKey, ...children) => make("details", {}, make("summary", { textKey }), ...children);

let count = 0;
export const uniqueId = (prefix) => `${prefix}-${++count}`;

const DRAWINGS = {
  real: "M4 8h4l2-3h4l2 3h4v11H4zM12 10.2a3.3 3.3 0 1 0 0 6.6 3.3 3.3 0 0 0 0-6.6z",
  fake: "M5 5h6v6H5zM13 5h2.5v2.5H13zM17 8.500h2V11h-2zM5 13h2.500v2.500H5zM9 15.500h2V19H9zM13 13h6v6h-6z",
  uncertain: "M8.500 9a3.500 3.500 0 1 1 5.200 3c-1.200.7-1.700 1.400-1.700 2.700M12 18v.2",
  no_face: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 15c2-1.300 4-1.300 6 0M9.500 9.500v.2M14.500 9.500v.2",
  error: "M12 6v7.500M12 17.500v.2",
};

/** A small drawing that repeats the meaning of the text next to it. */
export function drawing(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("drawing");
  svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
  svg.firstChild.setAttribute("d", DRAWINGS[name]);
  return svg;
}

/** Offers a text as a file to save. */
export function download(name, content, type) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may ask where to save it first
}

/** Announces sentences politely to screen readers; several announcements are read one after the other. */
export function announce(...sentences) {
  const live = element("live");
  live.append(make("p", { textContent: sentences.join(" ") }));
  while (live.childElementCount > 8) live.firstChild.remove();
}
export const announceText = (key, values) => announce(text(key, values));

/** Moves the focus to an element, which is made focusable if it is not a control. */
export function focusOn(target) {
  if (!target.matches("a, button, input, summary")) target.tabIndex = -1;
  target.focus({ preventScroll: true });
}
