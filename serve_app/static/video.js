// A video: shown from memory; a person picks a frame of it, or asks for the whole clip.

import { detectVideo } from "./api.js";
import { Card } from "./card.js";
import { announce, announceText, button, make } from "./dom.js";
import { checkBytes } from "./errors.js";
import { say, seconds, text } from "./i18n.js";
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

  /** onFrame: hears a File of the picked frame and a name for it. */
  constructor({ file, n, name, service, onRemove, onFrame }) {
    super({ kind: "video", n, name, onRemove });
    this.#file = file;
    this.#service = service;
    this.#onFrame = onFrame;
    this.#url = URL.createObjectURL(file);
    say(this.#video, "video.label", { n }, "aria-label");
    this.headline("ready", "video.frame");
    this.stage.append(this.#video);
    this.#video.addEventListener("error", () => this.#unseen(), { once: true });
    this.#video.addEventListener("loadedmetadata", () => this.#measure(), { once: true });
    this.#video.src = this.#url;
  }

  // A recording made in a browser knows its length only after it was asked for its end.
  async #measure() {
    const video = this.#video;
    if (!Number.isFinite(video.duration)) {
      video.currentTime = 1e9;
      await new Promise((resolve) => video.addEventListener("durationchange", resolve, { once: true }));
    }
    this.#range.max = Math.max(0, video.duration - STEP_S);
    this.#draw();
    this.#seek(video.duration / 2); // the middle says more than a black first frame
  }

  #draw() {
    const end = () => seconds(this.#video.duration);
    this.time = make("output", { className: "time", aria: { hidden: "true" } });
    say(this.#range, "video.time", {}, "aria-label");
    this.#range.addEventListener("input", () => this.#seek(Number(this.#range.value)));
    this.#video.addEventListener("timeupdate", () => this.#follow(end));
    this.#video.addEventListener("seeked", () => this.#follow(end));
    const step = (key, by, sign) => {
      const made = make("button", { type: "button", className: "step-button", textContent: sign });
      made.addEventListener("click", () => this.#seek(this.#video.currentTime + by));
      return say(made, key, {}, "aria-label");
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
        make("p", { className: "help", said: "video.hint" }),
        scrub,
        this.time,
        make(
          "div",
          { className: "actions" },
          button("video.pick", () => this.#pick(), "button"),
          this.#service?.features?.video && button("video.clip", () => this.#judge()),
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
    say(this.time, "video.at", values);
    say(this.#range, "video.at", values, "aria-valuetext");
  }

  // Without loss where it fits: a JPEG would wipe out traces.
  async #pick() {
    const { videoWidth: width, videoHeight: height, currentTime } = this.#video;
    const canvas = make("canvas", { width, height });
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    const encode = (type) => new Promise((resolve) => canvas.toBlob(resolve, type, 0.98));
    let blob = await encode("image/png");
    if (blob.size > (this.#service?.limits?.max_bytes ?? Infinity)) blob = await encode("image/jpeg");
    const name = text("video.name", { name: this.title, time: seconds(currentTime) });
    this.#onFrame(new File([blob], "", { type: blob.type }), name);
  }

  #judge() {
    const options = { file: this.#file, again: () => this.#judge(), place: this.#clip, headline: false };
    try {
      checkBytes(this.#file, this.#service?.limits?.max_video_bytes);
    } catch (error) {
      return this.refuse(Object.assign(error, { details: null }), options);
    }
    const onAnswer = (answer) => {
      this.headline(answer.verdict, `clip.${answer.verdict}`);
      this.#clip.replaceChildren(clipPart(answer, (time) => this.#seek(time)));
      announce(this.title + ":", text(`clip.${answer.verdict}`));
    };
    return this.run((given) => detectVideo(this.#file, given), { ...options, onAnswer });
  }

  #unseen() {
    this.stage.replaceChildren(make("p", { className: "unseen", said: "video.unseen" }));
    this.headline("error", "video.unseen");
    this.body.replaceChildren(
      ...[
        make("p", { said: "video.unseen.more" }),
        this.#service?.features?.video && button("video.clip", () => this.#judge()),
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
