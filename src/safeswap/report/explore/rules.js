// The methods: from shares to decisions to the weights of every unit, as safeswap.selectors does.

/** @import { Choice, Choices, Data, Language, Method, Parameter, Rows, Settings, Swaps } from "./types" */
import { band, settleWindows } from "./band.js";
import { Refusal } from "./refusal.js";

/** @type {Record<string, string>} */
const OPPOSITE = { safety: "language", language: "safety", blend: "blend" };

/**
 * A method of the page by its name.
 *
 * @param {Data} data
 * @param {string} name
 * @returns {Method}
 */
export function methodOf(data, name) {
  const found = data.methods.find((method) => method.name === name);
  if (!found)
    throw new Refusal(
      `The method ${name} is not among those of this page: use safeswap plan --method ${name}.`,
    );
  return found;
}

/**
 * Every parameter of a method with its value: what was given, and defaults; null where the method
 * works it out. The order is that of a plan's file.
 *
 * @param {Data} data
 * @param {string} name of the method
 * @param {Settings} given values of the right kinds
 * @returns {Settings}
 */
export function settle(data, name, given) {
  const method = methodOf(data, name);
  /** @type {Settings} */
  const made = {};
  for (const one of method.parameters) made[one.name] = checked(one, given[one.name] ?? one.default);
  if ("by" in made) settleGranularity(data, made);
  if (made.windows != null) settleWindows(made);
  return made;
}

/**
 * @param {Parameter} one
 * @param {any} value
 * @returns {any}
 */
function checked(one, value) {
  if (value === null || value === undefined) return null;
  const number = typeof value === "number";
  if (
    number &&
    (!Number.isFinite(value) ||
      (one.low !== null && value < one.low) ||
      (one.high !== null && value > one.high))
  ) {
    const ends = one.high === null ? `${one.low ?? "a number"} or more` : `from ${one.low} to ${one.high}`;
    throw new Refusal(`${one.name.replace("_", " ")} ${value} is not valid: it must be ${ends}.`);
  }
  if (number && one.kind === "int" && !Number.isInteger(value))
    throw new Refusal(`${one.name} ${value}: a whole number is needed.`);
  return value;
}

/**
 * What was not given and hangs on the granularity: norms, τ, routers and shared experts.
 *
 * @param {Data} data
 * @param {Settings} made
 */
function settleGranularity(data, made) {
  made.norms = made.norms ?? (made.by === "layer" ? "follow" : "language");
  if ("tau" in made && made.tau === null) {
    made.tau = data.tau[made.by];
    made.tau_relative = made.tau_relative || made.by === "expert";
  }
  if (made.by === "expert") {
    made.router = made.router ?? "language";
    made.shared_experts = made.shared_experts ?? "own";
    if (made.shared_experts === "follow")
      throw new Refusal(
        "Shared experts: follow is as the mlp, which by expert is not decided as one. Use own, language, safety, blend or base.",
      );
  } else if (made.shared_experts === "own") {
    throw new Refusal(
      "Shared experts: they have a share of their own by expert only. Decide by expert, or use follow, language, safety, blend or base.",
    );
  }
}

/**
 * The table of a method: a row for every unit that it speaks of.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {string} name of the method
 * @param {Settings} settings all of them, as `settle` gives them
 * @returns {Rows}
 */
export function fill(data, language, name, settings) {
  const { alpha, gamma, scale } = settings;
  if (name === "soup") return uniform(data, language, settings, alpha, 1 - alpha);
  if (name === "task-arithmetic") return uniform(data, language, settings, scale, scale);
  if (name === "chat-vector") return uniform(data, language, settings, gamma, 1);
  /** @type {Swaps} */
  const swaps = { safety: [1, 0], language: [0, 1], blend: [alpha, 1 - alpha], base: [0, 0] };
  if (name === "band") return rowsOf(data, "module", band(data, settings), settings.outside, swaps);
  const table = tableOf(data, settings);
  let choices =
    name === "cosine"
      ? disagreeing(data, language, table, settings.threshold)
      : decide(data, language, table, settings);
  if (name === "inverted")
    choices = new Map([...choices].map(([key, one]) => [key, { ...one, decision: OPPOSITE[one.decision] }]));
  /** @type {Swaps} */
  const added = { safety: [gamma, 1], blend: [alpha * gamma, 1], language: [0, 1] };
  const weights = name === "gated" ? added : swaps;
  return rowsOf(data, table, spread(data, table, choices, settings), settings.outside, weights);
}

/**
 * The rows of a plan in the order of its file: every unit, or the parts that have rows of their own.
 *
 * @param {Data} data
 * @param {Rows} rows
 * @returns {Rows}
 */
export function inOrder(data, rows) {
  /** @type {Rows} */
  const made = new Map();
  for (const unit of data.units) {
    for (const name of [unit.name, ...unit.parts]) {
      const row = rows.get(name);
      if (row) made.set(name, unit.donated ? { safety: 0, language: 1, shares: null } : row);
    }
  }
  return made;
}

/**
 * Which table of shares a granularity looks at.
 *
 * @param {Data} data
 * @param {Settings} settings
 * @returns {string}
 */
export function tableOf(data, settings) {
  const by = settings.by ?? "module";
  const fixed = by === "expert" && settings.shared_experts !== "own" && "expert/fixed" in data.keys;
  const table = fixed ? "expert/fixed" : by;
  if (!(table in data.keys))
    throw new Refusal(`By ${by}: the model has none that its profile tells apart. Decide by module.`);
  return table;
}

