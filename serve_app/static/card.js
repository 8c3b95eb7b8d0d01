// The frame that pictures and videos share: a title, a headline, what is under way, what went wrong.

import { announce, announceText, button, drawing, focusOn, make, uniqueId } from "./dom.js";
import { advice } from "./errors.js";
import { number, say, text } from "./i18n.js";
import { askForKey, showKey } from "./key.js";
import { countdown, inTurn, patiently } from "./queue.js";

export class Card {
  #controller = null;

  /** kind: "picture" or "video"; n: its number; name: the file's, shown here only. */
  constructor({ kind, n, name, onRemove }) {
    this.titleKey = [`card.${kind}`, { n }];
    const id = uniqueId("card");
    this.symbol = make("span", { className: "symbol" });
    this.words = make("span");
    this.heading = make("h3", { id }, this.symbol, this.words);
    this.body = make("div", { className: "body" });
    this.stage = make("div", { className: "stage" });
    const remove = button("card.remove", () => onRemove(this), "link");
    say(remove, "card.remove.label", { name: () => this.title }, "aria-label");
    const title = make("p", { className: "title" }, make("span", { said: this.titleKey[0], values: { n } }));
    if (name) title.append(make("span", { className: "name", textContent: name }));
    title.append(remove);
    const side = make("div", { className: "side" }, title, this.heading, this.body);
    this.element = make("li", { className: "card" }, make("article", {}, this.stage, side));
    this.element.firstChild.setAttribute("aria-labelledby", id);
  }

  get title() {
    return text(...this.titleKey);
  }

  /** Sets state and headline. */
  headline(state, key, values) {
    this.element.dataset.state = state;
    this.symbol.replaceChildren(...(["busy", "ready"].includes(state) ? [] : [drawing(state)]));
    say(this.words, key, values);
  }

  /** Runs a request with progress, patience and a way out; calls onAnswer, or says what went wrong and offers `again`. */
  async run(request, { file, again, onAnswer, place = this.body, headline = true }) {
    this.cancel();
    const controller = (this.#controller = new AbortController());
    const { signal } = controller;
    const bar = make("progress", { max: 1, value: 0 });
    say(bar, "step.progress", {}, "aria-label");
    const step = make("p", { className: "step", said: "step.waiting" });
    const sayStep = (key, values) => (headline ? this.headline("busy", key, values) : say(step, key, values));
    place.replaceChildren(...(headline ? [bar] : [step, bar]), button("card.cancel", () => controller.abort(), "link"));
    sayStep("step.waiting");
    const onProgress = (share) => {
      bar.value = share;
      if (share < 1) sayStep("step.sending", { percent: () => number(share, { style: "percent" }) });
      else {
        sayStep("step.looking");
        bar.removeAttribute("value");
      }
    };
    const onWait = (left) => {
      if (bar.value !== 0) announce(this.title, text("step.again", { seconds: left }));
      bar.value = 0;
      sayStep("step.again", { seconds: left });
    };
    try {
      const once = () => request({ onProgress, signal });
      const answer = await inTurn(() => patiently(once, signal, onWait), signal);
      const held = place.contains(document.activeElement);
      onAnswer(answer);
      if (held) focusOn(this.heading);
    } catch (error) {
      const held = place.contains(document.activeElement);
      if (error.name === "AbortError") this.#cancelled(again, place, headline);
      else this.refuse(error, { file, again, place, headline });
      if (held && this.element.isConnected) focusOn(headline ? this.heading : place);
    }
  }

  cancel() {
    this.#controller?.abort();
  }

  #cancelled(again, place, headline) {
    if (!this.element.isConnected) return;
    const said = headline ? "card.cancelled.more" : "card.cancelled";
    if (headline) this.headline("error", "card.cancelled");
    place.replaceChildren(make("p", { said }), button("card.again", again));
    announceText("card.cancelled");
  }

  /** Says what went wrong and what to do. */
  refuse(error, { file, again, place = this.body, headline = true }) {
    const [key, values] = advice(error, file);
    const words = make("p", { said: key, values });
    const retry = button("card.again", again);
    place.replaceChildren(words);
    if (headline) this.headline("error", "error.title");
    if (error.status === 401) {
      askForKey(() => this.element.isConnected && again());
      place.append(button("key.enter", showKey));
    } else if (error.retryAfterS) {
      place.append(retry);
      retry.disabled = true;
      countdown(error.retryAfterS, null, () => {}).then(() => {
        retry.disabled = false;
        say(words, "error.now");
      });
    } else if ([0, 408, 500].includes(error.status) || error.status > 500) place.append(retry);
    if (error.requestId) place.append(make("p", { className: "quiet", said: "error.request", values: { id: error.requestId } }));
    announce(this.title + ":", text("error.title"), text(key, values));
  }
}
