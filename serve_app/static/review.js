// The review of tagged pictures: a card for each, decided by buttons or keys. The server keeps who decided what.

import { detect } from "./api.js";
import { announceText, button, element, make, uniqueId } from "./dom.js";
import { exactPercent, number, setText, text, wireLanguage } from "./i18n.js";
import { colored } from "./overlay.js";

const STATES = ["waiting", "accepted", "rejected", "disputed"];
const KEYS = { a: "accept", r: "reject", u: "undo" };
const KEY = "operator-key", REVIEWER = "reviewer"; // in sessionStorage, so they belong to this tab only

/** Asks the service with the operator's key; throws an Error with `status` if it refuses. */
async function ask(path, options = {}) {
  const headers = { "X-Operator-Key": sessionStorage.getItem(KEY) ?? "", "Content-Type": "application/json" };
  const response = await fetch(`/v1/review/tags${path}`, { ...options, headers });
  if (response.ok) return response;
  const answer = await response.json().catch(() => null);
  throw Object.assign(new Error(answer?.error?.message ?? `status ${response.status}`), { status: response.status });
}

function complain(error) {
  const wrong = error.status === 401;
  setText(element("wrong"), wrong ? "review.wrong" : "review.failed", { message: error.message }).hidden = false;
  if (wrong) signedIn(false);
}

function signedIn(yes) {
  element("sign-in").hidden = yes;
  element("work").hidden = !yes;
  if (!yes) element("key-input").focus();
}

/** Shows the tags of the chosen state. */
async function load() {
  try {
    const { tags, counts } = await (await ask(`?state=${element("state").value || "waiting"}`)).json();
    element("wrong").hidden = true;
    signedIn(true);
    showCounts(counts);
    element("none").hidden = tags.length > 0;
    element("tags").replaceChildren(...tags.map(card));
    element("tags").firstChild?.focus();
  } catch (error) {
    complain(error);
  }
}

function showCounts(counts) {
  for (const [index, state] of STATES.entries()) {
    const option = element("state").options[index];
    setText(option, `review.state.${state}`, { count: counts[state] });
  }
}

function card(tag) {
  const title = make("h3", { id: uniqueId("tag"), textKey: `review.tagged.${tag.label}` });
  const made = make("article", { tabIndex: 0, aria: { labelledby: title.id } });
  const picture = make("img", { loading: "lazy" });
  setText(picture, "review.picture", { id: tag.id }, "alt");
  const pair = make("div", { className: "pair" }, picture);
  const reason = make("input", { id: uniqueId("reason"), maxLength: 500 });
  const status = make("p", { className: "complaint", hidden: true });
  const decisions = make("ul");
  let image = null;
  ask(`/${tag.id}/image`)
    .then((response) => response.blob())
    .then((blob) => {
      image = blob;
      picture.src = URL.createObjectURL(blob);
      picture.onload = () => URL.revokeObjectURL(picture.src);
    })
    .catch(failed);

  function failed(error) {
    if (error.status === 401) return complain(error);
    setText(status, "review.failed", { message: error.message }).hidden = false;
  }

  async function decide(action) {
    const body = JSON.stringify({ action, reviewer: sessionStorage.getItem(REVIEWER), reason: reason.value.trim() });
    try {
      show((await (await ask(`/${tag.id}`, { method: "POST", body })).json()).tag);
      status.hidden = true;
      announceText(`review.decided.${action}`, { reviewer: sessionStorage.getItem(REVIEWER), reason: "" });
      if (action !== "undo") (made.nextElementSibling ?? made).focus();
    } catch (error) {
      failed(error);
    }
  }

  async function heat() {
    if (!image || pair.querySelector("canvas")) return;
    try {
      const map = (await detect(image, { explain: true })).results[0].heatmap;
      if (!map) return setText(status, "review.heat.none").hidden = false;
      const canvas = await colored(map.png_base64);
      setText(canvas, `heat.${map.toward}`, {}, "aria-label").setAttribute("role", "img");
      pair.append(canvas);
    } catch (error) {
      failed(error);
    }
  }

  function show(now) {
    made.dataset.state = now.state;
    decisions.replaceChildren(
      ...now.decisions.map(({ action, reviewer, reason: how }) =>
        make("li", { textKey: `review.decided.${action}`, values: { reviewer, reason: how && `: ${how}` } }),
      ),
    );
  }

  const many = { className: "quiet", textKey: "review.givers", values: { n: () => number(tag.givers) } };
  const agreeing = tag.givers > 1 ? [make("p", many)] : [];
  const score = () => (tag.p_fake === null ? "" : `, ${exactPercent(tag.p_fake)}`);
  made.append(
    title,
    make("p", { className: "quiet", textKey: "review.then", values: { verdict: () => text(`review.verdict.${tag.verdict}`), score } }),
    ...agreeing,
    pair,
    make("label", { htmlFor: reason.id, textKey: "review.reason" }),
    reason,
    make(
      "div",
      { className: "choices" },
      button("review.accept", () => decide("accept"), "button"),
      button("review.reject", () => decide("reject")),
      button("review.undo", () => decide("undo")),
      button("review.heat", heat),
    ),
    decisions,
    status,
  );
  made.addEventListener("keydown", (event) => {
    if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const { nextElementSibling: next, previousElementSibling: previous } = made;
    const neighbor = { ArrowRight: next, ArrowDown: next, ArrowLeft: previous, ArrowUp: previous }[event.key];
    const key = event.key.toLowerCase();
    if (!neighbor && !KEYS[key] && key !== "h") return;
    event.preventDefault();
    if (neighbor) neighbor.focus();
    else if (KEYS[key]) decide(KEYS[key]);
    else heat();
  });
  show(tag);
  return made;
}

wireLanguage();
element("state").append(...STATES.map((value) => make("option", { value, textKey: `review.state.${value}`, values: { count: 0 } })));
element("state").addEventListener("change", load);
element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, element("key-input").value.trim());
  sessionStorage.setItem(REVIEWER, element("reviewer").value.trim());
  element("key-input").value = "";
  load();
});
if (sessionStorage.getItem(KEY) && sessionStorage.getItem(REVIEWER)) load();
document.body.classList.add("ready");
