// The API key of a service that requires one: kept in sessionStorage of this tab and sent with every request.

import { key } from "./api.js";
import { announceText, element } from "./dom.js";
import { setText } from "./i18n.js";

let waiting = []; // requests to repeat once there is a key

/** Shows the form; `again` is called once the user has entered a key. */
export function askForKey(again) {
  const wrong = Boolean(key.get());
  key.drop();
  waiting.push(again);
  element("key").hidden = false;
  element("key-wrong").hidden = !wrong;
  element("key-input").toggleAttribute("aria-invalid", wrong);
  if (wrong) setText(element("key-wrong"), "key.wrong");
  announceText(wrong ? "key.wrong" : "key.title");
}

export function showKey() {
  element("key").hidden = false;
  element("key-input").focus();
}

/** Wires the form, and shows it at once if the service requires a key. */
export function watchKey(needed) {
  if (needed && !key.get()) element("key").hidden = false;
  element("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const entered = element("key-input").value.trim();
    if (!entered) return element("key-input").focus();
    key.set(entered);
    element("key-input").value = "";
    element("key").hidden = true;
    const again = waiting;
    waiting = [];
    again.forEach((act) => act());
    element("file").focus();
  });
}
