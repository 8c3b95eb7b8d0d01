// The page: one picture to POST /v1/detect, its answer in plain words. The picture is shown from memory (blob:) only.

const element = (id) => document.getElementById(id);
const percent = (fraction) => `${Math.min(99, Math.max(1, Math.round(100 * fraction)))} %`;

const HEADLINES = {
  real: "This looks like a photograph.",
  fake: "This looks generated.",
  uncertain: "The detector cannot tell.",
};
const MEANINGS = {
  real: (result) => `Estimated chance that it is a photograph: ${percent(1 - result.p_fake)}.`,
  fake: (result) => `Estimated chance that it is generated: ${percent(result.p_fake)}.`,
  uncertain: (result) =>
    `Estimated chance that it is generated: ${percent(result.p_fake)}. ` +
    "That is too close for a verdict: another, larger picture of the same person may help.",
};
const WARNINGS = {
  upscaled: "The picture is very small, which makes the answer less reliable.",
  cropped: "Only the middle square of the picture was judged. For the best answer, cut it to the face.",
};

let previewUrl = null;
let asked = 0; // an answer that comes after a newer question is dropped

async function ask(file) {
  const question = ++asked;
  show(file);
  say("wait", "Looking at the picture …", "");
  try {
    const response = await fetch("/v1/detect", { method: "POST", body: form(file) });
    const answer = await response.json();
    if (question !== asked) return;
    if (response.ok) showResult(answer.results[0]);
    else showError(response.status, answer.error.message);
  } catch {
    if (question === asked) say("error", "The service did not answer.", "Check your connection and try again.");
  }
}

function form(file) {
  const data = new FormData();
  data.append("file", file, "picture"); // the file's own name stays here
  return data;
}

function show(file) {
  if (previewUrl) URL.revokeObjectURL(previewUrl);
  previewUrl = URL.createObjectURL(file);
  element("preview").src = previewUrl;
  element("picture").hidden = false;
}

function showResult(result) {
  say(result.verdict, HEADLINES[result.verdict], MEANINGS[result.verdict](result), result.warnings);
  element("meter").value = 100 * result.p_fake;
  element("scale").hidden = false;
}

function showError(status, message) {
  const advice = {
    400: "This file could not be read as a picture. Choose a JPEG, PNG or WebP file.",
    413: "This picture is too large. Choose a smaller one.",
    503: "The service is busy. Try again in a moment.",
  };
  say("error", "There is no answer for this file.", advice[status] ?? message);
}

function say(kind, headline, meaning, warnings = []) {
  element("verdict").className = kind;
  element("headline").textContent = headline;
  element("meaning").textContent = meaning;
  element("scale").hidden = true;
  element("warnings").replaceChildren(
    ...warnings.map((code) => Object.assign(document.createElement("li"), { textContent: WARNINGS[code] ?? code })),
  );
  element("verdict").hidden = false;
}

async function showModel() {
  const response = await fetch("/v1/model");
  if (!response.ok) return;
  const model = await response.json();
  element("generated").hidden = !model.generated;
  element("model").textContent = `Model ${model.version}, trained on ${model.data}.`;
}

const drop = element("drop");
element("preview").addEventListener("error", () => (element("picture").hidden = true));
element("file").addEventListener("change", (event) => {
  if (event.target.files.length) ask(event.target.files[0]);
  event.target.value = ""; // the same file can be chosen again
});
for (const type of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    event.preventDefault(); // a picture dropped beside the field must not replace the page
    drop.classList.toggle("over", type === "dragover");
    if (type === "drop" && event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
}
showModel();
