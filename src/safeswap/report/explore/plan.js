// A plan: its rows after hand-set units, its decisions and bytes, and its text as a file.

/** @import { Data, Language, Row, Rows, Settings, Swaps, Totals, Weights } from "./types" */
import { rounded, yamlFloat } from "./numbers.js";
import { layerOf, methodOf } from "./rules.js";

/**
 * What a row comes to: `safety`, `language`, `base`, `blend` (weights sum to 1) or `mix`.
 *
 * @param {Row} row
 * @returns {string}
 */
export function decisionOf({ safety, language }) {
  if (safety === 0 && language === 0) return "base";
  if (language === 0 && safety === 1) return "safety";
  if (safety === 0 && language === 1) return "language";
  const given = [safety, language].filter((weight) => weight !== 0);
  return Math.abs(safety + language - 1) < 1e-9 && Math.min(...given) > 0 ? "blend" : "mix";
}

/**
 * The rows with the units that were set by hand; shares stay, as notes.
 *
 * @param {Rows} rows
 * @param {Map<string, string>} hand unit → `safety`, `language`, `blend` or `base`
 * @param {number} alpha safety's part in a blend
 * @returns {Rows}
 */
export function withHand(rows, hand, alpha) {
  /** @type {Swaps} */
  const weights = { safety: [1, 0], language: [0, 1], blend: [alpha, 1 - alpha], base: [0, 0] };
  if (!hand.size) return rows;
  const made = new Map(rows);
  for (const [unit, word] of hand) {
    const row = made.get(unit);
    if (row) made.set(unit, { safety: weights[word][0], language: weights[word][1], shares: row.shares });
  }
  return made;
}

/**
 * The plan's file, letter by letter as `safeswap plan` writes it.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {string} method
 * @param {Settings} settings
 * @param {Rows} rows in the order of the file
 * @returns {string}
 */
export function planText(data, language, method, settings, rows) {
  const said = methodOf(data, method).parameters.filter(({ name }) => settings[name] !== null);
  const lines = said.map(({ name, kind }) => `  ${name}: ${yamlValue(settings[name], kind)}`);
  const selector = ["selector:", `  name: ${method}`, ...lines];
  const width = Math.max(...[...rows.keys()].map((unit) => unit.length)) + 2;
  const units = [...rows].map(([unit, row]) => `  ${`${unit}:`.padEnd(width)}${rowText(row, language.key)}`);
  return [language.head, ...selector].join("\n") + language.between + ["", "units:", ...units, ""].join("\n");
}

/**
 * @param {any} value a number, true or false, or a word
 * @param {string} kind of the parameter
 * @returns {string}
 */
function yamlValue(value, kind) {
  if (kind === "float") return yamlFloat(value);
  if (typeof value === "string" && /^\d+$/.test(value)) return `'${value}'`; // a text, no number
  return String(value);
}

/**
 * @param {Row} row
 * @param {string} key the language's name
 * @returns {string}
 */
function rowText({ safety, language, shares }, key) {
  const pair = (/** @type {number} */ a, /** @type {number} */ b) =>
    `{safety: ${yamlFloat(a)}, ${key}: ${yamlFloat(b)}}`;
  const weights = `weights: ${pair(safety, language)}`;
  if (!shares) return `{${weights}}`;
  const [one, other] = shares.map(rounded);
  return `{${weights}, shares: ${pair(one, other)}, difference: ${yamlFloat(rounded(one - other))}}`;
}

/**
 * What the merge will do with the bytes, in the base's own formats.
 *
 * @param {Data} data
 * @param {Rows} rows
 * @returns {Totals}
 */
export function totalsOf(data, rows) {
  /** @type {Record<string, number>} */
  const copied = { safety: 0, language: 0, base: 0 };
  const sums = { all: 0, computed: 0, safety: 0, language: 0 };
  /** @type {[number, number][]} */
  const units = [];
  data.units.forEach((unit, n) => {
    let bytes = 0;
    let [safety, language] = [0, 0];
    for (const [row, size] of shareOut(unit.name, data.weights[n], rows)) {
      const decision = decisionOf(row);
      if (decision in copied) copied[decision] += size;
      else sums.computed += size;
      bytes += size;
      safety += size * row.safety;
      language += size * row.language;
    }
    sums.all += bytes;
    sums.safety += safety;
    sums.language += language;
    units.push(bytes ? [safety / bytes, language / bytes] : [0, 0]);
  });
  const all = sums.all || 1;
  return {
    all: sums.all,
    computed: sums.computed,
    copied,
    weight: [sums.safety / all, sums.language / all],
    units,
  };
}

/**
 * Which rows decide a unit's bytes: the most specific that there is, `3.experts.7` before `3.mlp`.
 *
 * @param {string} unit
 * @param {Weights} weights
 * @param {Rows} rows
 * @returns {[Row, number][]}
 */
function shareOut(unit, weights, rows) {
  /** @type {[Row, number][]} */
  const made = [];
  const whole = rows.get(unit);
  const add = (/** @type {Row | undefined} */ row, /** @type {number} */ size) => {
    if (row && size) made.push([row, size]);
  };
  add(whole, weights.own);
  if (!weights.experts[0] && !weights.shared && !weights.router) return made;
  const layer = layerOf(unit);
  add(rows.get(`${layer}.shared_experts`) ?? whole, weights.shared);
  const [count, each] = weights.experts;
  const router = rows.get(`${layer}.router`);
  if (router) add(router, weights.router);
  const names = expertsOf(layer, count);
  for (let n = 0; n < count; n += 1) {
    const own = rows.get(names[n]) ?? whole;
    add(own, each + (router ? 0 : weights.router / count)); // a router without a row goes with its experts
  }
  if (!router && !count) add(whole, weights.router);
  return made;
}

/** @type {Map<string, string>} */
const KINDS = new Map();

/** @param {string} unit @returns {string} `experts` of `3.experts.7` */
function kindOf(unit) {
  const known = KINDS.get(unit);
  if (known !== undefined) return known;
  const kind = unit.replace(/^(?:encoder\.|decoder\.)?\d+\./, "").replace(/\.\d+$/, "");
  KINDS.set(unit, kind);
  return kind;
}

/** @type {Map<string, string[]>} */
const EXPERTS = new Map();

/**
 * The names of a layer's experts, so far as they were asked for.
 *
 * @param {string} layer
 * @param {number} count
 * @returns {string[]} at least so many
 */
export function expertsOf(layer, count) {
  const names = EXPERTS.get(layer) ?? [];
  EXPERTS.set(layer, names);
  while (names.length < count) names.push(`${layer}.experts.${names.length}`);
  return names;
}

/**
 * How often each decision was made: kind of unit → decision → number.
 *
 * @param {Rows} rows
 * @returns {Map<string, Map<string, number>>}
 */
export function countsOf(rows) {
  /** @type {Map<string, Map<string, number>>} */
  const table = new Map();
  for (const [unit, row] of rows) {
    const kind = kindOf(unit);
    const own = table.get(kind) ?? new Map();
    const decision = decisionOf(row);
    own.set(decision, (own.get(decision) ?? 0) + 1);
    table.set(kind, own);
  }
  return table;
}
