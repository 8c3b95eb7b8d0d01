// Wires the page: the language, the description of the service, and a card for each file.

import * as api from "./api.js";
import { announceText, element, focusOn, make } from "./dom.js";
import { exactPercent, number, setText, wireLanguage } from "./i18n.js";
import { kindOf, takeExample, takeIn, takeLinks } from "./intake.js";
import { watchKey } from "./key.js";
import { Picture } from "./picture.js";
import { showPromise } from "./promise.js";
import { Video } from "./video.js";

const cards = [];
const counted = { picture: 0, video: 0 };

/** Adds a card for each file. */
function add(files, service, name) {
  show(
    files.map((file) => {
      const kind = kindOf(file) === "video" ? "video" : "picture";
      const called = name ?? { text: file.name, isFile: true };
      const options = { file, n: ++counted[kind], name: called, service, onRemove: remove };
      if (kind === "picture") return new Picture(options);
      return new Video({ ...options, onFrame: (frame, title) => add([frame], service, { text: title }) });
    }),
  );
}

/** Adds a card for the picture behind an address. */
function addLink(address, service) {
  show([new Picture({ address, n: ++counted.picture, name: { text: address }, service, onRemove: remove })]);
}

/** Shows new cards above the earlier ones, in their order. */
function show(made) {
  cards.unshift(...made);
  element("cards").prepend(...made.map((card) => card.element));
  showCount();
  if (made[0].element.getBoundingClientRect().top > 0.7 * innerHeight || scrollY > 0) {
    made[0].element.scrollIntoView({ block: "start" });
  }
}

function remove(card) {
  const index = cards.indexOf(card);
  cards.splice(index, 1);
  card.element.remove();
  card.cancel();
  card.dispose();
  showCount();
  focusOn(cards[Math.min(index, cards.length - 1)]?.heading ?? element("file"));
  announceText("card.removed", { name: card.title });
}

function showCount() {
  document.body.classList.toggle("has-cards", cards.length > 0);
  element("results").hidden = cards.length === 0;
  element("clear").hidden = cards.length < 2;
}

function showService(service) {
  element("demo").hidden = !service.generated;
  const line = service.generated ? "model.line.demo" : service.starter ? "model.line.starter" : "model.line";
  setText(element("model"), line, { version: service.version, data: service.data });
  element("terms").hidden = !service.terms;
  setText(element("terms"), "model.terms", { terms: service.terms });
  showPromise(service.features);
  setText(element("kinds"), service.features?.video ? "intake.kinds.video" : "intake.kinds");
  const exact = (value) => () => (value === null ? "–" : number(value, { maximumFractionDigits: 3 }));
  const tests = (service.test ?? []).map((test) => {
    const values = { n: () => number(test.images), data: test.data, auc: exact(test.auc) };
    for (const [name, field] of [["accuracy", "accuracy"], ["passed", "fakes_passed_rate"], ["flagged", "reals_flagged_rate"]]) {
      values[name] = () => exactPercent(test[field]);
    }
    return make("li", { textKey: test.generated ? "model.test.demo" : "model.test", values });
  });
  for (const test of service.test ?? []) tests.push(...flagsWorth(test));
  element("tests").replaceChildren(...tests);
  element("how-good").hidden = tests.length === 0;
}

/** In words: of 100 flagged pictures, how many are generated where few are and where half of them are. */
function flagsWorth(test) {
  const known = (test.flag_value ?? []).filter((worth) => worth.value !== null && !test.generated);
  return known.map((worth) => {
    const share = () => number(Math.round(1 / worth.share_of_fakes));
    const values = { share };
    for (const field of ["value", "low", "high"]) values[field] = () => ofHundred(worth[field]);
    return make("li", { textKey: "model.worth", values });
  });
}

const ofHundred = (fraction) => number(100 * fraction, { maximumFractionDigits: fraction < 0.0995 || fraction > 0.9895 ? 1 : 0 });

wireLanguage();
setText(element("intake"), "intake.label", {}, "aria-label");
const asking = api.model();
takeIn(async (files) => add(files, await asking));
takeExample(async (file) => add([file], await asking, { key: "example.name" }));
element("clear").addEventListener("click", () => [...cards].forEach(remove));
showCount();
const service = await asking;
if (service) showService(service);
if (service?.features?.url) takeLinks((address) => addLink(address, service));
watchKey(service?.features?.key);
document.body.classList.add("ready");
