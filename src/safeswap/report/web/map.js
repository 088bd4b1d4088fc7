// A map of decisions: what is said of the cell under the pointer or the arrow keys.

/**
 * A drawing of cells that the pointer and the arrow keys walk through.
 *
 * @param {HTMLElement} map the box that scrolls, with the drawing in it
 * @param {HTMLElement} readout where a cell's text goes
 * @param {(cell: Element) => string} told what is said of a cell
 * @returns {{on: () => Element | null, choose: (cell: Element) => void, say: () => void}} the cell
 *   that is chosen, a way to choose one, and to say it again
 */
export function walkable(map, readout, told) {
  const cells = () => [...map.querySelectorAll("g.unit")].filter((cell) => cell.getClientRects().length);
  /** @param {Element} cell */
  const at = (cell) => {
    const box = /** @type {Element} */ (cell.querySelector("rect"));
    return [Number(box.getAttribute("x")), Number(box.getAttribute("y"))];
  };
  /** @type {Element | null} */
  let on = null;
  const say = () => {
    if (on) readout.textContent = told(on);
  };
  /** @param {Element} cell */
  const choose = (cell) => {
    if (on) on.classList.remove("on");
    on = cell;
    on.classList.add("on");
    say();
    const [x] = at(on);
    if (x < map.scrollLeft || x > map.scrollLeft + map.clientWidth - 40)
      map.scrollLeft = x - map.clientWidth / 2;
  };
  map.addEventListener("pointerover", (event) => {
    const cell = /** @type {Element} */ (event.target).closest("g.unit");
    if (cell) choose(cell);
  });
  /** @type {Record<string, [number, number]>} */
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  map.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    const all = step ? cells() : [];
    if (!step || !all.length) return;
    event.preventDefault();
    if (!on || !all.includes(on)) return choose(all[0]);
    const [x, y] = at(on);
    // the nearest cell on that side, in the same row or column if there is one
    /** @param {Element} cell */
    const score = (cell) => {
      const [cx, cy] = at(cell);
      const along = (cx - x) * step[0] + (cy - y) * step[1];
      const aside = Math.abs(step[0] ? cy - y : cx - x);
      return along > 0.5 ? along + 1000 * aside : Infinity;
    };
    const next = all.reduce((best, cell) => (score(cell) < score(best) ? cell : best));
    if (score(next) < Infinity) choose(next);
  });
  map.addEventListener("focus", () => {
    const all = on ? [] : cells();
    if (all.length) choose(all[0]);
  });
  return { on: () => on, choose, say };
}
