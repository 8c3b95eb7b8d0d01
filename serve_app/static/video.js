// A video: shown, and analyzed as a single frame that the user picks or as a whole clip.

import { detectVideo } from "./api.js";
import { Card } from "./card.js";
import { announce, announceText, button, make } from "./dom.js";
import { checkBytes } from "./errors.js";
import { setText, seconds, text } from "./i18n.js";
import { originPart } from "./origin.js";
import { saveButton } from "./save.js";
import { clipPart } from "./timeline.js";

const STEP_S = 0.04;

export class Video extends Card {
  #file;
  #service;
  #url;
  #video = make("video", { muted: true, playsInline: true, preload: "auto" });
  #range = make("input", { type: "range", min: 0, max: 0, step: STEP_S, value: 0 });
  #clip = make("div", { className: "clip" });
  #onFrame;

  /** onFrame: receives the picked frame as a File, and a name for it. */
  constructor({ file, n, name, service, onRemove, onFrame }) {
    super({ kind: "video", n, name, onRemove });
    this.#file = file;
    this.#service = service;
    this.#onFrame = onFrame;
    this.#url = URL.createObjectURL(file);
    setText(this.#video, "video.label", { n }, "aria-label");
    this.headline("ready", "video.frame");
    this.stage.append(this.#video);
    this.#video.addEventListener("error", () => this.#showUnplayable(), { once: true });
    this.#video.addEventListener("loadedmetadata", () => this.#measure(), { once: true });
    this.#video.src = this.#url;
  }

  // A recording made in a browser has no duration until the player has seeked to its end.
  async #measure() {
    const video = this.#video;
    if (!Number.isFinite(video.duration)) {
      video.currentTime = 1e9;
      await new Promise((resolve) => video.addEventListener("durationchange", resolve, { once: true }));
    }
    this.#range.max = Math.max(0, video.duration - STEP_S);
    this.#draw();
    this.#seek(video.duration / 2); // the first frame is often black
  }

  #draw() {
    const end = () => seconds(this.#video.duration);
    this.time = make("output", { className: "time", aria: { hidden: "true" } });
    setText(this.#range, "video.time", {}, "aria-label");
    this.#range.addEventListener("input", () => this.#seek(Number(this.#range.value)));
    this.#video.addEventListener("timeupdate", () => this.#follow(end));
    this.#video.addEventListener("seeked", () => this.#follow(end));
    const step = (key, by, sign) => {
      const made = make("button", { type: "button", className: "step-button", textContent: sign });
      made.addEventListener("click", () => this.#seek(this.#video.currentTime + by));
      return setText(made, key, {}, "aria-label");
    };
    const scrub = make(
      "div",
      { className: "slider" },
      step("video.back", -STEP_S, "‹"),
      this.#range,
      step("video.forth", STEP_S, "›"),
    );
    this.body.replaceChildren(
      ...[
        make("p", { className: "help unsaved", textKey: "video.hint" }),
        scrub,
        this.time,
        make(
          "div",
          { className: "actions" },
          button("video.pick", () => this.#pick(), "button"),
          this.#service?.features?.video && button("video.clip", () => this.#analyzeClip()),
        ),
        this.#clip,
      ].filter(Boolean),
    );
    announceText("video.frame");
  }

  #seek(time) {
    this.#video.currentTime = Math.min(Number(this.#range.max), Math.max(0, time));
    this.#range.value = this.#video.currentTime;
  }

  #follow(end) {
    this.#range.value = this.#video.currentTime;
    const values = { time: () => seconds(this.#video.currentTime), end };
    setText(this.time, "video.at", values);
    setText(this.#range, "video.at", values, "aria-valuetext");
  }

  // Lossless if it fits the size limit, because JPEG compression removes traces.
  async #pick() {
    const { currentTime } = this.#video;
    const canvas = this.#frame();
    const encode = (type) => new Promise((resolve) => canvas.toBlob(resolve, type, 0.98));
    let blob = await encode("image/png");
    if (blob.size > (this.#service?.limits?.max_bytes ?? Infinity)) blob = await encode("image/jpeg");
    const name = text("video.name", { name: this.title, time: seconds(currentTime) });
    this.#onFrame(new File([blob], "", { type: blob.type }), name);
  }

  /** The frame that is shown, as a canvas. */
  #frame() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    const canvas = make("canvas", { width, height });
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    return canvas;
  }

  #analyzeClip() {
    const options = { file: this.#file, again: () => this.#analyzeClip(), container: this.#clip, headline: false };
    try {
      checkBytes(this.#file, this.#service?.limits?.max_video_bytes);
    } catch (error) {
      return this.refuse(Object.assign(error, { details: null }), options);
    }
    const onAnswer = (answer) => {
      this.headline(answer.verdict, `clip.${answer.verdict}`);
      this.markDemo(answer);
      const image = () => (this.#video.videoWidth ? this.#frame().toDataURL("image/jpeg", 0.9) : null);
      const save = saveButton(this, { file: this.#file, image });
      this.#clip.replaceChildren(clipPart(answer, (time) => this.#seek(time)), originPart(answer.provenance), save);
      announce(this.title + ":", text(`clip.${answer.verdict}`));
    };
    return this.run((progress) => detectVideo(this.#file, progress), { ...options, onAnswer });
  }

  #showUnplayable() {
    this.stage.replaceChildren(make("p", { className: "unseen", textKey: "video.unseen" }));
    this.headline("error", "video.unseen");
    this.body.replaceChildren(
      ...[
        make("p", { textKey: "video.unseen.more" }),
        this.#service?.features?.video && button("video.clip", () => this.#analyzeClip()),
        this.#clip,
      ].filter(Boolean),
    );
    announce(this.title + ":", text("video.unseen"), text("video.unseen.more"));
  }

  /** Frees the video's memory. */
  dispose() {
    URL.revokeObjectURL(this.#url);
  }
}
