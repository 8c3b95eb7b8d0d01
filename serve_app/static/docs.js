// The documentation of the API, rendered from /openapi.json without requests to any other host.

import { key } from "./api.js";
import { tryForm } from "./try.js";

const api = await (await fetch("/openapi.json")).json();

const make = (name, text, ...children) => {
  const made = document.createElement(name);
  made.append(...(text ? [text] : []), ...children);
  return made;
};
const resolve = (schema) => (schema?.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema);

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return schema.items ? `list of ${typeOf(schema.items)}` : "list";
  return schema.enum?.join(", ") ?? String(schema.const ?? schema.type);
}

// The rows of a schema and of all schemas that it refers to.
function rows(schema, prefix = "") {
  return Object.entries(resolve(schema)?.properties ?? {}).flatMap(([name, field]) => {
    const reference = [field, field.items, ...(field.anyOf ?? [])].find((schema) => schema?.$ref);
    const inner = reference && !resolve(reference).enum ? reference : null;
    const path = `${prefix}${name}`;
    return [
      [path, typeOf(field), field.description ?? ""],
      ...(inner ? rows(inner, `${path}${field.items ? "[]" : ""}.`) : []),
    ];
  });
}

function table(operation, head, body) {
  const row = (cells, name) => make("tr", "", ...cells.map((cell) => make(name, cell)));
  const made = make("table", "", make("thead", "", row(head, "th")), make("tbody", "", ...body.map((r) => row(r, "td"))));
  const scroll = Object.assign(make("div", "", made), { className: "scroll", tabIndex: 0, role: "region" });
  scroll.setAttribute("aria-label", `${head[0]}, ${operation}`);
  return scroll;
}

function operation(path, method, spec) {
  const isError = ([status]) => Number(status) >= 400;
  const success = Object.entries(spec.responses).find((entry) => !isError(entry))?.[1];
  const ok = success?.content?.["application/json"]?.schema;
  const errors = Object.entries(spec.responses).filter(isError);
  const parameters = (spec.parameters ?? []).filter((parameter) => parameter.in === "query");
  const body = Object.keys(spec.requestBody?.content ?? {});
  const name = `${method.toUpperCase()} ${path}`;
  const article = make(
    "article",
    "",
    make("h2", "", make("code", name)),
    make("p", spec.summary),
    ...(spec.description ? [make("p", spec.description)] : []),
    ...(body.length ? [make("p", `Body: ${body.join(" or ")}`)] : []),
    tryForm(path, method, spec),
    ...(parameters.length
      ? [table(name, ["Query", "Type", "Meaning"], parameters.map((row) => [row.name, typeOf(row.schema), row.description ?? ""]))]
      : []),
    ...(ok ? [table(name, ["Answer", "Type", "Meaning"], rows(ok))] : []),
    ...(errors.length ? [table(name, ["Error", "Code"], errors.map(([status, { description }]) => [status, description]))] : []),
  );
  return Object.assign(article, { className: "operation" });
}

document.getElementById("description").textContent = api.info.description;
document.getElementById("curl").textContent =
  `curl -F file=@face.jpg ${location.origin}/v1/detect\n` +
  `curl -H 'Content-Type: image/jpeg' --data-binary @face.jpg ${location.origin}/v1/detect` +
  (api.paths["/v1/detect/video"] ? `\ncurl -F file=@clip.mp4 ${location.origin}/v1/detect/video` : "");
document.getElementById("operations").append(
  ...Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, spec]) => operation(path, method, spec)),
  ),
);

if (api.components.securitySchemes) {
  const input = document.getElementById("key-input");
  document.getElementById("key").hidden = false;
  document.getElementById("key").addEventListener("submit", (event) => event.preventDefault());
  input.value = key.get() ?? "";
  input.addEventListener("input", () => (input.value ? key.set(input.value) : key.drop()));
}
