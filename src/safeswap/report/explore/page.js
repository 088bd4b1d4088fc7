// The page: what is chosen, a card for each language, and all of them side by side.

/** @import { Data, Language } from "./types" */
/** @import { Chosen, Made } from "./state.js" */
import { card } from "./card.js";
import { controls } from "./controls.js";
import { one, say, short } from "./dom.js";
import { shownBytes } from "./numbers.js";
import { Refusal } from "./refusal.js";
import { threshold } from "./rules.js";
import { made, settingsOf } from "./state.js";
import { LETTERS } from "./words.js";

/** @type {Record<string, string>} */
const SYMBOLS = { tau: "τ", alpha: "α", gamma: "γ", scale: "λ" };

start(JSON.parse(one(document, "#data", HTMLScriptElement).textContent ?? ""));

/** @param {Data} data */
function start(data) {
  /** @type {Chosen} */
  const chosen = { method: data.methods[0].name, given: {}, hand: data.languages.map(() => new Map()) };
  const shown = data.languages.map(() => true);
  const form = controls(data, chosen, () => draw());
  const cards = data.languages.map((_, n) => card(data, chosen, n, () => draw()));
  const lines = [...one(document, "#summary", HTMLTableElement).tBodies[0].rows];

  const draw = () => {
    form.show();
    say(one(document, "#told", HTMLElement), inWords(data, chosen));
    data.languages.forEach((language, n) => {
      one(document, `article[data-language="${n}"]`, HTMLElement).hidden = !shown[n];
      if (!shown[n]) return fillLine(lines[n], []);
      const now = made(data, chosen, n);
      cards[n].show(now);
      fillLine(
        lines[n],
        now.refused === null ? numbersOf(data, language, now, chosen.hand[n].size) : ["refused"],
      );
    });
  };
  for (const box of document.querySelectorAll("#summary input")) {
    const tick = /** @type {HTMLInputElement} */ (box);
    tick.checked = true;
    tick.addEventListener("change", () => {
      shown[Number(tick.dataset.language)] = tick.checked;
      draw();
    });
  }
  draw();
  /**
   * @param {HTMLTableRowElement} line
   * @param {string[]} texts
   */
  function fillLine(line, texts) {
    [...line.cells].slice(1).forEach((cell, at) => say(cell, texts[at] ?? "–"));
  }
  document.documentElement.dataset.ready = "yes";
  performance.mark("safeswap-ready");
}

/**
 * A language's line in the table of all.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {Made} now
 * @param {number} byHand
 * @returns {string[]}
 */
function numbersOf(data, language, now, byHand) {
  const decided = ["attention", "cross_attention", "mixer", "mlp", "experts", "shared_experts"];
  const counts = Object.keys(LETTERS).map((word) =>
    decided.reduce((sum, kind) => sum + (now.counts.get(kind)?.get(word) ?? 0), 0),
  );
  const { computed, copied, weight, update } = { ...now.totals, update: updateOf(data, language, now) };
  const copies = copied.safety + copied.language + copied.base;
  const percent = (/** @type {number} */ part) => `${(100 * part).toFixed(1)} %`;
  return [
    ...counts.map(String),
    String(byHand),
    shownBytes(copies),
    shownBytes(computed),
    short(weight[0], 3),
    percent(update[0]),
    short(weight[1], 3),
    percent(update[1]),
  ];
}

/**
 * How much of each expert's own update goes in: its weights, by its shares of the modules.
 *
 * @param {Data} data
 * @param {Language} language
 * @param {Made} now
 * @returns {[number, number]}
 */
function updateOf(data, language, now) {
  const at = new Map(data.units.map(({ name }, k) => [name, k]));
  let [safety, spoken] = [0, 0];
  data.keys.module.forEach((key, n) => {
    const [one_, other] = now.totals.units[at.get(key) ?? -1];
    safety += one_ * language.modules[0][n];
    spoken += other * language.modules[1][n];
  });
  return [safety, spoken];
}

/**
 * What is chosen, in a line; the page printed tells it.
 *
 * @param {Data} data
 * @param {Chosen} chosen
 * @returns {string}
 */
function inWords(data, chosen) {
  try {
    const settings = settingsOf(data, chosen);
    const said = Object.entries(settings).flatMap(([name, value]) => {
      if (value === null || name === "by" || name === "tau_relative") return [];
      const symbol = SYMBOLS[name] ?? name.replaceAll("_", " ");
      if (name !== "tau") return [`${symbol} = ${typeof value === "number" ? short(value) : String(value)}`];
      const points = short(100 * threshold(data, settings));
      return [`τ = ${settings.tau_relative ? `${short(value)} × mean share = ` : ""}${points} points`];
    });
    return [`${chosen.method}${settings.by ? ` by ${settings.by}` : ""}`, ...said].join(", ");
  } catch (error) {
    if (error instanceof Refusal) return error.message;
    throw error;
  }
}
