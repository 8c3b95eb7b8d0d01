// Turns an error into advice for the user: the key and values of a text.

import { Refusal } from "./api.js";
import { megabytes, number } from "./i18n.js";

const KNOWN = [0, 400, 401, 404, 408, 413, 415, 422, 429, 500, 503];
const LINKED = [400, 413, 415, 422];
const isHeic = (file) => /hei[cf]/i.test(file.type) || /\.hei[cf]$/i.test(file.name);

/** The key and values of the advice for an error about a file; null for a picture behind an address. */
export function advice(error, file) {
  if (!(error instanceof Refusal)) throw error; // a bug of the page
  const { status, code, details } = error;
  if (details) return [`error.413.${code}`, details];
  if (code === "bad_receipt") return ["error.receipt", {}];
  if (!file && LINKED.includes(status)) return [code === "bad_url" ? "error.link" : "error.link.file", {}];
  const isVideo = file?.type.startsWith("video/");
  if (isVideo && status === 413) return ["error.413.video", {}];
  if (isVideo && [400, 415, 422].includes(status)) return ["error.video", {}];
  if ([400, 415].includes(status) && isHeic(file)) return ["error.heic", {}];
  return [`error.${KNOWN.includes(status) ? status : 500}`, { seconds: error.retryAfterS }];
}

/** Throws a Refusal for a file that is too large, before it is sent. */
export function checkBytes(file, maxBytes) {
  if (maxBytes && file.size > maxBytes) {
    throw tooLarge("bytes", { size: () => megabytes(file.size), most: () => megabytes(maxBytes) });
  }
}

export function checkPixels(image, maxPixels) {
  const pixels = image.naturalWidth * image.naturalHeight;
  if (maxPixels && pixels > maxPixels) {
    const mega = (count) => () => number(count / 1e6, { maximumFractionDigits: 0 });
    throw tooLarge("pixels", { size: mega(pixels), most: mega(maxPixels) });
  }
}

export const wrongKind = () => new Refusal(415);

function tooLarge(code, details) {
  return Object.assign(new Refusal(413, { code }), { details });
}