/**
 * τ as a difference of shares.
 *
 * @param {Data} data
 * @param {Settings} settings
 * @returns {number}
 */
export function threshold(data, settings) {
  return settings.tau_relative ? settings.tau / data.keys[tableOf(data, settings)].length : settings.tau;
}

/**
 * Safety where its share is larger by more than τ, language where it is smaller by more; else blend.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {string} table
 * @param {Settings} settings
 * @returns {Choices}
 */
function decide(data, language, table, settings) {
  const own = language.tables[table];
  if (own.shares !== null) throw new Refusal(own.shares);
  const tau = threshold(data, settings);
  /** @type {Choices} */
  const choices = new Map();
  data.keys[table].forEach((key, n) => {
    const [safety, spoken] = [own.safety[n], own.language[n]];
    const difference = safety - spoken;
    const decision = difference > tau ? "safety" : difference < -tau ? "language" : "blend";
    choices.set(key, { decision, safety, language: spoken });
  });
  return choices;
}

/**
 * A blend where the two updates disagree in direction, else the language.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {string} table
 * @param {number} least cosine that is no disagreement
 * @returns {Choices}
 */
function disagreeing(data, language, table, least) {
  const own = language.tables[table];
  if (own.directions !== null) throw new Refusal(own.directions);
  return new Map(
    data.keys[table].map((key, n) => [key, only(own.cosines[n] < least ? "blend" : "language")]),
  );
}

/**
 * A decision that no share led to.
 *
 * @param {string} decision
 * @returns {Choice}
 */
function only(decision) {
  return { decision, safety: null, language: null };
}

/**
 * From decided keys to every unit of the layers, and to the parts that a policy decides.
 *
 * @param {Data} data
 * @param {string} table
 * @param {Choices} choices
 * @param {Settings} settings
 * @returns {Choices}
 */
function spread(data, table, choices, settings) {
  const byLayer = settings.by === "layer";
  /** @type {Record<string, string | null>} */
  const policies = { router: settings.router ?? null, shared_experts: settings.shared_experts ?? null };
  const follows = (/** @type {string | null} */ policy) =>
    policy === null || policy === "own" || policy === "follow";
  const layers = settings.norms === "follow" ? decisionsByLayer(choices, byLayer) : new Map();
  const parts = new Map(data.units.map((unit) => [unit.name, unit.parts]));
  /** @type {Choices} */
  const made = new Map();
  for (const [unit, kind, layer] of data.views[table]) {
    if (layer === null) continue;
    const policy = policies[kind] ?? null;
    if (kind === "norms")
      made.set(unit, only(settings.norms === "follow" ? (layers.get(layer) ?? "blend") : settings.norms));
    else if (!follows(policy)) made.set(unit, only(/** @type {string} */ (policy)));
    else if (kind !== "router") made.set(unit, /** @type {Choice} */ (choices.get(byLayer ? layer : unit)));
    if (settings.by === "expert") continue; // parts are units of their own there
    for (const part of parts.get(unit) ?? []) {
      const said = policies[part.slice(part.lastIndexOf(".") + 1)] ?? null;
      if (said !== null && said !== "follow") made.set(part, only(said));
    }
  }
  return made;
}

/**
 * The decision that all of a layer shares, else blend.
 *
 * @param {Choices} choices
 * @param {boolean} byLayer
 * @returns {Map<string, string>}
 */
function decisionsByLayer(choices, byLayer) {
  /** @type {Map<string, string>} */
  const found = new Map();
  for (const [key, { decision }] of choices) {
    const layer = byLayer ? key : layerOf(key);
    found.set(layer, (found.get(layer) ?? decision) === decision ? decision : "blend");
  }
  return found;
}

/**
 * The layer in a unit's name: `12` of `12.experts.3`, `encoder.2` of `encoder.2.mlp`.
 *
 * @param {string} unit
 * @returns {string}
 */
export function layerOf(unit) {
  return (/^(?:encoder\.|decoder\.)?\d+/.exec(unit) ?? [""])[0];
}

/**
 * @param {Data} data
 * @param {string} table
 * @param {Choices} choices
 * @param {string} outside the decision for what lies in no layer
 * @param {Swaps} weights decision → weights of safety and language
 * @returns {Rows}
 */
function rowsOf(data, table, choices, outside, weights) {
  /** @type {Rows} */
  const rows = new Map();
  const add = (/** @type {string} */ unit, /** @type {Choice} */ one) => {
    const [safety, language] = weights[one.decision];
    const known = one.safety !== null && one.language !== null;
    const shares = known ? /** @type {[number, number]} */ ([one.safety, one.language]) : null;
    rows.set(unit, { safety, language, shares });
  };
  for (const [unit, one] of choices) add(unit, one);
  for (const [unit, , layer] of data.views[table]) if (layer === null) add(unit, only(outside));
  return rows;
}

/**
 * The same weights in every unit; the modules' shares decide nothing.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {Settings} settings
 * @param {number} safety
 * @param {number} spoken
 * @returns {Rows}
 */
function uniform(data, language, settings, safety, spoken) {
  const at = new Map((data.keys.module ?? []).map((key, n) => [key, n]));
  return new Map(
    data.units.map(({ name, kind }) => {
      const kept = settings.skip_embeddings && (kind === "embeddings" || kind === "lm_head");
      const n = at.get(name);
      const shares =
        n === undefined
          ? null
          : /** @type {[number, number]} */ ([language.modules[0][n], language.modules[1][n]]);
      return [name, { safety: kept ? 0 : safety, language: kept ? 1 : spoken, shares }];
    }),
  );
}
