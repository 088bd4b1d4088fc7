// The method band: whole layers, counted from the bottom and the top, or given as windows.

/** @import { Choices, Data, Settings } from "./types" */
import { Refusal } from "./refusal.js";

/**
 * The windows of layers as a plan has them; they exclude counts of layers.
 *
 * @param {Settings} made
 */
export function settleWindows(made) {
  for (const name of ["bottom", "top", "transition_bottom", "transition_top"]) {
    if (made[name] !== null)
      throw new Refusal(
        `windows and ${name} exclude each other. Give the layers of safety as windows, or those of the language as bottom and top.`,
      );
  }
  made.windows = windowsOf(made.windows)
    .map(([a, b]) => (a < b ? `${a}-${b}` : `${a}`))
    .join(",");
}

/**
 * @param {string} text e.g. `8-23` or `4-9,14`
 * @returns {[number, number][]} first and last layer of each, from the bottom up
 */
function windowsOf(text) {
  const found = text.split(",").map((part) => /^(\d+)(?:-(\d+))?$/.exec(part.trim()));
  /** @type {[number, number][]} */
  const pairs = found.flatMap((m) =>
    m ? [/** @type {[number, number]} */ ([Number(m[1]), Number(m[2] ?? m[1])])] : [],
  );
  const ordered = pairs.every(([a, b], n) => a <= b && (n === 0 || a > pairs[n - 1][1]));
  if (pairs.length !== found.length || !ordered)
    throw new Refusal(
      `windows ${text} is not valid: give ranges of layers from the bottom up, both ends included, e.g. 8-23 or 4-9,14-20.`,
    );
  return pairs;
}

/** The source's layers out of 32. */
const OF_32 = { bottom: 5, top: 2, transition_bottom: 1, transition_top: 1 };

/**
 * Whole layers: safety inside the band, language outside it, encoder and decoder each for itself.
 *
 * @param {Data} data
 * @param {Settings} settings
 * @returns {Choices}
 */
export function band(data, settings) {
  /** @type {Map<string, number>} */
  const depths = new Map();
  for (const { label } of data.units) {
    if (label === null) continue;
    const [stack, layer] = placeOf(label);
    depths.set(stack, Math.max(depths.get(stack) ?? 0, layer + 1));
  }
  const made = new Map([...depths].map(([stack, layers]) => [stack, bandOf(layers, settings)]));
  /** @type {Choices} */
  const choices = new Map();
  for (const { name, label } of data.units) {
    if (label === null) continue;
    const [stack, layer] = placeOf(label);
    choices.set(name, {
      decision: /** @type {string[]} */ (made.get(stack))[layer],
      safety: null,
      language: null,
    });
  }
  return choices;
}

/**
 * @param {string} label of a layer
 * @returns {[string, number]} its stack and its number there
 */
function placeOf(label) {
  const at = label.lastIndexOf(".");
  return [label.slice(0, Math.max(0, at)), Number(label.slice(at + 1))];
}

/**
 * @param {number} layers of a stack
 * @param {Settings} settings
 * @returns {string[]} the decision of each layer, from the bottom
 */
function bandOf(layers, settings) {
  if (settings.windows != null) {
    const pairs = windowsOf(settings.windows);
    if (pairs[pairs.length - 1][1] >= layers)
      throw new Refusal(`windows ${settings.windows} is not valid: the model has layers 0 to ${layers - 1}.`);
    return Array.from({ length: layers }, (_, n) =>
      pairs.some(([a, b]) => a <= n && n <= b) ? "safety" : "language",
    );
  }
  const own = settings.bottom !== null || settings.top !== null;
  /** @param {"bottom" | "top" | "transition_bottom" | "transition_top"} name */
  const count = (name) => {
    if (settings[name] !== null) return settings[name];
    const scaled = Math.floor((2 * OF_32[name] * layers + 32) / 64);
    if (!name.startsWith("transition")) return Math.max(1, scaled);
    return own ? 0 : scaled;
  };
  const [bottom, lower, upper, top] = [
    count("bottom"),
    count("transition_bottom"),
    count("transition_top"),
    count("top"),
  ];
  if (bottom + lower + upper + top >= layers)
    throw new Refusal(
      `bottom ${bottom}, top ${top} and transitions ${lower} and ${upper} leave none of the ${layers} layers to safety. Give smaller ones.`,
    );
  return Array.from({ length: layers }, (_, n) => {
    if (n < bottom || n >= layers - top) return "language";
    return n < bottom + lower || n >= layers - top - upper ? "blend" : "safety";
  });
}
