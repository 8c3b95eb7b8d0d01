// The language of the page: whatever setText() wrote is rewritten when the language changes.

import { LANGUAGES, TEXTS } from "./texts.js";
import { MORE } from "./texts_more.js";
import { ORIGIN } from "./texts_origin.js";
import { REVIEW } from "./texts_review.js";

const CHOICE = "language"; // remembered for this tab only
const bound = new WeakMap(); // element -> { attribute or "": [key, values] }
let language =
  [sessionStorage.getItem(CHOICE), ...navigator.languages.map((tag) => tag.slice(0, 2).toLowerCase())].find((tag) =>
    LANGUAGES.includes(tag),
  ) ?? "en";

export const currentLanguage = () => language;

/** The text of a key. Values may be functions, which are called each time, so that numbers follow the language. */
export function text(key, values = {}) {
  const template = (TEXTS[key] ?? MORE[key] ?? ORIGIN[key] ?? REVIEW[key])?.[LANGUAGES.indexOf(language)] ?? key;
  return template.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "function" ? values[name]() : values[name]));
}

/** Writes a text into an element, or into one of its attributes, now and whenever the language changes. */
export function setText(element, key, values, attribute = "") {
  bound.set(element, { ...bound.get(element), [attribute]: [key, values] });
  element.toggleAttribute("data-translated", true);
  write(element);
  return element;
}

function write(element) {
  for (const [attribute, [key, values]] of Object.entries(bound.get(element) ?? {})) {
    const words = text(key, values);
    if (attribute) element.setAttribute(attribute, words);
    else element.textContent = words;
  }
}

/** Changes the language of everything that setText() wrote. */
function setLanguage(chosen) {
  language = chosen;
  sessionStorage.setItem(CHOICE, chosen);
  document.documentElement.lang = chosen;
  document.title = text(document.documentElement.dataset.title ?? "page.title");
  document.querySelectorAll("[data-translated]").forEach(write);
}

/** Writes the texts of a page and wires the buttons that choose its language. */
export function wireLanguage() {
  document.querySelectorAll("[data-text]").forEach((node) => setText(node, node.dataset.text));
  setText(document.getElementById("languages"), "page.language", {}, "aria-label");
  const buttons = document.querySelectorAll("#languages button");
  const choose = (chosen) => {
    setLanguage(chosen);
    buttons.forEach((button) => button.setAttribute("aria-pressed", button.lang === chosen));
  };
  buttons.forEach((button) => button.addEventListener("click", () => choose(button.lang)));
  choose(language);
}

export const number = (value, options) => new Intl.NumberFormat(language, options).format(value);
export const dateTime = (date) => new Intl.DateTimeFormat(language, { dateStyle: "long", timeStyle: "short" }).format(date);
export const seconds = (value) => number(value, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
export const megabytes = (bytes) => number(bytes / 1e6, { style: "unit", unit: "megabyte", maximumFractionDigits: 1 });

/** A probability as a percentage, never 0 or 100, because no estimate is that certain. */
export function percent(fraction) {
  const written = (value) => number(value, { style: "percent" });
  if (fraction < 0.005) return `< ${written(0.01)}`;
  return fraction >= 0.995 ? `> ${written(0.99)}` : written(fraction);
}
export const exactPercent = (fraction) => (fraction === null ? "–" : number(fraction, { style: "percent", maximumFractionDigits: 1 }));
