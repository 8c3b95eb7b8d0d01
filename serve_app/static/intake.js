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
    if (event.target.matches?.("input[type=password], input[type=text]")) return;
    take([...(event.clipboardData?.files ?? [])]);
  });
  watchDrops();

  function take(files) {
    element("intake-note").hidden = files.length > 0;
    if (files.length) onFiles(files);
    else note("intake.nothing");
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
      take([...event.dataTransfer.files]);
    });
  }
}

function note(key) {
  setText(element("intake-note"), key).hidden = false;
  announceText(key);
}
