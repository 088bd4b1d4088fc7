// A language's card: its map with units that can be set by hand, its numbers, and its file.

/** @import { Data } from "./types" */
/** @import { Chosen, Made } from "./state.js" */
import { walkable } from "../web/map.js";
import { make, one, say, sayWords, short } from "./dom.js";
import { drawing, whenSeen } from "./drawn_map.js";
import { shownBytes } from "./numbers.js";
import { planText } from "./plan.js";
import { threshold } from "./rules.js";
import { WORDS, commandOf, fileOf, nearest, settingsOf } from "./state.js";
import { unitsTable } from "./units_table.js";
import { countsLine, told } from "./words.js";

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
  /** @type {Made} */
  let now;

  const { set, maps } = handSet(data, chosen, n, article, () => now, changed);
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
    const noted = byHand
      ? `# without the ${byHand} ${byHand === 1 ? "unit" : "units"} set by hand: the downloaded file has them\n`
      : "";
    sayWords(
      one(article, ".again code", HTMLElement),
      `${noted}${commandOf(data, chosen, n)}\nsafeswap merge --plan ${fileOf(language)} --out OUT`,
    );
    showNearest(article, data, n, made);
    drawn();
  };
  return { show };
}

/**
 * Units that are set by hand: by clicks on cells, and by keys.
 *
 * @param {Data} data
 * @param {Chosen} chosen
 * @param {number} n which language
 * @param {HTMLElement} article
 * @param {() => Made} now the plan as it stands
 * @param {() => void} changed
 */
function handSet(data, chosen, n, article, now, changed) {
  const hand = chosen.hand[n];
  const readout = one(article, ".readout", HTMLElement);
  /** Units that a cell stands for: one, or all experts of a layer. @param {Element} cell */
  const unitsOf = (cell) => {
    const layer = cell.getAttribute("data-experts");
    if (layer === null) return [cell.getAttribute("data-unit") ?? ""];
    return [...now().rows.keys()].filter((unit) => unit.startsWith(`${layer}.experts.`));
  };
  /** @param {string[]} units @param {string} word empty gives them back to the rule */
  const set = (units, word) => {
    for (const unit of units) {
      if (word && now().rows.has(unit)) hand.set(unit, word);
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
    const walk = walkable(map, readout, (cell) => told(data, chosen, n, now(), unitsOf(cell)));
    map.addEventListener("click", (event) => {
      const cell = /** @type {Element} */ (event.target).closest("g.unit");
      if (cell) cycle(cell);
    });
    map.addEventListener("keydown", (event) => {
      const cell = walk.on();
      if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
      const word = /** @type {Record<string, string>} */ ({
        s: "safety",
        l: "language",
        b: "blend",
        r: "",
        delete: "",
        backspace: "",
      })[event.key.toLowerCase()];
      if (event.key === "Enter" || event.key === " ") cycle(cell);
      else if (word !== undefined) set(unitsOf(cell), word);
      else return;
      event.preventDefault();
    });
    return { map, walk, drawn: drawing(map, data, n) };
  });
  return { set, maps };
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
  say(
    one(article, ".bytes-words", HTMLElement),
    `Copied: ${copies.join(", ") || "nothing"}. Computed: ${shownBytes(computed)}.`,
  );
}

/** @param {HTMLElement} article @param {Data} data @param {number} n @param {Made} made */
function showNearest(article, data, n, made) {
  const place = article.querySelector(".nearest");
  if (!place) return;
  const found = nearest(data, n, made.totals);
  for (const mark of article.querySelectorAll("g.model"))
    mark.classList.toggle("near", mark.getAttribute("data-name") === found?.name);
  if (!found) return say(place, "No point has a plan to compare with.");
  const far =
    found.away < 1e-12
      ? "This very table was measured"
      : `The nearest measured point is ${short(100 * found.away, 2)} % of a weight away on average`;
  say(place, `${far}: ${found.told}`);
}
