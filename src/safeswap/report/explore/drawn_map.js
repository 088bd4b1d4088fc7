// The map of a card: cells, bars and the lines at ±τ as Python drew them, changed as decisions do.

/** @import { Data } from "./types" */
/** @import { Made } from "./state.js" */
import { one, say } from "./dom.js";
import { decisionOf, expertsOf } from "./plan.js";
import { layerOf } from "./rules.js";
import { LETTERS } from "./words.js";

/**
 * Cells and bars of a drawing, changed where a decision does.
 *
 * @param {HTMLElement} map
 * @param {Data} data
 * @param {number} n which language
 * @returns {(made: Made, hand: Map<string, string>, decides: boolean, tau: number | null) => void}
 */
export function drawing(map, data, n) {
  const cells = [...map.querySelectorAll("g.unit[data-unit]")].map((cell) => ({
    cell,
    unit: cell.getAttribute("data-unit") ?? "",
    letter: cell.querySelector("text"),
  }));
  /** @type {Map<string, Element[]>} */
  const layers = new Map();
  for (const cell of map.querySelectorAll("g.unit[data-experts]")) {
    const layer = cell.getAttribute("data-experts") ?? "";
    layers.set(layer, [...(layers.get(layer) ?? []), cell]);
  }
  const stacks = [...layers].map(([layer, parts]) => stackOf(layer, parts));
  const leaning = leans(data, n, map.dataset.view === "layer");
  const bars = [...map.querySelectorAll("rect.bar")].map((bar) => ({
    bar,
    unit: bar.getAttribute("data-unit") ?? "",
  }));
  const lines = [...map.querySelectorAll("line.tau")];
  return (made, hand, decides, tau) => {
    for (const { cell, unit, letter } of cells) {
      const row = made.rows.get(unit);
      const kind = row ? decisionOf(row) : "";
      const key = made.unsure.has(unit) || made.unsure.has(layerOf(unit));
      dress(cell, `unit ${kind}${hand.has(unit) && row ? " hand" : ""}${key ? " unsure" : ""}`);
      if (letter) say(letter, LETTERS[kind] ?? "");
    }
    for (const stack of stacks) stack(made, hand);
    for (const { bar, unit } of bars) {
      const row = made.rule.get(unit); // an mlp of experts that are decided apart has none
      dress(bar, `bar ${decides && row ? decisionOf(row) : leaning(unit)}`);
    }
    for (const line of lines) place(line, tau);
  };
}

/**
 * Which expert moved more in a unit, by shares of modules or layers.
 *
 * @param {Data} data
 * @param {number} n which language
 * @param {boolean} byLayer
 * @returns {(unit: string) => string}
 */
function leans(data, n, byLayer) {
  const language = data.languages[n];
  const { safety, language: spoken } = language.tables.layer;
  const [one_, other] = byLayer ? [safety, spoken] : [language.modules[0] ?? [], language.modules[1] ?? []];
  const at = new Map(data.keys[byLayer ? "layer" : "module"].map((key, k) => [key, k]));
  return (unit) => {
    const k = at.get(byLayer ? layerOf(unit) : unit) ?? -1;
    return one_[k] > other[k] ? "safety" : "language";
  };
}

/** What each element was dressed in: asking this is faster than asking the page. */
const DRESSED = new WeakMap();

/** @param {Element} element @param {string} classes */
function dress(element, classes) {
  if (DRESSED.get(element) === classes) return;
  DRESSED.set(element, classes);
  element.setAttribute("class", element.classList.contains("on") ? `${classes} on` : classes);
}

/**
 * The cell of a layer's experts, divided as they are decided.
 *
 * @param {string} layer
 * @param {Element[]} parts as Python drew them: the first one stays, the rest go
 * @returns {(made: Made, hand: Map<string, string>) => void}
 */
function stackOf(layer, parts) {
  const [cell, ...rest] = parts;
  for (const part of rest) part.remove();
  const box = one(cell, "rect", SVGRectElement);
  const heights = parts.map((part) =>
    Number(part.querySelector("rect")?.getAttribute("height") ?? box.getAttribute("height")),
  );
  const all = heights.reduce((a, b) => a + b, 0);
  const top = Number(box.getAttribute("y"));
  let drawn = "";
  return (made, hand) => {
    /** @type {Map<string, number>} */
    const counts = new Map(["safety", "mix", "blend", "base", "language"].map((kind) => [kind, 0]));
    let [sum, byHand] = [0, false];
    for (const unit of expertsOf(layer, 0)) {
      const row = made.rows.get(unit);
      if (!row) continue;
      const kind = decisionOf(row);
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
      byHand = byHand || hand.has(unit);
      sum += 1;
    }
    dress(cell, `unit${byHand ? " hand" : ""}`);
    const key = [...counts.values()].join();
    if (key === drawn || !sum) return;
    drawn = key;
    let y = top;
    const boxes = [...counts]
      .filter(([, count]) => count)
      .map(([kind, count]) => {
        const rect = /** @type {Element} */ (box.cloneNode());
        const high = (all * count) / sum;
        rect.setAttribute("y", String(y));
        rect.setAttribute("height", String(high));
        rect.setAttribute("class", kind);
        y += high;
        return rect;
      });
    cell.replaceChildren(...boxes);
  };
}

/** @param {Element} line one of ±τ @param {number | null} tau */
function place(line, tau) {
  const [sign, zero, scale, half] = ["sign", "zero", "scale", "half"].map((name) =>
    Number(line.getAttribute(`data-${name}`)),
  );
  const away = tau === null ? Infinity : 100 * tau * scale;
  line.classList.toggle("off", away > half);
  if (away > half) return;
  line.setAttribute("y1", String(zero - sign * away));
  line.setAttribute("y2", String(zero - sign * away));
}

/**
 * Drawing that waits until its place is in the window, or near it, or printed.
 *
 * @param {HTMLElement} place
 * @param {() => void} draw
 * @returns {() => void} draws now, or then
 */
export function whenSeen(place, draw) {
  let [seen, due] = [false, false];
  const drawn = () => {
    due = !seen;
    if (seen) draw();
  };
  new IntersectionObserver(
    (changes) => {
      seen = changes[changes.length - 1].isIntersecting;
      if (due) drawn();
    },
    { rootMargin: "25%" },
  ).observe(place);
  addEventListener("beforeprint", () => {
    if (due) draw();
  });
  return drawn;
}
