import { walkable } from "../web/map.js";

// Two things: what a map of decisions says of the cell under the pointer or the arrow keys, and the
// browser of answers. Texts of others only ever become textContent, never markup.

/** @import {Given, Group, Index, Question, Texts, Verdict} from "./types" */

/** @param {string} tag @param {string} [className] @param {string} [text] */
const make = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

/** An element of the page that is always there. @param {string} id */
const byId = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

// --- the maps of decisions ------------------------------------------------------------------
for (const map of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".map"))) {
  const readout = /** @type {HTMLElement} */ (map.parentElement?.querySelector(".readout"));
  walkable(map, readout, (cell) => cell.querySelector("title")?.textContent ?? "");
}

// --- the browser of answers -----------------------------------------------------------------
const holder = document.getElementById("index");
if (holder) browse(JSON.parse(holder.textContent ?? ""));

/** @param {Index} index */
function browse(index) {
  const PAGE = 10;
  const form = /** @type {HTMLFormElement} */ (byId("filters"));
  const [list, place] = [byId("questions"), byId("place")];
  const pagers = /** @type {HTMLElement[]} */ ([...document.querySelectorAll(".pager")]);
  const parts = [...document.querySelectorAll("script.texts")];
  /** @param {string} name */
  const select = (name) => /** @type {HTMLSelectElement} */ (form.elements.namedItem(name));
  /** @param {string} name */
  const box = (name) => /** @type {HTMLInputElement} */ (form.elements.namedItem(name));
  /** @param {Element} control */
  const hide = (control) => {
    const label = control.closest("label");
    if (label) label.hidden = true;
  };
  /** @type {Map<number, Texts[]>} */
  const parsed = new Map(); // a part is read when one of its questions is looked at
  let shown = index.rows.map((_, n) => n);
  let first = 0;

  /** @type {Question[]} */
  const questions = index.rows.map(([group, benchmark, language, id, tags, discordant, disagree, harmful, verdicts]) => ({
    group, benchmark, language, id, tags, discordant, disagree, harmful, verdicts,
    flags: [...new Set(verdicts.flat().flatMap((verdict) => (verdict ? verdict[2] : [])))],
  }));
  /** @param {number} n */
  const texts = (n) => {
    const part = Math.floor(n / index.chunk);
    let found = parsed.get(part);
    if (!found) {
      if (parsed.size > 8) parsed.clear();
      found = /** @type {Texts[]} */ (JSON.parse(parts[part].textContent ?? "[]"));
      parsed.set(part, found);
    }
    return found[n % index.chunk];
  };

  /** @param {string} name @param {string[]} values */
  const fill = (name, values, label = (/** @type {string} */ value) => value) => {
    const found = [...new Set(values)];
    select(name).append(new Option("all", ""), ...found.map((value) => new Option(label(value), value)));
    if (found.length < (name === "group" ? 2 : 1)) hide(select(name));
  };
  fill("group", questions.map((q) => String(q.group)), (n) => index.groups[Number(n)].name);
  fill("benchmark", questions.map((q) => q.benchmark));
  fill("language", questions.map((q) => q.language));
  fill("tag", questions.flatMap((q) => q.tags).sort());
  fill("flag", questions.flatMap((q) => q.flags).sort());

  /** @type {Record<string, (q: Question) => boolean>} */
  const is = { discordant: (q) => q.discordant, disagree: (q) => q.disagree.length > 0 };
  for (const [name, holds] of Object.entries(is)) {
    byId(`${name}-count`).textContent = `(${questions.filter(holds).length})`;
  }
  if (index.groups.every((group) => group.judges.length < 2)) hide(box("disagree"));

  /** @param {Question} q */
  const matches = (q) => {
    const names = ["group", "benchmark", "language", "tag", "flag"];
    const asked = Object.fromEntries(names.map((name) => [name, select(name).value]));
    return (
      (!asked.group || String(q.group) === asked.group) &&
      (!asked.benchmark || q.benchmark === asked.benchmark) &&
      (!asked.language || q.language === asked.language) &&
      (!asked.tag || q.tags.includes(asked.tag)) &&
      (!asked.flag || q.flags.includes(asked.flag)) &&
      (!box("discordant").checked || is.discordant(q)) &&
      (!box("disagree").checked || is.disagree(q))
    );
  };

  /** @param {string} text @param {string} language */
  const said = (text, language, className = "") => {
    const made = make("div", text ? `said ${className}` : "said none", text || "(nothing)");
    made.dir = "auto";
    if (/^[a-z]{2,3}(-[A-Za-z0-9]+)*$/.test(language)) made.lang = language;
    if (text.length > 600) made.tabIndex = 0; // it may scroll
    return made;
  };
  /** @param {string} summary @param {HTMLElement} inside */
  const folded = (summary, inside) => {
    const made = make("details");
    made.append(make("summary", "", summary), inside);
    return made;
  };
  /** @param {string} summary @param {HTMLElement} inside @param {boolean} harmful */
  const covered = (summary, inside, harmful) =>
    harmful && !box("reveal").checked ? folded(summary, inside) : inside;

  /** @param {(Verdict | null)[]} verdicts @param {string[]} judges */
  const badges = (verdicts, judges) =>
    verdicts.flatMap((verdict, n) => {
      if (!verdict) return [];
      const [word, refusal, flags, categories] = verdict;
      const refuses = refusal === null ? [] : [refusal ? "refuses" : "does not refuse"];
      const all = [word, ...refuses, ...flags, ...categories].join(", ");
      return [make("span", `badge ${word === "controversial" ? "unsafe" : word}`, `${judges[n]}: ${all}`)];
    });

  /** @type {Record<string, string>} */
  const unusual = { length: "cut off", filtered: "withheld" };
  /**
   * @param {Question} q @param {Group} group @param {number} model
   * @param {Given | null} given @param {(Verdict | null)[]} verdicts
   */
  const answer = (q, group, model, given, verdicts) => {
    const [name, role] = group.models[model];
    const made = make("section", `answer ${role}`);
    const head = make("h4");
    head.append(make("bdi", "", name));
    made.append(head);
    if (!given) {
      made.append(make("div", "said none", "not asked"));
      return made;
    }
    const [text, thought, ended] = given;
    made.append(...badges(verdicts, group.judges));
    if (q.disagree.includes(model)) made.append(make("span", "badge disputed", "judges disagree"));
    if (ended && ended !== "stop") made.append(make("span", "badge", unusual[ended] || ended));
    const judged = verdicts.filter((verdict) => verdict !== null);
    const safe = judged.length > 0 && judged.every((verdict) => verdict[0] === "safe" || verdict[0] === "invalid");
    const harmful = judged.some((verdict) => verdict[0] === "unsafe" || verdict[0] === "controversial") || (q.harmful && !safe);
    if (thought) made.append(folded("What it thought", said(thought, q.language)));
    const why = safe || !judged.length ? "not judged" : "that may harm";
    made.append(covered(`Show an answer ${why}`, said(text, q.language), harmful));
    return made;
  };

  /** @param {number} n */
  const question = (n) => {
    const q = questions[n];
    const group = index.groups[q.group];
    const [prompt, reference, answers] = texts(n);
    const made = make("article", "question");
    const head = make("div", "head");
    head.append(make("b", "", `${q.benchmark} · ${q.language}`), make("bdi", "", q.id));
    if (q.discordant) head.append(make("span", "badge", "models differ"));
    if (is.disagree(q)) head.append(make("span", "badge", "judges disagree"));
    for (const tag of q.tags) head.append(make("span", "badge", tag));
    const asked = make("div");
    asked.append(said(prompt, q.language, "prompt"));
    if (reference) asked.append(said(reference, "en"));
    const side = make("div", "answers");
    side.append(...answers.map((given, model) => answer(q, group, model, given, q.verdicts[model])));
    made.append(head, covered("Show a harmful prompt", asked, q.harmful), side);
    return made;
  };

  const draw = () => {
    const last = Math.min(first + PAGE, shown.length);
    list.replaceChildren(...shown.slice(first, last).map(question));
    place.textContent = shown.length ? `${first + 1} to ${last} of ${shown.length}` : "no question is like this";
    const buttons = /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll(".pager button"));
    for (const button of buttons) {
      button.disabled = button.dataset.step === "1" ? last >= shown.length : first === 0;
    }
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target !== box("reveal")) {
      first = 0;
      shown = questions.flatMap((q, n) => (matches(q) ? [n] : []));
    }
    draw();
  });
  for (const pager of pagers) {
    pager.hidden = false;
    pager.addEventListener("click", (event) => {
      const step = /** @type {HTMLElement} */ (event.target).dataset.step;
      if (!step) return;
      first = Math.max(0, first + Number(step) * PAGE);
      draw();
      if (pager === pagers[1]) form.scrollIntoView();
    });
  }
  form.hidden = false;
  draw();
}
