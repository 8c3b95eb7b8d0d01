// A client of the HTTP API: requests with upload progress, the API key, and errors.

const KEY = "api-key"; // in sessionStorage, so it belongs to this tab only

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
};

/** An error answer of the service; status 0 if it could not be reached. */
export class Refusal extends Error {
  constructor(status, { code = "", message = "", request_id = "" } = {}, retryAfterS = null) {
    super(message || `status ${status}`);
    Object.assign(this, { status, code, requestId: request_id, retryAfterS });
  }
}

/** The answer of /v1/model: the model, features and limits; null if there is no answer. */
export async function model() {
  try {
    const response = await fetch("/v1/model");
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

// The file is sent under a neutral name.
const form = (file, fields = {}) => {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value) data.append(name, value);
  data.append("file", file, "file");
  return data;
};

export const detect = (file, options = {}) =>
  post(`/v1/detect${options.explain ? "?explain=true" : ""}`, form(file), options);
/** The service downloads the picture at an address itself. */
export const detectUrl = (url, options) =>
  post("/v1/detect", new Blob([JSON.stringify({ url })], { type: "application/json" }), options);
export const detectVideo = (file, options) => post("/v1/detect/video", form(file), options);
export const feedback = (file, fields, options) => post("/v1/feedback", form(file, fields), options);

/** Posts a form or a JSON body; onProgress receives the fraction that was sent, 0 to 1. Rejects with a Refusal or an AbortError. */
function post(path, body, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch does not report upload progress
    request.open("POST", path);
    if (key.get()) request.setRequestHeader("Authorization", `Bearer ${key.get()}`);
    request.upload.onprogress = ({ loaded, total }) => onProgress?.(total ? loaded / total : 0);
    request.onload = () => {
      const answer = parsed(request.responseText);
      if (request.status >= 200 && request.status < 300 && answer) resolve(answer);
      else reject(new Refusal(request.status, answer?.error, retryAfter(request)));
    };
    request.onerror = () => reject(new Refusal(0));
    request.onabort = () => reject(new DOMException("canceled", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    if (signal?.aborted) request.abort(), reject(new DOMException("canceled", "AbortError"));
    else request.send(body);
  });
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null; // a proxy may answer with something other than JSON
  }
}

/** The seconds in Retry-After, which is a number or a date; 5 if a busy service sends none. */
function retryAfter(request) {
  if (request.status !== 429 && request.status !== 503) return null;
  const header = request.getResponseHeader("Retry-After");
  const wait = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(wait) ? Math.max(1, Math.ceil(wait)) : 5;
}
