// One picture: shown from memory, sent, judged, and all that may be asked about the answer.

import { detect } from "./api.js";
import { Card } from "./card.js";
import { announce, make } from "./dom.js";
import { checkBytes, checkPixels, wrongKind } from "./errors.js";
import { expertPart } from "./expert.js";
import { feedbackPart } from "./feedback.js";
import { heatPart } from "./heat.js";
import { say, text } from "./i18n.js";
import { kindOf } from "./intake.js";
import { Overlay } from "./overlay.js";
import { faceChoice, headline, notes, ofHundred, score } from "./verdict.js";

export class Picture extends Card {
  #file;
  #service;
  #url;
  #overlay;

  /** service: the answer of /v1/model, for limits and features. */
  constructor({ file, n, name, service, onRemove }) {
    super({ kind: "picture", n, name, onRemove });
    this.#file = file;
    this.#service = service;
    this.judge();
  }

  get #again() {
    return { file: this.#file, again: () => this.judge() };
  }

  async judge() {
    const { max_bytes: bytes, max_pixels: pixels } = this.#service?.limits ?? {};
    try {
      if (kindOf(this.#file) !== "picture") throw wrongKind();
      const image = await this.#show();
      checkBytes(this.#file, bytes);
      checkPixels(image, pixels);
    } catch (error) {
      return this.refuse(error, this.#again);
    }
    return this.run((options) => detect(this.#file, options), { ...this.#again, onAnswer: (answer) => this.#answer(answer) });
  }

  // Resolves once the browser has shown the picture or given up; it is sent in both cases.
  #show() {
    this.headline("busy", "step.waiting");
    this.dispose();
    this.#url = URL.createObjectURL(this.#file);
    const image = say(make("img"), ...["card.alt", this.titleKey[1], "alt"]);
    this.#overlay = new Overlay(image);
    return new Promise((resolve) => {
      image.onload = () => {
        this.#overlay.fit({ width: image.naturalWidth, height: image.naturalHeight });
        this.stage.replaceChildren(this.#overlay.element);
        resolve(image);
      };
      image.onerror = () => {
        this.stage.replaceChildren(make("p", { className: "unseen" }, make("span", { said: "card.unseen" }), " ", make("span", { said: "card.unseen.more" })));
        resolve(image);
      };
      image.src = this.#url;
    });
  }

  #answer(answer) {
    const [result] = answer.results;
    const faces = result.faces.filter((face) => face.p_fake !== null);
    this.headline(result.verdict, ...headline({ ...result, faces }));
    if (result.size) this.#overlay.fit(result.size);
    if (!faces.length && result.crop_box) this.#overlay.crop(result.crop_box);
    const has = result.p_fake !== null;
    const about = make("div", { className: "about" });
    let picked = faces.reduce((best, face, index) => (face.p_fake > (faces[best]?.p_fake ?? -1) ? index : best), 0);
    const pick = (index, spoken = true) => {
      picked = index;
      const face = faces[index];
      const one = face && faces.length > 1;
      const said = face && [`face.${face.verdict}`, { n: index + 1 }];
      about.replaceChildren(
        ...[
          one && make("h4", { said: said[0], values: said[1] }),
          has && score(face ?? result, result.thresholds),
          make("p", { className: "help", said: `help.${(face ?? result).verdict}` }),
          notes([...result.warnings.filter((code) => !one || code !== "several_faces"), ...(face?.quality ?? [])]),
        ].filter(Boolean),
      );
      this.#overlay.pick(index);
      if (choice) choice.querySelectorAll("input")[index].checked = true;
      if (one && spoken) announce(text(...said), text(...ofHundred(face.p_fake)));
    };
    const choice = faces.length > 1 ? faceChoice(faces, picked, pick) : null;
    this.#overlay.faces(faces, pick);
    pick(picked, false);
    const canExplain = has && this.stage.contains(this.#overlay.element);
    this.body.replaceChildren(
      ...[
        choice,
        about,
        canExplain && heatPart(this.#file, this.#overlay, this),
        make(
          "div",
          { className: "drawers" },
          expertPart(result, answer),
          this.#service?.features?.feedback && feedbackPart(this.#file, result, answer.request_id),
        ),
      ].filter(Boolean),
    );
    const meaning = has ? text(...ofHundred(result.p_fake)) : text("help.no_face");
    announce(this.title + ":", text(...headline({ ...result, faces })), meaning);
  }

  /** Frees the picture's memory. */
  dispose() {
    if (this.#url) URL.revokeObjectURL(this.#url);
  }
}
