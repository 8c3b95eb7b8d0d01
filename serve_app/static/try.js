// Forms on the page of the documentation that send a request to this service and show its answer.

import { key } from "./api.js";
import { make, uniqueId } from "./dom.js";

const FORM = "multipart/form-data";
const JSON_TYPE = "application/json";
const LONGEST = 120; // characters of a value that are shown; heat maps have thousands

/** A form for one operation of the OpenAPI document, closed at first. */
export function tryForm(path, method, spec) {
  const parameters = (spec.parameters ?? []).filter((parameter) => parameter.in === "query");
  const query = parameters.map(({ name, schema }) => field(name, schema));
  const bodies = Object.entries(spec.requestBody?.content ?? {})
    .filter(([type]) => [FORM, JSON_TYPE].includes(type))
    .map(([type, { schema }]) => bodyOf(type, schema));
  const choice = bodies.length > 1 && field("send", { enum: bodies.map(({ type }) => type) });
  const answer = make("div", { className: "answer" });
  const form = make(
    "form",
    { noValidate: true },
    ...query.map(({ element }) => element),
    choice && choice.element,
    ...bodies.map(({ element }) => element),
    make("button", { className: "button", textContent: "Send" }),
    answer,
  );
  const chosen = () => bodies.find(({ type }) => type === choice?.value?.()) ?? bodies[0];
  const follow = () => bodies.forEach((body) => (body.element.hidden = body !== chosen()));
  form.addEventListener("change", follow);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const pairs = query.filter(({ value }) => value()).map(({ name, value }) => [name, value()]);
    send(answer, `${path}${pairs.length ? `?${new URLSearchParams(pairs)}` : ""}`, method.toUpperCase(), chosen());
  });
  follow();
  return make("details", { className: "try" }, make("summary", { textContent: "Try it" }), form);
}

/** A labeled control for a value of a schema: its element, name and value. */
function field(name, schema, isRequired = false) {
  const id = uniqueId("field");
  const file = schema.format === "binary" || schema.items?.format === "binary";
  const kinds = [schema, ...(schema.anyOf ?? [])];
  const options = kinds.find((kind) => kind.enum)?.enum ?? (schema.type === "boolean" ? ["true", "false"] : null);
  const number = kinds.some(({ type }) => type === "integer");
  let control;
  if (file) control = make("input", { type: "file", multiple: schema.type === "array" });
  else if (options) {
    const none = isRequired || name === "send" ? [] : [make("option", { value: "", textContent: "(not sent)" })];
    control = make("select", {}, ...none, ...options.map((value) => make("option", { value, textContent: value })));
  } else control = make("input", { type: number ? "number" : "text" });
  control.id = id;
  const label = make("label", { htmlFor: id, textContent: name });
  const value = () => (file ? [...control.files] : control.value);
  return { name, value, element: make("p", {}, label, control) };
}

/** The controls of a request body: its element, content type, body for fetch, and arguments for curl. */
function bodyOf(type, schema) {
  if (type === JSON_TYPE) {
    const example = Object.fromEntries(Object.keys(schema.properties).map((name) => [name, "https://"]));
    const text = make("textarea", { id: uniqueId("json"), rows: 2, value: JSON.stringify(example), spellcheck: false });
    const element = make("p", {}, make("label", { htmlFor: text.id, textContent: "JSON" }), text);
    return { type, element, content: () => text.value, curl: () => ` --json ${quoted(text.value)}` };
  }
  const fields = Object.entries(schema.properties).map(([name, property]) =>
    field(name, property, schema.required?.includes(name)),
  );
  const parts = () => fields.flatMap(({ name, value }) => [value()].flat().filter(Boolean).map((part) => [name, part]));
  const content = () => {
    const data = new FormData();
    parts().forEach(([name, part]) => (part instanceof File ? data.append(name, part, "file") : data.append(name, part)));
    return data;
  };
  const argument = ([name, part]) => ` -F ${quoted(`${name}=${part instanceof File ? `@${part.name}` : part}`)}`;
  const element = make("div", {}, ...fields.map((each) => each.element));
  return { type, element, content, curl: () => parts().map(argument).join("") };
}

async function send(answer, path, method, body) {
  const status = make("p", { textContent: "Waiting …", aria: { role: "status" } });
  const secret = key.get();
  const header = secret ? ` -H "Authorization: Bearer $KEY"` : "";
  const curl = `curl${header}${body ? body.curl() : ""} ${quoted(location.origin + path)}`;
  answer.replaceChildren(make("pre", { textContent: curl }), status);
  const headers = {
    ...(secret && { Authorization: `Bearer ${secret}` }),
    ...(body?.type === JSON_TYPE && { "Content-Type": JSON_TYPE }),
  };
  const started = performance.now();
  try {
    const response = await fetch(path, { method, headers, body: body?.content() });
    const text = await response.text();
    const kept = ["X-Request-ID", "Retry-After"].filter((name) => response.headers.has(name));
    const facts = [`${response.status} ${response.statusText}`, `${Math.round(performance.now() - started)} ms`];
    facts.push(...kept.map((name) => `${name}: ${response.headers.get(name)}`));
    status.textContent = facts.join(" · ");
    answer.append(make("pre", { textContent: pretty(text), tabIndex: 0 }));
  } catch (error) {
    status.textContent = `The service cannot be reached (${error.message}).`;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), (_, value) => (isLong(value) ? shortened(value) : value), 1);
  } catch {
    return text; // such as the page itself
  }
}

const isLong = (value) => typeof value === "string" && value.length > LONGEST;
const shortened = (value) => `${value.slice(0, 24)}… (${value.length} characters)`;
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
