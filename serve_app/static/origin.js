// What a file says about where it comes from, apart from the score.

import { make } from "./dom.js";

const SIGNED = new Set(["listed_signer", "signed"]);

/** The claims of a picture or clip in words; says so if there is none, and that this says nothing. */
export function originPart(claims = []) {
  const words = claims.length
    ? make("ul", {}, ...claims.map(claimItem))
    : make("p", { textKey: "origin.none" });
  return make(
    "section",
    { className: "origin" },
    make("h4", { textKey: "origin.title" }),
    words,
    claims.length > 0 && make("p", { className: "quiet", textKey: "origin.apart" }),
  );
}

function claimItem({ kind, says, standing, tool, signer, date, problem }) {
  const sentence = (textKey, values) => [make("span", { textKey, values }), " "];
  return make(
    "li",
    { className: standing },
    ...sentence(`origin.kind.${kind}`),
    ...sentence(standing === "broken" ? "origin.says.broken" : `origin.says.${says}`),
    ...(tool ? sentence("origin.tool", { tool }) : []),
    ...(date ? sentence("origin.date", { date }) : []),
    ...sentence(`origin.standing.${standing}${signer && SIGNED.has(standing) ? ".by" : ""}`, { signer: signer ?? "" }),
    ...(problem ? [make("span", { className: "quiet", textKey: "plain", values: { value: `(${problem})` } })] : []),
  );
}
