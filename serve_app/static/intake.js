// All ways to add a file: choose, photograph, drop, paste.

import { announceText, element } from "./dom.js";
import { setText } from "./i18n.js";

const ENDING = /\.(jpe?g|png|webp|hei[cf]|avif|bmp|tiff?|gif)$/i;

/** The kind of a file: "picture", "video" or "other". Some systems report no media type for HEIC. */
export function kindOf(file) {
  if (file.type.startsWith("image/") || (!file.type && ENDING.test(file.name))) return "picture";
  return file.type.startsWith("video/") ? "video" : "other";
}

/** Calls onFiles with an array of files whenever the user adds some. */
export function takeIn(onFiles) {
  for (const id of ["file", "camera"]) {
    element(id).addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = ""; // so that the same file can be chosen again
      take(files);
    });
  }
  // A phone has a camera and no Ctrl-V; elsewhere the button would open a second file dialog.
  const touch = matchMedia("(pointer: coarse)").matches || navigator.maxTouchPoints > 0;
  element("by-camera").hidden = !touch;
  document.body.classList.toggle("touch", touch);
  element("paste").hidden = !navigator.clipboard?.read;
  element("paste").addEventListener("click", pasteButton);
  document.addEventListener("paste", (event) => {
    if (event.target.matches?.("input")) return;
    takeTransfer(event.clipboardData);
  });
  watchDrops();

  function take(files) {
    element("intake-note").hidden = files.length > 0;
    if (files.length) onFiles(files);
    else note("intake.nothing");
  }

  // A link is only written into the field for links, if there is one: the user decides whether it is fetched.
  function takeTransfer(transfer) {
    const files = [...(transfer?.files ?? [])];
    const link = transfer?.getData("text/plain").trim() ?? "";
    if (files.length || element("link").hidden || !isLink(link)) return take(files);
    element("intake-note").hidden = true;
    element("link-input").value = link;
    element("link-input").focus();
  }

  async function pasteButton() {
    try {
      const files = [];
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) files.push(new File([await item.getType(type)], "", { type }));
      }
      if (!files.length) throw new Error("nothing to paste");
      take(files);
    } catch {
      note("intake.clipboard");
    }
  }

  function watchDrops() {
    let depth = 0; // dragenter and dragleave are sent for every nested element
    const over = (on) => element("intake").classList.toggle("over", on);
    const listen = (type, act) =>
      document.addEventListener(type, (event) => {
        event.preventDefault(); // a picture dropped next to the field must not replace the page
        act(event);
      });
    listen("dragenter", () => over(++depth > 0));
    listen("dragover", () => {});
    listen("dragleave", () => over((depth = Math.max(0, depth - 1)) > 0));
    listen("drop", (event) => {
      over(Boolean((depth = 0)));
      takeTransfer(event.dataTransfer);
    });
  }
}

/** Calls onFile with the example picture, a generated portrait, whenever the user asks for it. */
export function takeExample(onFile) {
  element("example").addEventListener("click", async () => {
    try {
      const blob = await (await fetch("/static/example.jpg")).blob();
      element("intake-note").hidden = true;
      onFile(new File([blob], "", { type: "image/jpeg" }));
    } catch {
      note("error.0");
    }
  });
}

/** Shows the field for addresses; calls onLink with each one that the user submits. */
export function takeLinks(onLink) {
  const [form, input] = [element("link"), element("link-input")];
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const link = input.value.trim();
    input.toggleAttribute("aria-invalid", !isLink(link));
    if (!isLink(link)) {
      note("link.wrong");
      return input.focus();
    }
    element("intake-note").hidden = true;
    input.value = "";
    onLink(link);
  });
}

const isLink = (words) => URL.canParse(words) && /^https?:$/.test(new URL(words).protocol);

function note(key) {
  setText(element("intake-note"), key).hidden = false;
  announceText(key);
}
