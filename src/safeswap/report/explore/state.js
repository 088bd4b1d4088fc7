// What is chosen on the page: the method with its settings, and the units that were set by hand.

/** @import { Data, Language, Rows, Settings, Totals } from "./types" */
import { fill, inOrder, settle, tableOf, threshold } from "./rules.js";
import { Refusal } from "./refusal.js";
import { countsOf, totalsOf, withHand } from "./plan.js";

/** Words that a unit is set to by hand, in the order in which a click goes through them. */
export const WORDS = ["safety", "language", "blend"];

/**
 * What is chosen; `given` holds only what was touched, so that defaults follow the method.
 *
 * @typedef {object} Chosen
 * @property {string} method
 * @property {Settings} given
 * @property {Map<string, string>[]} hand by language: unit → word
 */

/**
 * A language's plan as it now stands; or why there is none.
 *
 * @typedef {object} Made
 * @property {string | null} refused
 * @property {Rows} rule the rows that the method gives
 * @property {Rows} rows the same with what was set by hand
 * @property {Totals} totals
 * @property {Map<string, Map<string, number>>} counts kind of unit → decision → how many
 * @property {Set<string>} unsure keys that a sample leaves open
 */

/**
 * The method's parameters of what is chosen; those that other methods have are left out.
 *
 * @param {Data} data
 * @param {Chosen} chosen
 * @returns {Settings}
 */
export function settingsOf(data, chosen) {
  return settle(data, chosen.method, chosen.given);
}

/**
 * @param {Data} data
 * @param {Chosen} chosen
 * @param {number} n which language
 * @returns {Made}
 */
export function made(data, chosen, n) {
  const language = data.languages[n];
  try {
    const settings = settingsOf(data, chosen);
    const rule = inOrder(data, fill(data, language, chosen.method, settings));
    const rows = withHand(rule, chosen.hand[n], alphaOf(settings));
    return {
      refused: null,
      rule,
      rows,
      totals: totalsOf(data, rows),
      counts: countsOf(rows),
      unsure: unsureOf(data, language, settings),
    };
  } catch (error) {
    if (!(error instanceof Refusal)) throw error;
    const none = { rule: new Map(), rows: new Map(), totals: NOTHING, counts: new Map(), unsure: new Set() };
    return { refused: error.message, ...none };
  }
}

/** @type {Totals} */
const NOTHING = { all: 0, computed: 0, copied: {}, weight: [0, 0], units: [] };

/**
 * Safety's part where a unit is set to a blend by hand: the method's α, or a half.
 *
 * @param {Settings} settings
 * @returns {number}
 */
export function alphaOf(settings) {
  return settings.alpha ?? 0.5;
}

/**
 * Keys whose decision is not the same over all of their interval.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {Settings} settings
 * @returns {Set<string>}
 */
function unsureOf(data, language, settings) {
  if (!("tau" in settings)) return new Set();
  const table = tableOf(data, settings);
  const tau = threshold(data, settings);
  const open = (language.intervals[table] ?? []).flatMap(([low, high], n) =>
    low > tau || high < -tau || (-tau <= low && high <= tau) ? [] : [data.keys[table][n]],
  );
  return new Set(open);
}

/**
 * How far a table of weights is from one that was measured: the mean change of a weight, by bytes.
 *
 * @param {Data} data
 * @param {[number, number][]} one by unit
 * @param {[number, number][]} other
 * @returns {number}
 */
export function distance(data, one, other) {
  let [all, sum] = [0, 0];
  data.weights.forEach(({ own, shared, router, experts }, n) => {
    const bytes = own + shared + router + experts[0] * experts[1];
    all += bytes;
    sum += (bytes * (Math.abs(one[n][0] - other[n][0]) + Math.abs(one[n][1] - other[n][1]))) / 2;
  });
  return all ? sum / all : 0;
}

/**
 * The measured point whose table is nearest.
 *
 * @param {Data} data
 * @param {number} n which language
 * @param {Totals} totals
 * @returns {{name: string, told: string, away: number} | null}
 */
export function nearest(data, n, totals) {
  /** @type {{name: string, told: string, away: number} | null} */
  let best = null;
  for (const { name, told, weights } of data.points[n] ?? []) {
    const away = weights ? distance(data, totals.units, weights) : Infinity;
    if (away < (best?.away ?? Infinity)) best = { name, told, away };
  }
  return best;
}

/**
 * The command that writes the same plan, but for what was set by hand.
 *
 * @param {Data} data
 * @param {Chosen} chosen
 * @param {number} n which language
 * @returns {string}
 */
export function commandOf(data, chosen, n) {
  const words = ["safeswap", "plan", data.profile];
  if (data.languages.length > 1) words.push("--only", data.languages[n].shown);
  if (chosen.method !== "share-difference") words.push("--method", chosen.method);
  const settings = settingsOf(data, chosen);
  for (const [name, value] of Object.entries(settings)) {
    if (chosen.given[name] === undefined || value === null || name === "tau_relative") continue;
    if (name === "tau") words.push(settings.tau_relative ? "--tau-relative" : "--tau", String(value));
    else if (OPTIONS.includes(name)) words.push(`--${name.replace("_", "-")}`, String(value));
    else words.push("--set", `${name}=${value}`);
  }
  return [...words, "-o", fileOf(data.languages[n])].map(quoted).join(" ");
}

/** Parameters that have an option of their own. */
const OPTIONS = ["by", "alpha", "norms", "outside", "router", "shared_experts"];

/**
 * @param {string} word
 * @returns {string} as a shell takes it
 */
function quoted(word) {
  return /^[\w./=:@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/**
 * What a language's plan is called.
 *
 * @param {Language} language
 * @returns {string}
 */
export function fileOf(language) {
  return `plan-${language.name.replace(/[^A-Za-z0-9_-]/g, "_").slice(0, 60)}.yaml`;
}
