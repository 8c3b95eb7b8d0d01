// The card that pictures and videos have in common: title, headline, progress and errors.

import { announce, announceText, button, drawing, focusOn, make, uniqueId } from "./dom.js";
import { advice } from "./errors.js";
import { number, setText, text } from "./i18n.js";
import { askForKey, showKey } from "./key.js";
import { countdown, inTurn, withRetries } from "./queue.js";

export class Card {
  #controller = null;

  /**
   * kind: "picture" or "video"; n: its number; name: what it is called, { text } or { key } of a text; `isFile` if that
   * is the name of a file, which is only shown.
   */
  constructor({ kind, n, name, onRemove }) {
    this.titleKey = [`card.${kind}`, { n }];
    const id = uniqueId("card");
    this.symbol = make("span", { className: "symbol" });
    this.words = make("span");
    this.heading = make("h3", { id }, this.symbol, this.words);
    this.body = make("div", { className: "body" });
    this.stage = make("div", { className: "stage" });
    const remove = button("card.remove", () => onRemove(this), "link");
    setText(remove, "card.remove.label", { name: () => this.title }, "aria-label");
    const title = make("p", { className: "title" }, make("span", { textKey: this.titleKey[0], values: { n } }));
    const className = name.isFile ? "name unsaved" : "name";
    if (name.key) title.append(make("span", { className, textKey: name.key }));
    else if (name.text) title.append(make("span", { className, textContent: name.text }));
    title.append(remove);
    this.mark = make("p", { className: "demo-mark", textKey: "demo.mark", hidden: true });
    const side = make("div", { className: "side" }, title, this.mark, this.heading, this.body);
    this.element = make("li", { className: "card" }, make("article", {}, this.stage, side));
    this.element.firstChild.setAttribute("aria-labelledby", id);
  }

  get title() {
    return text(...this.titleKey);
  }

  /** Says on the card that the model knows demo portraits only, if the answer carries that warning. */
  markDemo({ warnings }) {
    this.mark.hidden = !warnings.includes("demo_model");
  }

  /** Sets the state and the headline. */
  headline(state, key, values) {
    this.element.dataset.state = state;
    this.symbol.replaceChildren(...(["busy", "ready"].includes(state) ? [] : [drawing(state)]));
    setText(this.words, key, values);
  }

  /** Runs a request with progress, retries and a cancel button; calls onAnswer, or shows the error and offers `again`. */
  async run(request, { file, again, onAnswer, container = this.body, headline = true }) {
    this.cancel();
    const controller = (this.#controller = new AbortController());
    const { signal } = controller;
    const bar = make("progress", { max: 1, value: 0 });
    setText(bar, "step.progress", {}, "aria-label");
    const step = make("p", { className: "step", textKey: "step.waiting" });
    const showStep = (key, values) => (headline ? this.headline("busy", key, values) : setText(step, key, values));
    container.replaceChildren(...(headline ? [bar] : [step, bar]), button("card.cancel", () => controller.abort(), "link"));
    showStep("step.waiting");
    const onProgress = (fraction) => {
      bar.value = fraction;
      if (fraction < 1) showStep("step.sending", { percent: () => number(fraction, { style: "percent" }) });
      else {
        showStep("step.looking");
        bar.removeAttribute("value");
      }
    };
    const onWait = (left) => {
      if (bar.value !== 0) announce(this.title, text("step.again", { seconds: left }));
      bar.value = 0;
      showStep("step.again", { seconds: left });
    };
    try {
      const once = () => request({ onProgress, signal });
      const answer = await inTurn(() => withRetries(once, signal, onWait), signal);
      const hadFocus = container.contains(document.activeElement);
      onAnswer(answer);
      if (hadFocus) focusOn(this.heading);
    } catch (error) {
      const hadFocus = container.contains(document.activeElement);
      if (error.name === "AbortError") this.#canceled(again, container, headline);
      else this.refuse(error, { file, again, container, headline });
      if (hadFocus && this.element.isConnected) focusOn(headline ? this.heading : container);
    }
  }

  cancel() {
    this.#controller?.abort();
  }

  #canceled(again, container, headline) {
    if (!this.element.isConnected) return;
    const textKey = headline ? "card.canceled.more" : "card.canceled";
    if (headline) this.headline("error", "card.canceled");
    container.replaceChildren(make("p", { textKey }), button("card.again", again));
    announceText("card.canceled");
  }

  /** Shows what went wrong and what to do. */
  refuse(error, { file, again, container = this.body, headline = true }) {
    const [key, values] = advice(error, file);
    const words = make("p", { textKey: key, values });
    const retry = button("card.again", again);
    container.replaceChildren(words);
    if (headline) this.headline("error", file ? "error.title" : "error.title.link");
    if (error.status === 401) {
      askForKey(() => this.element.isConnected && again());
      container.append(button("key.enter", showKey));
    } else if (error.retryAfterS) {
      container.append(retry);
      retry.disabled = true;
      countdown(error.retryAfterS, null, () => {}).then(() => {
        retry.disabled = false;
        setText(words, "error.now");
      });
    } else if ([0, 408, 500].includes(error.status) || error.status > 500) container.append(retry);
    if (error.requestId) container.append(make("p", { className: "quiet", textKey: "error.request", values: { id: error.requestId } }));
    announce(this.title + ":", text("error.title"), text(key, values));
  }
}
