// The HTTP interface as the page uses it: progress, a key, and errors that know what to do.

const KEY = "api-key"; // this tab only

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
};

/** An answer that is no answer; status 0 when the service was not reached. */
export class Refusal extends Error {
  constructor(status, { code = "", message = "", request_id = "" } = {}, retryAfterS = null) {
    super(message || `status ${status}`);
    Object.assign(this, { status, code, requestId: request_id, retryAfterS });
  }
}

/** What the service is and takes; null when it does not say. */
export async function model() {
  try {
    const response = await fetch("/v1/model");
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

// The file's own name stays here.
const form = (file, fields = {}) => {
  const data = new FormData();
  for (const [name, value] of Object.entries(fields)) if (value) data.append(name, value);
  data.append("file", file, "file");
  return data;
};

export const detect = (file, options = {}) =>
  post(`/v1/detect${options.explain ? "?explain=true" : ""}`, form(file), options);
export const detectVideo = (file, options) => post("/v1/detect/video", form(file), options);
export const feedback = (file, fields, options) => post("/v1/feedback", form(file, fields), options);

/** Posts a form; onProgress gets the share sent, 0 to 1. Rejects with a Refusal, or an AbortError. */
function post(path, body, { onProgress, signal } = {}) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest(); // fetch tells nothing of what has been sent
    request.open("POST", path);
    if (key.get()) request.setRequestHeader("Authorization", `Bearer ${key.get()}`);
    request.upload.onprogress = ({ loaded, total }) => onProgress?.(total ? loaded / total : 0);
    request.onload = () => {
      const answer = parsed(request.responseText);
      if (request.status >= 200 && request.status < 300 && answer) resolve(answer);
      else reject(new Refusal(request.status, answer?.error, retryAfter(request)));
    };
    request.onerror = () => reject(new Refusal(0));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    if (signal?.aborted) request.abort(), reject(new DOMException("cancelled", "AbortError"));
    else request.send(body);
  });
}

function parsed(body) {
  try {
    return JSON.parse(body);
  } catch {
    return null; // a proxy on the way answers in its own words
  }
}

/** Seconds of Retry-After, which is a number or a date; 5 where a busy service names none. */
function retryAfter(request) {
  if (request.status !== 429 && request.status !== 503) return null;
  const header = request.getResponseHeader("Retry-After");
  const wait = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Number.isFinite(wait) ? Math.max(1, Math.ceil(wait)) : 5;
}
