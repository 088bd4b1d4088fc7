// What is said of units and cells, in words.

/** @import { Data, Row } from "./types" */
/** @import { Chosen, Made } from "./state.js" */
import { short } from "./dom.js";
import { countsOf, decisionOf } from "./plan.js";
import { layerOf, tableOf } from "./rules.js";
import { settingsOf } from "./state.js";

/** Decision → its letter in a cell, in the order in which decisions are told. @type {Record<string, string>} */
export const LETTERS = { safety: "S", language: "L", blend: "·", mix: "+", base: "B" };

/** @param {Made} made @returns {string} how many of each kind of unit got which decision */
export function countsLine(made) {
  const kinds = ["attention", "cross_attention", "mixer", "mlp", "router", "shared_experts", "experts"];
  return kinds
    .filter((kind) => made.counts.has(kind))
    .map((kind) => `${kind.replace("_", " ")}: ${ordered(made.counts.get(kind))}`)
    .join("; ");
}

/** @param {Map<string, number> | undefined} counts @returns {string} */
function ordered(counts) {
  return Object.keys(LETTERS)
    .flatMap((word) => (counts?.get(word) ? [`${counts.get(word)} ${word}`] : []))
    .join(", ");
}

/**
 * What is said of a cell.
 *
 * @param {Data} data
 * @param {Chosen} chosen
 * @param {number} n which language
 * @param {Made} made
 * @param {string[]} units one, or all experts of a layer
 * @returns {string}
 */
export function told(data, chosen, n, made, units) {
  const hand = chosen.hand[n];
  if (units.length !== 1) {
    const counts = countsOf(
      new Map(units.map((unit) => [unit, /** @type {Row} */ (made.rows.get(unit))])),
    ).get("experts");
    const byHand = units.filter((unit) => hand.has(unit)).length;
    return `${layerOf(units[0] ?? "")}.experts, ${units.length}: ${ordered(counts)}${byHand ? `; ${byHand} by hand` : ""}. The table below sets one of them.`;
  }
  const [unit] = units;
  const row = made.rows.get(unit);
  if (!row) return `${unit}: goes as its mlp or as the policy says; it has no row of its own`;
  const name = data.languages[n].shown;
  const said = [
    `${unit}: ${decisionOf(row)}${hand.has(unit) ? ", by hand" : ""}`,
    `weights safety ${short(row.safety)}, ${name} ${short(row.language)}`,
  ];
  if (row.shares) {
    const [one_, other] = row.shares;
    said.push(`shares safety ${(100 * one_).toFixed(3)} %, ${name} ${(100 * other).toFixed(3)} %`);
    said.push(`difference ${one_ < other ? "" : "+"}${(100 * (one_ - other)).toFixed(3)} points`);
  }
  const settings = settingsOf(data, chosen);
  if (chosen.method === "cosine") {
    const table = tableOf(data, settings);
    const at = data.keys[table].indexOf(settings.by === "layer" ? layerOf(unit) : unit);
    if (at >= 0) said.push(`cosine ${data.languages[n].tables[table].cosines[at].toFixed(3)}`);
  }
  if (made.unsure.has(unit) || made.unsure.has(layerOf(unit)))
    said.push("not certain: a part of the weights was read");
  return said.join("; ");
}
