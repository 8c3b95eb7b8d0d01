// A picture with what was found on it: face boxes, the square that was judged, a heat map.

import { make } from "./dom.js";

// Dark red to pale yellow: its lightness grows with the strength, so that it reads without seeing colours too.
const COLOURS = [[70, 8, 60], [150, 25, 75], [222, 73, 50], [251, 155, 40], [255, 238, 150]];

/** A figure around an image element or a canvas, with layers in the pixels of the upright picture. */
export class Overlay {
  #layers = make("div", { className: "layers", aria: { hidden: "true" } });
  #size = { width: 1, height: 1 };

  constructor(image) {
    this.element = make("figure", { className: "picture" }, image, this.#layers);
  }

  /** The size of the upright picture; boxes and heat maps are placed in it. */
  fit({ width, height }) {
    this.#size = { width, height };
    this.element.style.setProperty("--ratio", width / height);
  }

  #place(layer, [left, top, right, bottom]) {
    const { width, height } = this.#size;
    Object.assign(layer.style, {
      left: `${(100 * left) / width}%`,
      top: `${(100 * top) / height}%`,
      width: `${(100 * (right - left)) / width}%`,
      height: `${(100 * (bottom - top)) / height}%`,
    });
    this.#layers.append(layer);
    return layer;
  }

  /** Draws boxes, numbered where there are several; onPick hears which one was clicked. */
  faces(faces, onPick) {
    const several = faces.length > 1;
    this.#layers.querySelectorAll(".face").forEach((box) => box.remove());
    faces.forEach(({ box, verdict }, index) => {
      const made = make("div", { className: `face ${verdict}` }, several && make("span", { textContent: index + 1 }));
      if (several) {
        made.classList.add("pickable");
        made.addEventListener("click", () => onPick(index));
      }
      this.#place(made, box);
    });
  }

  pick(index) {
    this.#layers.querySelectorAll(".face").forEach((box, place) => box.classList.toggle("picked", place === index));
  }

  /** The square that was judged, where it is less than the whole picture and no face shows it. */
  crop(box) {
    const { width, height } = this.#size;
    if (box[2] - box[0] >= width && box[3] - box[1] >= height) return;
    this.#place(make("div", { className: "crop" }), box);
  }

  /** Lays a heat map over its box; returns a function that sets how visible it is, 0 to 1. */
  async heat({ box, png_base64: png }) {
    const canvas = await coloured(png);
    canvas.className = "heat";
    this.#layers.querySelector(".heat")?.remove();
    this.#place(canvas, box);
    this.#layers.prepend(canvas); // boxes stay on top
    return (visible) => (canvas.style.opacity = visible);
  }
}

// Strength becomes colour and opacity: where nothing happened the picture stays as it is.
async function coloured(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
  const canvas = make("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < pixels.data.length; at += 4) {
    const strength = pixels.data[at] / 255;
    pixels.data.set([...between(strength), 255 * Math.min(1, 1.25 * strength ** 0.8)], at);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function between(strength) {
  const place = strength * (COLOURS.length - 1);
  const below = Math.min(COLOURS.length - 2, Math.floor(place));
  return COLOURS[below].map((value, channel) => value + (place - below) * (COLOURS[below + 1][channel] - value));
}
