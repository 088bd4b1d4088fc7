// A language's card: its map with units that can be set by hand, its numbers, and its file.

/** @import { Data, Row } from "./types" */
/** @import { Chosen, Made } from "./state.js" */
import { walkable } from "../web/map.js";
import { make, one, say, short } from "./dom.js";
import { shownBytes } from "./numbers.js";
import { countsOf, decisionOf, planText } from "./plan.js";
import { layerOf, tableOf, threshold } from "./rules.js";
import { WORDS, commandOf, fileOf, nearest, settingsOf } from "./state.js";
import { unitsTable } from "./units_table.js";

/** @type {Record<string, string>} */
const LETTERS = { safety: "S", language: "L", blend: "·", mix: "+", base: "B" };

/**
 * The card of a language, bound to its article.
 *
 * @param {Data} data
 * @param {Chosen} chosen
 * @param {number} n which language
 * @param {() => void} changed called after units were set by hand
 * @returns {{show: (now: Made) => void}}
 */
export function card(data, chosen, n, changed) {
  const article = one(document, `article[data-language="${n}"]`, HTMLElement);
  const language = data.languages[n];
  const hand = chosen.hand[n];
  const readout = one(article, ".readout", HTMLElement);
  /** @type {Made} */
  let now;

  /** Units that a cell stands for: one, or all experts of a layer. @param {Element} cell */
  const unitsOf = (cell) => {
    const layer = cell.getAttribute("data-experts");
    if (layer === null) return [cell.getAttribute("data-unit") ?? ""];
    return [...now.rows.keys()].filter((unit) => unit.startsWith(`${layer}.experts.`));
  };
  /** @param {string[]} units @param {string} word empty gives them back to the rule */
  const set = (units, word) => {
    for (const unit of units) {
      if (word && now.rows.has(unit)) hand.set(unit, word);
      else hand.delete(unit);
    }
    changed();
  };
  /** @param {Element} cell */
  const cycle = (cell) => {
    const units = unitsOf(cell);
    const at = WORDS.indexOf(hand.get(units[0]) ?? "");
    set(units, WORDS[at + 1] ?? "");
  };
  const maps = [...article.querySelectorAll(".map")].map((box) => {
    const map = /** @type {HTMLElement} */ (box);
    const walk = walkable(map, readout, (cell) => told(data, chosen, n, now, unitsOf(cell)));
    map.addEventListener("click", (event) => {
      const cell = /** @type {Element} */ (event.target).closest("g.unit");
      if (cell) cycle(cell);
    });
    map.addEventListener("keydown", (event) => {
      const cell = walk.on();
      if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
      const word = /** @type {Record<string, string>} */ ({ s: "safety", l: "language", b: "blend", r: "", Delete: "", Backspace: "" })[event.key];
      if (event.key === "Enter" || event.key === " ") cycle(cell);
      else if (word !== undefined) set(unitsOf(cell), word);
      else return;
      event.preventDefault();
    });
    return { map, walk, drawn: drawing(map, data, n) };
  });
  const table = unitsTable(one(article, "details.units", HTMLDetailsElement), hand, set);

  one(article, ".download", HTMLButtonElement).addEventListener("click", () => {
    const text = planText(data, language, chosen.method, settingsOf(data, chosen), now.rows);
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/yaml" }));
    link.download = fileOf(language);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  });
  const undo = one(article, ".undo", HTMLButtonElement);
  undo.addEventListener("click", () => {
    hand.clear();
    changed();
    one(article, ".download", HTMLButtonElement).focus();
  });

  const draw = () => {
    if (now.refused !== null) return;
    const settings = settingsOf(data, chosen);
    const tau = "tau" in settings ? threshold(data, settings) : null;
    for (const { map, walk, drawn } of maps) {
      if (map.hidden) continue;
      drawn(now, hand, "by" in settings || chosen.method === "band", tau);
      walk.say();
    }
    table.show(now);
  };
  const drawn = whenSeen(article, draw);

  /** @param {Made} made */
  const show = (made) => {
    now = made;
    const words = one(article, ".refused-words", HTMLElement);
    words.hidden = made.refused === null;
    say(words, made.refused ?? "");
    one(article, ".body", HTMLElement).hidden = made.refused !== null;
    if (made.refused !== null) return;
    const settings = settingsOf(data, chosen);
    for (const { map } of maps) map.hidden = map.dataset.view !== (settings.by ?? "module");
    const byHand = [...hand.keys()].filter((unit) => made.rows.has(unit)).length;
    say(one(article, ".counts", HTMLElement), countsLine(made) + (byHand ? ` — ${byHand} by hand` : ""));
    showBytes(article, made);
    undo.hidden = hand.size === 0;
    const noted = byHand ? `# without the ${byHand} units that were set by hand: the downloaded file has them\n` : "";
    say(one(article, ".again code", HTMLElement), `${noted}${commandOf(data, chosen, n)}\nsafeswap merge --plan ${fileOf(language)} --out OUT`);
    showNearest(article, data, n, made);
    drawn();
  };
  return { show };
}

/**
 * Drawing that waits until its place is in the window, or near it, or printed.
 *
 * @param {HTMLElement} place
 * @param {() => void} draw
 * @returns {() => void} draws now, or then
 */
