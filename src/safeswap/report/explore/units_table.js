// All units as a table, built when it is first opened: the way for fingers, and to single experts.

/** @import { Row } from "./types" */
/** @import { Made } from "./state.js" */
import { make, one, say, short } from "./dom.js";
import { decisionOf } from "./plan.js";

/**
 * @param {HTMLDetailsElement} details
 * @param {Map<string, string>} hand
 * @param {(units: string[], word: string) => void} set
 * @returns {{show: (made: Made) => void}}
 */
export function unitsTable(details, hand, set) {
  const body = one(details, "tbody", HTMLTableSectionElement);
  /** @type {Made | null} */
  let now = null;
  /** @type {Map<string, {row: HTMLTableRowElement, select: HTMLSelectElement, cells: HTMLTableCellElement[]}>} */
  let lines = new Map();

  /** @param {string} unit */
  const line = (unit) => {
    const row = make("tr");
    const head = make("th", unit);
    head.scope = "row";
    const select = make("select");
    select.setAttribute("aria-label", `${unit} is`);
    select.append(
      new Option("", ""),
      ...["safety", "language", "blend", "base"].map((word) => new Option(`${word}, by hand`, word)),
    );
    select.addEventListener("change", () => set([unit], select.value));
    const place = make("td");
    place.append(select);
    const cells = [0, 1, 2, 3].map(() => make("td", "", "right"));
    row.append(head, place, ...cells);
    return { row, select, cells };
  };

  const draw = () => {
    if (!now || !details.open) return;
    const shown = [...now.rows].filter(([unit]) => !/\.experts\.\d+$/.test(unit));
    if (shown.length !== lines.size || shown.some(([unit]) => !lines.has(unit))) {
      lines = new Map(shown.map(([unit]) => [unit, line(unit)]));
      body.replaceChildren(...[...lines.values()].map(({ row }) => row));
    }
    for (const [unit, row] of shown)
      fillLine(/** @type {any} */ (lines.get(unit)), row, now.rule.get(unit), hand.get(unit));
  };
  details.addEventListener("toggle", draw);

  const form = one(details, "form", HTMLFormElement);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const unit = one(form, "input", HTMLInputElement).value.trim();
    const known = Boolean(now?.rows.has(unit));
    say(
      one(form, "output", HTMLOutputElement),
      known
        ? `${unit} is set.`
        : "No row of this plan is called so: 3.mlp, 0.attention, 5.experts.7, embeddings are such names.",
    );
    if (known) set([unit], one(form, "select", HTMLSelectElement).value);
  });
  return {
    show: (made) => {
      now = made;
      draw();
    },
  };
}

/**
 * @param {{select: HTMLSelectElement, cells: HTMLTableCellElement[]}} line
 * @param {Row} row
 * @param {Row | undefined} rule what the method says
 * @param {string | undefined} word what was set by hand
 */
function fillLine({ select, cells }, row, rule, word) {
  say(select.options[0], `${rule ? decisionOf(rule) : ""}, by the rule`);
  if (select.value !== (word ?? "")) select.value = word ?? "";
  say(cells[0], short(row.safety));
  say(cells[1], short(row.language));
  const shares = row.shares;
  say(cells[2], shares ? `${(100 * shares[0]).toFixed(3)} / ${(100 * shares[1]).toFixed(3)}` : "–");
  say(
    cells[3],
    shares ? `${shares[0] < shares[1] ? "" : "+"}${(100 * (shares[0] - shares[1])).toFixed(3)}` : "–",
  );
}
