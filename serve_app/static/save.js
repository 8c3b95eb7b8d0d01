// Saves the answer on a card as one HTML page that needs nothing else: no script, no other file, no network.

import { button, download, make } from "./dom.js";
import { currentLanguage, dateTime, setText, text } from "./i18n.js";

const NEEDLESS = "button, input, .slider, .time, .unsaved, .heat-part:not(:has(.slider)), details:has(.feedback)";
const POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/** A button that saves a card's answer. file: null for a picture behind an address; image: gives a data URL or null. */
export function saveButton(card, { file, image }) {
  return button("save.button", async () => {
    const now = new Date();
    const html = page(card, image(), file && (await sha256(file)), now);
    const stamp = now.toISOString().slice(0, 16).replace(/\D/g, "-");
    download(`${text("save.name")}-${stamp}.html`, html, "text/html");
  });
}

function page(card, image, digest, now) {
  const copy = card.element.cloneNode(true);
  copy.querySelectorAll(NEEDLESS).forEach((node) => node.remove());
  copy.querySelectorAll("details").forEach((node) => (node.open = true));
  if (image) copy.querySelector(".stage").replaceChildren(make("img", { src: image, alt: text(...card.titleKey) }));
  if (digest) copy.querySelector("dl")?.append(make("dt", { textKey: "save.sha256" }), make("dd", { textContent: digest }));
  const made = setText(make("p", { className: "quiet" }), "save.made", { time: dateTime(now), origin: location.origin });
  const list = document.getElementById("limits").cloneNode(true);
  const body = make(
    "body",
    { className: "saved" },
    make("header", {}, make("h1", { textKey: "page.title" })),
    make("main", {}, make("h2", { textKey: "save.title" }), made, make("ol", { className: "cards" }, copy)),
    make("footer", {}, make("p", { textKey: "page.caution" }), list, document.getElementById("model").cloneNode(true)),
  );
  const styles = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules].map((rule) => rule.cssText));
  return `<!doctype html>
<html lang="${currentLanguage()}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${make("title", { textKey: "save.title" }).outerHTML}
<style>${styles.join("\n")}</style>
</head>
${body.outerHTML}
</html>
`;
}

/** The SHA-256 of a file in hexadecimal digits; null where the browser does not offer it (without HTTPS). */
async function sha256(file) {
  const digest = await crypto.subtle?.digest("SHA-256", await file.arrayBuffer());
  return digest ? [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("") : null;
}
