// A picture with layers over it: face boxes, the analyzed area, a heat map.

import { make } from "./dom.js";

// Dark red to pale yellow: lightness grows with strength, so that it can be read without color vision.
const [SHORTEST, LONGEST] = [640, 1280]; // pixels of the longer side of a flattened picture
const QUALITY = 0.9;
const COLORS = [[70, 8, 60], [150, 25, 75], [222, 73, 50], [251, 155, 40], [255, 238, 150]];

/** A figure around an image element or a canvas, with layers in the pixels of the upright picture. */
export class Overlay {
  #layers = make("div", { className: "layers", aria: { hidden: "true" } });
  #size = { width: 1, height: 1 };
  #image;

  constructor(image) {
    this.#image = image;
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
    this.#layers.querySelectorAll(".face:not(.left-out)").forEach((box) => box.remove());
    faces.forEach(({ box, verdict }, index) => {
      const made = make("div", { className: `face ${verdict}` }, several && make("span", { textContent: index + 1 }));
      if (several) {
        made.classList.add("pickable");
        made.addEventListener("click", () => onPick(index));
      }
      this.#position(made, box);
    });
  }

  /** Draws the faces that were found but not scored. */
  leftOut(boxes) {
    for (const box of boxes) this.#position(make("div", { className: "face left-out" }), box);
  }

  pick(index) {
    this.#layers.querySelectorAll(".face:not(.left-out)").forEach((box, number) => box.classList.toggle("picked", number === index));
  }

  /** Draws the analyzed area, unless it is the whole picture. */
  crop(box) {
    const { width, height } = this.#size;
    if (box[2] - box[0] >= width && box[3] - box[1] >= height) return;
    this.#position(make("div", { className: "crop" }), box);
  }

  /** The picture with the layers that are shown over it, as the data URL of a JPEG without metadata. */
  flatten() {
    const longer = Math.max(this.#size.width, this.#size.height);
    const scale = Math.min(LONGEST, Math.max(SHORTEST, longer)) / longer; // enlarged, so that thin lines fit
    const [width, height] = [this.#size.width, this.#size.height].map((side) => Math.max(1, Math.round(side * scale)));
    const context = make("canvas", { width, height }).getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(this.#image, 0, 0, width, height);
    for (const layer of this.#layers.children) {
      const part = (name, side) => (parseFloat(layer.style[name]) / 100) * side;
      const box = [part("left", width), part("top", height), part("width", width), part("height", height)];
      (layer.matches("canvas") ? drawHeat : drawBox)(context, layer, box);
    }
    return context.canvas.toDataURL("image/jpeg", QUALITY);
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
export async function colored(base64) {
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

function drawHeat(context, canvas, box) {
  context.globalAlpha = Number(canvas.style.opacity);
  context.drawImage(canvas, ...box);
  context.globalAlpha = 1;
}

function drawBox(context, layer, [left, top, ...size]) {
  context.setLineDash(layer.matches(".crop, .left-out") ? [8, 6] : []);
  for (const [strokeStyle, lineWidth] of [["#000a", 5], ["#fff", layer.matches(".picked") ? 4 : 2]]) {
    Object.assign(context, { strokeStyle, lineWidth });
    context.strokeRect(left, top, ...size);
  }
  if (!layer.textContent) return; // the number of one of several faces
  Object.assign(context, { font: "bold 16px sans-serif", fillStyle: "#fff" });
  context.fillRect(left, top, 24, 24);
  context.fillStyle = "#14171c";
  context.fillText(layer.textContent, left + 7, top + 18);
}
