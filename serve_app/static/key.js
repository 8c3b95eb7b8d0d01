// The key of a service that asks for one: kept in this tab's sessionStorage, sent with every question.

import { key } from "./api.js";
import { announceText, element } from "./dom.js";
import { say } from "./i18n.js";

let waiting = []; // what to try again with a key

/** Shows the form; `again` is called once a key was given. */
export function askForKey(again) {
  const wrong = Boolean(key.get());
  key.drop();
  waiting.push(again);
  element("key").hidden = false;
  element("key-wrong").hidden = !wrong;
  element("key-input").toggleAttribute("aria-invalid", wrong);
  if (wrong) say(element("key-wrong"), "key.wrong");
  announceText(wrong ? "key.wrong" : "key.title");
}

export function showKey() {
  element("key").hidden = false;
  element("key-input").focus();
}

/** Lets the form work; shows it at once where the service says that it needs a key. */
export function watchKey(needed) {
  if (needed && !key.get()) element("key").hidden = false;
  element("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = element("key-input").value.trim();
    if (!given) return element("key-input").focus();
    key.set(given);
    element("key-input").value = "";
    element("key").hidden = true;
    const again = waiting;
    waiting = [];
    again.forEach((act) => act());
    element("file").focus();
  });
}
