// One picture: shown, sent to the service, and its answer with heat map, details and feedback.

import { detect, detectUrl } from "./api.js";
import { Card } from "./card.js";
import { announce, make } from "./dom.js";
import { checkBytes, checkPixels, wrongKind } from "./errors.js";
import { expertPart } from "./expert.js";
import { feedbackPart } from "./feedback.js";
import { heatPart } from "./heat.js";
import { setText, text } from "./i18n.js";
import { kindOf } from "./intake.js";
import { originPart } from "./origin.js";
import { Overlay } from "./overlay.js";
import { saveButton } from "./save.js";
import { faceChoice, headline, notes, ofHundred, score } from "./verdict.js";

export class Picture extends Card {
  #file;
  #address;
  #service;
  #url;
  #overlay;

  /** file or address: where the picture is; service: the answer of /v1/model, for limits and features. */
  constructor({ file = null, address = "", n, name, service, onRemove }) {
    super({ kind: "picture", n, name, onRemove });
    this.#file = file;
    this.#address = address;
    this.#service = service;
    this.analyze();
  }

  get #again() {
    return { file: this.#file, again: () => this.analyze() };
  }

  async analyze() {
    const onAnswer = (answer) => this.#answer(answer);
    if (!this.#file) {
      this.stage.replaceChildren(make("p", { className: "unseen", textKey: "card.linked" }));
      return this.run((options) => detectUrl(this.#address, options), { ...this.#again, onAnswer });
    }
    const { max_bytes: bytes, max_pixels: pixels } = this.#service?.limits ?? {};
    try {
      if (kindOf(this.#file) !== "picture") throw wrongKind();
      const image = await this.#show();
      checkBytes(this.#file, bytes);
      checkPixels(image, pixels);
    } catch (error) {
      return this.refuse(error, this.#again);
    }
    return this.run((options) => detect(this.#file, options), { ...this.#again, onAnswer });
  }

  // Resolves once the browser has displayed the picture or failed to; it is sent in both cases.
  #show() {
    this.headline("busy", "step.waiting");
    this.dispose();
    this.#url = URL.createObjectURL(this.#file);
    const image = setText(make("img"), ...["card.alt", this.titleKey[1], "alt"]);
    this.#overlay = new Overlay(image);
    return new Promise((resolve) => {
      image.onload = () => {
        this.#overlay.fit({ width: image.naturalWidth, height: image.naturalHeight });
        this.stage.replaceChildren(this.#overlay.element);
        resolve(image);
      };
      image.onerror = () => {
        this.stage.replaceChildren(make("p", { className: "unseen" }, make("span", { textKey: "card.unseen" }), " ", make("span", { textKey: "card.unseen.more" })));
        resolve(image);
      };
      image.src = this.#url;
    });
  }

  #answer(answer) {
    const [result] = answer.results;
    const faces = result.faces.filter((face) => face.p_fake !== null);
    this.headline(result.verdict, ...headline({ ...result, faces }));
    const isDemo = result.warnings.includes("demo_model");
    this.markDemo(result);
    this.#overlay?.fit(result.size);
    if (!faces.length && result.crop_box) this.#overlay?.crop(result.crop_box);
    const hasScore = result.p_fake !== null;
    const about = make("div", { className: "about" });
    let picked = faces.reduce((best, face, index) => (face.p_fake > (faces[best]?.p_fake ?? -1) ? index : best), 0);
    const counts = { scored: faces.length, found: faces.length + result.faces_left_out.length };
    const pick = (index, spoken = true) => {
      picked = index;
      const face = faces[index];
      const isOneOfSeveral = face && faces.length > 1;
      const title = face && [`face.${face.verdict}`, { n: index + 1 }];
      about.replaceChildren(
        ...[
          isOneOfSeveral && make("h4", { textKey: title[0], values: title[1] }),
          hasScore && score(face ?? result, result.thresholds, isDemo),
          !(isDemo && hasScore) && make("p", { className: "help", textKey: `help.${(face ?? result).verdict}` }),
          notes(
            [...result.warnings.filter((code) => !isOneOfSeveral || code !== "several_faces"), ...(face?.quality ?? [])],
            "note",
            counts,
          ),
        ].filter(Boolean),
      );
      this.#overlay?.pick(index);
      if (choice) choice.querySelectorAll("input")[index].checked = true;
      if (isOneOfSeveral && spoken) announce(text(...title), text(...ofHundred(face.p_fake, isDemo)));
    };
    const choice = faces.length > 1 ? faceChoice(faces, picked, pick) : null;
    this.#overlay?.faces(faces, pick);
    this.#overlay?.leftOut(result.faces_left_out);
    pick(picked, false);
    const isShown = Boolean(this.#overlay && this.stage.contains(this.#overlay.element));
    const image = () => (isShown ? this.#overlay.flatten() : null);
    this.body.replaceChildren(
      ...[
        choice,
        about,
        hasScore && isShown && heatPart(this.#file, this.#overlay, this),
        originPart(result.provenance),
        saveButton(this, { file: this.#file, image }),
        make(
          "div",
          { className: "drawers" },
          expertPart(result, answer),
          this.#file && this.#service?.features?.feedback && feedbackPart(this.#file, result),
        ),
      ].filter(Boolean),
    );
    const meaning = hasScore ? text(...ofHundred(result.p_fake, isDemo)) : text("help.no_face");
    announce(this.title + ":", text(...headline({ ...result, faces })), meaning);
  }

  /** Frees the picture's memory. */
  dispose() {
    if (this.#url) URL.revokeObjectURL(this.#url);
  }
}
