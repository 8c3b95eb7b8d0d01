// What the page promises about storage: it changes once the user has given a picture.

import { element } from "./dom.js";
import { setText } from "./i18n.js";

const given = new Set(); // ids: the same picture given twice is stored once

/** Writes the promise of a service that accepts feedback, or does not. */
export function showPromise(features) {
  setText(element("promise"), features?.feedback ? "page.privacy.feedback" : "page.privacy");
}

/** A picture was stored under an id. */
export function countGift(id) {
  const n = given.add(id).size;
  setText(element("promise"), n > 1 ? "page.privacy.given" : "page.privacy.given.one", { n });
  setText(element("promise-more"), "page.privacy.others");
}
