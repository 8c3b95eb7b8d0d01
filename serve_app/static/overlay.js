// A picture with layers over it: face boxes, the analyzed area, a heat map.

import { make } from "./dom.js";

// Dark red to pale yellow: lightness grows with strength, so that it can be read without color vision.
const COLORS = [[70, 8, 60], [150, 25, 75], [222, 73, 50], [251, 155, 40], [255, 238, 150]];

/** A figure around an image element or a canvas, with layers in the pixels of the upright picture. */
export class Overlay {
  #layers = make("div", { className: "layers", aria: { hidden: "true" } });
  #size = { width: 1, height: 1 };

  constructor(image) {
    this.element = make("figure", { className: "picture" }, image, this.#layers);
  }

  /** Sets the size of the upright picture, in whose pixels boxes and heat maps are given. */
  fit({ width, height }) {
    this.#size = { width, height };
    this.element.style.setProperty("--ratio", width / height);
  }

  #position(layer, [left, top, right, bottom]) {
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

  /** Draws face boxes, numbered if there are several; onPick receives the index of a clicked one. */
  faces(faces, onPick) {
    const several = faces.length > 1;
    this.#layers.querySelectorAll(".face").forEach((box) => box.remove());
    faces.forEach(({ box, verdict }, index) => {
      const made = make("div", { className: `face ${verdict}` }, several && make("span", { textContent: index + 1 }));
      if (several) {
        made.classList.add("pickable");
        made.addEventListener("click", () => onPick(index));
      }
      this.#position(made, box);
    });
  }

  pick(index) {
    this.#layers.querySelectorAll(".face").forEach((box, number) => box.classList.toggle("picked", number === index));
  }

  /** Draws the analyzed area, unless it is the whole picture. */
  crop(box) {
    const { width, height } = this.#size;
    if (box[2] - box[0] >= width && box[3] - box[1] >= height) return;
    this.#position(make("div", { className: "crop" }), box);
  }

  /** Draws a heat map over its box; returns a function that sets its opacity, 0 to 1. */
  async heat({ box, png_base64: png }) {
    const canvas = await colored(png);
    canvas.className = "heat";
    this.#layers.querySelector(".heat")?.remove();
    this.#position(canvas, box);
    this.#layers.prepend(canvas); // boxes stay on top
    return (visible) => (canvas.style.opacity = visible);
  }
}

// Strength sets color and opacity: the picture is unchanged where there is no evidence.
async function colored(base64) {
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
  const position = strength * (COLORS.length - 1);
  const below = Math.min(COLORS.length - 2, Math.floor(position));
  return COLORS[below].map((value, channel) => value + (position - below) * (COLORS[below + 1][channel] - value));
}
