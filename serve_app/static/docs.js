// The API's documentation, drawn from /openapi.json: no other host is asked for anything.

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
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return schema.enum?.join(", ") ?? String(schema.const ?? schema.type);
}

// Rows of a schema and of every schema it names.
function rows(schema, prefix = "") {
  return Object.entries(resolve(schema)?.properties ?? {}).flatMap(([name, field]) => {
    const inner = field.$ref ? field : field.items?.$ref ? field.items : null;
    const path = `${prefix}${name}`;
    return [
      [path, typeOf(field), field.description ?? ""],
      ...(inner ? rows(inner, `${path}${field.items ? "[]" : ""}.`) : []),
    ];
  });
}

function table(head, body) {
  const row = (cells, name) => make("tr", "", ...cells.map((cell) => make(name, cell)));
  return make("table", "", make("thead", "", row(head, "th")), make("tbody", "", ...body.map((r) => row(r, "td"))));
}

function operation(path, method, spec) {
  const ok = spec.responses["200"]?.content?.["application/json"]?.schema;
  const errors = Object.entries(spec.responses).filter(([status]) => status !== "200");
  const body = Object.keys(spec.requestBody?.content ?? {});
  return make(
    "article",
    "",
    make("h2", "", make("code", `${method.toUpperCase()} ${path}`)),
    make("p", spec.summary),
    ...(spec.description ? [make("p", spec.description)] : []),
    ...(body.length ? [make("p", `Body: ${body.join(" or ")}`)] : []),
    ...(ok ? [table(["Answer", "Type", "Meaning"], rows(ok))] : []),
    ...(errors.length ? [table(["Error", "Code"], errors.map(([status, { description }]) => [status, description]))] : []),
  );
}

document.getElementById("description").textContent = api.info.description;
document.getElementById("curl").textContent =
  `curl -F file=@face.jpg ${location.origin}/v1/detect\n` +
  `curl -H 'Content-Type: image/jpeg' --data-binary @face.jpg ${location.origin}/v1/detect`;
document.getElementById("operations").append(
  ...Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, spec]) => operation(path, method, spec)),
  ),
);
