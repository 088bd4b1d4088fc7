import { walkable } from "../web/map.js";

// Two things: what a map of decisions says of the cell under the pointer or the arrow keys, and the
// browser of answers. Texts of others only ever become textContent, never markup.

const make = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// --- the maps of decisions ------------------------------------------------------------------
for (const map of document.querySelectorAll(".map")) {
  walkable(map, map.parentElement.querySelector(".readout"), (cell) => cell.querySelector("title").textContent);
}

// --- the browser of answers -----------------------------------------------------------------
const holder = document.getElementById("index");
if (holder) browse(JSON.parse(holder.textContent));

function browse(index) {
  const PAGE = 10;
  const form = document.getElementById("filters");
  const list = document.getElementById("questions");
  const place = document.getElementById("place");
  const pagers = [...document.querySelectorAll(".pager")];
  const parts = [...document.querySelectorAll("script.texts")];
  const parsed = new Map(); // a part is read when one of its questions is looked at
  let shown = index.rows.map((_, n) => n);
  let first = 0;

  const questions = index.rows.map(([group, benchmark, language, id, tags, discordant, disagree, harmful, verdicts]) => ({
    group, benchmark, language, id, tags, discordant, disagree, harmful, verdicts,
    flags: [...new Set(verdicts.flat().flatMap((verdict) => (verdict ? verdict[2] : [])))],
  }));
  const texts = (n) => {
    const part = Math.floor(n / index.chunk);
    if (!parsed.has(part)) {
      if (parsed.size > 8) parsed.clear();
      parsed.set(part, JSON.parse(parts[part].textContent));
    }
    return parsed.get(part)[n % index.chunk];
  };

  const fill = (name, values, label = (value) => value) => {
    const select = form.elements[name];
    const found = [...new Set(values)];
    select.append(new Option("all", ""), ...found.map((value) => new Option(label(value), value)));
    if (found.length < (name === "group" ? 2 : 1)) select.closest("label").hidden = true;
  };
  fill("group", questions.map((q) => String(q.group)), (n) => index.groups[Number(n)].name);
  fill("benchmark", questions.map((q) => q.benchmark));
  fill("language", questions.map((q) => q.language));
  fill("tag", questions.flatMap((q) => q.tags).sort());
  fill("flag", questions.flatMap((q) => q.flags).sort());

  const is = { discordant: (q) => q.discordant, disagree: (q) => q.disagree.length };
  for (const name of ["discordant", "disagree"]) {
    document.getElementById(`${name}-count`).textContent = `(${questions.filter((q) => is[name](q)).length})`;
  }
  if (index.groups.every((group) => group.judges.length < 2)) form.elements.disagree.closest("label").hidden = true;

  const matches = (q) => {
    const asked = Object.fromEntries(["group", "benchmark", "language", "tag", "flag"].map((name) => [name, form.elements[name].value]));
    return (
      (!asked.group || String(q.group) === asked.group) &&
      (!asked.benchmark || q.benchmark === asked.benchmark) &&
      (!asked.language || q.language === asked.language) &&
      (!asked.tag || q.tags.includes(asked.tag)) &&
      (!asked.flag || q.flags.includes(asked.flag)) &&
      (!form.elements.discordant.checked || is.discordant(q)) &&
      (!form.elements.disagree.checked || is.disagree(q))
    );
  };

  const said = (text, language, className = "") => {
    const made = make("div", text ? `said ${className}` : "said none", text || "(nothing)");
    made.dir = "auto";
    if (/^[a-z]{2,3}(-[A-Za-z0-9]+)*$/.test(language)) made.lang = language;
    if (text.length > 600) made.tabIndex = 0; // it may scroll
    return made;
  };
  const folded = (summary, inside) => {
    const made = make("details");
    made.append(make("summary", "", summary), inside);
    return made;
  };
  const covered = (summary, inside, harmful) =>
    harmful && !form.elements.reveal.checked ? folded(summary, inside) : inside;

  const badges = (verdicts, judges) =>
    verdicts.flatMap((verdict, n) => {
      if (!verdict) return [];
      const [word, refusal, flags, categories] = verdict;
      const refuses = refusal === null ? [] : [refusal ? "refuses" : "does not refuse"];
      const all = [word, ...refuses, ...flags, ...categories].join(", ");
      return [make("span", `badge ${word === "controversial" ? "unsafe" : word}`, `${judges[n]}: ${all}`)];
    });

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
    if (ended && ended !== "stop") made.append(make("span", "badge", { length: "cut off", filtered: "withheld" }[ended] || ended));
    const judged = verdicts.filter(Boolean);
    const safe = judged.length > 0 && judged.every((verdict) => verdict[0] === "safe" || verdict[0] === "invalid");
    const harmful = judged.some((verdict) => verdict[0] === "unsafe" || verdict[0] === "controversial") || (q.harmful && !safe);
    if (thought) made.append(folded("What it thought", said(thought, q.language)));
    const why = safe || !judged.length ? "not judged" : "that may harm";
    made.append(covered(`Show an answer ${why}`, said(text, q.language), harmful));
    return made;
  };

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
    for (const button of document.querySelectorAll(".pager button")) {
      button.disabled = button.dataset.step === "1" ? last >= shown.length : first === 0;
    }
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => {
    if (event.target.name !== "reveal") {
      first = 0;
      shown = questions.flatMap((q, n) => (matches(q) ? [n] : []));
    }
    draw();
  });
  for (const pager of pagers) {
    pager.hidden = false;
    pager.addEventListener("click", (event) => {
      const step = event.target.dataset.step;
      if (!step) return;
      first = Math.max(0, first + Number(step) * PAGE);
      draw();
      if (pager === pagers[1]) form.scrollIntoView();
    });
  }
  form.hidden = false;
  draw();
}