function whenSeen(place, draw) {
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

/**
 * Cells and bars of a drawing, changed where a decision does.
 *
 * @param {HTMLElement} map
 * @param {Data} data
 * @param {number} n which language
 * @returns {(made: Made, hand: Map<string, string>, decides: boolean, tau: number | null) => void}
 */
function drawing(map, data, n) {
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
  const index = new Map(data.units.map(({ name }, at) => [name, at]));
  const leaning = leans(data, n, map.dataset.view === "layer");
  const bars = [...map.querySelectorAll("rect.bar")].map((bar) => ({ bar, unit: bar.getAttribute("data-unit") ?? "" }));
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
      const at = index.get(unit);
      const row = made.rule.get(unit) ?? (at === undefined ? undefined : meanOf(made.totals.units[at]));
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

/** @param {[number, number]} weights @returns {Row} */
function meanOf([safety, language]) {
  return { safety, language, shares: null };
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
  const heights = parts.map((part) => Number(part.querySelector("rect")?.getAttribute("height") ?? box.getAttribute("height")));
  const all = heights.reduce((a, b) => a + b, 0);
  const top = Number(box.getAttribute("y"));
  let drawn = "";
  return (made, hand) => {
    /** @type {Map<string, number>} */
    const counts = new Map(["safety", "mix", "blend", "base", "language"].map((kind) => [kind, 0]));
    let [sum, byHand] = [0, false];
    for (let e = 0; ; e += 1) {
      const row = made.rows.get(`${layer}.experts.${e}`);
      if (!row) break;
      const kind = decisionOf(row);
      counts.set(kind, (counts.get(kind) ?? 0) + 1);
      byHand = byHand || hand.has(`${layer}.experts.${e}`);
      sum += 1;
    }
    dress(cell, `unit${byHand ? " hand" : ""}`);
    const key = [...counts.values()].join();
    if (key === drawn || !sum) return;
    drawn = key;
    let y = top;
    const boxes = [...counts].filter(([, count]) => count).map(([kind, count]) => {
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
  const [sign, zero, scale, half] = ["sign", "zero", "scale", "half"].map((name) => Number(line.getAttribute(`data-${name}`)));
  const away = tau === null ? Infinity : 100 * tau * scale;
  line.classList.toggle("off", away > half);
  if (away > half) return;
  line.setAttribute("y1", String(zero - sign * away));
  line.setAttribute("y2", String(zero - sign * away));
}

/** @param {Made} made @returns {string} how many of each kind of unit got which decision */
function countsLine(made) {
  const kinds = ["attention", "cross_attention", "mixer", "mlp", "router", "shared_experts", "experts"];
  const counts = countsOf(made.rows);
  return kinds
    .filter((kind) => counts.has(kind))
    .map((kind) => `${kind.replace("_", " ")}: ${ordered(counts.get(kind))}`)
    .join("; ");
}

/** @param {Map<string, number> | undefined} counts @returns {string} */
function ordered(counts) {
  return Object.keys(LETTERS).flatMap((word) => (counts?.get(word) ? [`${counts.get(word)} ${word}`] : [])).join(", ");
}

/** @param {HTMLElement} article @param {Made} made */
function showBytes(article, made) {
  const { all, computed, copied } = made.totals;
  const parts = [copied.safety, copied.language, copied.base, computed];
  let x = 0;
  [...article.querySelectorAll("svg.bytes rect")].forEach((rect, n) => {
    const wide = all ? (100 * parts[n]) / all : 0;
    rect.setAttribute("x", String(x));
    rect.setAttribute("width", String(wide));
    x += wide;
  });
  const names = ["from safety", "from the language", "from the base"];
  const copies = parts.slice(0, 3).flatMap((bytes, n) => (bytes ? [`${shownBytes(bytes)} ${names[n]}`] : []));
  say(one(article, ".bytes-words", HTMLElement), `Copied: ${copies.join(", ") || "nothing"}. Computed: ${shownBytes(computed)}.`);
}

/** @param {HTMLElement} article @param {Data} data @param {number} n @param {Made} made */
function showNearest(article, data, n, made) {
  const place = article.querySelector(".nearest");
  if (!place) return;
  const found = nearest(data, n, made.totals);
  for (const mark of article.querySelectorAll("g.model")) mark.classList.toggle("near", mark.getAttribute("data-name") === found?.name);
  if (!found) return say(place, "No point has a plan to compare with.");
  const far = found.away < 1e-12 ? "This very table was measured" : `The nearest measured point is ${short(100 * found.away, 2)} % of a weight away on average`;
  say(place, `${far}: ${found.told}`);
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
function told(data, chosen, n, made, units) {
  const hand = chosen.hand[n];
  if (units.length !== 1) {
    const counts = countsOf(new Map(units.map((unit) => [unit, /** @type {Row} */ (made.rows.get(unit))]))).get("experts");
    const byHand = units.filter((unit) => hand.has(unit)).length;
    return `${layerOf(units[0] ?? "")}.experts, ${units.length}: ${ordered(counts)}${byHand ? `; ${byHand} by hand` : ""}. The table below sets one of them.`;
  }
  const [unit] = units;
  const row = made.rows.get(unit);
  if (!row) return `${unit}: goes as its mlp or as the policy says; it has no row of its own`;
  const name = data.languages[n].shown;
  const said = [`${unit}: ${decisionOf(row)}${hand.has(unit) ? ", by hand" : ""}`, `weights safety ${short(row.safety)}, ${name} ${short(row.language)}`];
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
  if (made.unsure.has(unit) || made.unsure.has(layerOf(unit))) said.push("not certain: a part of the weights was read");
  return said.join("; ");
}
