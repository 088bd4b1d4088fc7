// The form: what it shows of a method's parameters, and what was touched.

/** @import { Data, Parameter } from "./types" */
/** @import { Chosen } from "./state.js" */
import { make, one, say, short } from "./dom.js";
import { fromPoints } from "./numbers.js";
import { Refusal } from "./refusal.js";
import { methodOf, tableOf } from "./rules.js";
import { settingsOf } from "./state.js";

const STEPS = 1000;
/** What sliders go to where a parameter has no limits of its own. */
const SPAN = { gamma: 2, scale: 1 };
/** @type {Record<string, string>} */
const HINTS = { tau: "An expert has a unit where its share is larger by more than τ; between −τ and τ it is a blend. The slider ends at the largest difference." };

/**
 * A number of three digits that is no smaller: at its end the slider leaves nothing to an expert.
 *
 * @param {number} value 0 or more
 * @returns {number}
 */
export function upward(value) {
  const near = Number(value.toPrecision(3));
  if (near >= value) return near;
  const [digits, power] = near.toExponential(2).split("e");
  return Number(`${(Number(digits) + 0.01).toFixed(2)}e${power}`);
}

/**
 * The form, bound to what is chosen.
 *
 * @param {Data} data
 * @param {Chosen} chosen changed as the form is
 * @param {() => void} changed called after each change
 * @returns {{show: () => void}} shows what is chosen
 */
export function controls(data, chosen, changed) {
  const form = one(document, "#settings", HTMLFormElement);
  const method = one(form, "#method", HTMLSelectElement);
  const places = [...form.querySelectorAll("[data-parameter]")].map((place) => /** @type {HTMLElement} */ (place));
  let most = 1; // τ at the right end of its slider, as a difference of shares

  /** @param {string} name @returns {Parameter | undefined} */
  const parameter = (name) => methodOf(data, chosen.method).parameters.find((p) => p.name === name);
  const settings = () => {
    try {
      return settingsOf(data, chosen);
    } catch (error) {
      if (error instanceof Refusal) return null;
      throw error;
    }
  };
  /** τ is shown in points or, relative, as it is @param {number} tau @returns {number} */
  const perUnit = (tau) => tau * (settings()?.tau_relative ? 1 / keys() : 1);
  const keys = () => data.keys[table()].length || 1;
  const table = () => {
    try {
      return tableOf(data, settings() ?? { by: chosen.given.by });
    } catch {
      return "module";
    }
  };

  /** The largest difference that decides something @returns {number} */
  const largest = () => {
    let found = 0;
    for (const language of data.languages) {
      const own = language.tables[table()];
      own.safety.forEach((share, n) => {
        found = Math.max(found, Math.abs(share - own.language[n]));
      });
    }
    return found || 0.01;
  };

  /** @param {HTMLElement} place */
  const showSlider = (place) => {
    const name = /** @type {string} */ (place.dataset.parameter);
    const range = one(place, "input[type=range]", HTMLInputElement);
    const number = one(place, "input[type=number]", HTMLInputElement);
    const found = settings();
    const value = Number(found?.[name] ?? chosen.given[name] ?? parameter(name)?.default ?? 0);
    if (name !== "tau") {
      if (document.activeElement !== number) number.value = short(value);
      range.value = String(value);
      return;
    }
    const relative = Boolean(found?.tau_relative);
    one(place, "#tau-unit", HTMLSelectElement).value = relative ? "mean" : "points";
    if (document.activeElement !== number) number.value = short(relative ? value : 100 * value);
    most = largest();
    range.value = String(Math.round(STEPS * Math.sqrt(Math.min(1, perUnit(value) / most))));
    range.setAttribute("aria-valuetext", relative ? `${short(value)} times the mean share` : `${short(100 * value)} points`);
  };

  /** @param {HTMLElement} place @param {Parameter} about */
  const showChoice = (place, about) => {
    const select = one(place, "select", HTMLSelectElement);
    const byItself = settingsOf(data, { ...chosen, given: { ...chosen.given, [about.name]: undefined } })[about.name];
    const words = [["", byItself === null ? "by itself" : `${byItself}, by itself`], ...about.choices.map((word) => [word, word])];
    const key = JSON.stringify(words);
    if (select.dataset.words !== key) {
      select.dataset.words = key;
      select.replaceChildren(...words.map(([value, text]) => Object.assign(make("option", text), { value })));
    }
    const given = chosen.given[about.name] ?? "";
    select.value = about.choices.includes(given) ? given : "";
  };

  const show = () => {
    const about = methodOf(data, chosen.method);
    method.value = chosen.method;
    say(one(form, "#method-hint", HTMLElement), `${about.summary} Source: ${about.source}.`);
    const mixture = data.weights.some(({ experts, router }) => experts[0] || router);
    for (const place of places) {
      const name = /** @type {string} */ (place.dataset.parameter);
      const own = parameter(name);
      place.hidden = !own || (!mixture && (name === "router" || name === "shared_experts"));
      if (!own || place.hidden) continue;
      const hint = place.querySelector(".hint");
      if (hint) say(hint, HINTS[name] ?? own.doc);
      if (name === "by") {
        for (const radio of place.querySelectorAll("input")) radio.checked = radio.value === (chosen.given.by ?? own.default);
      } else if (place.querySelector("input[type=range]")) showSlider(place);
      else if (own.choices.length) showChoice(place, own);
      else if (own.kind === "bool") one(place, "input", HTMLInputElement).checked = chosen.given[name] ?? own.default;
      else if (document.activeElement !== place.querySelector("input")) one(place, "input", HTMLInputElement).value = chosen.given[name] ?? "";
    }
    one(form, "#more", HTMLElement).hidden = ![...form.querySelectorAll("#more [data-parameter]")].some((p) => !(/** @type {HTMLElement} */ (p).hidden));
  };

  /** @param {HTMLInputElement | HTMLSelectElement} input @param {string} name */
  const takeTau = (input, name) => {
    const relative = Boolean(settings()?.tau_relative);
    if (input instanceof HTMLSelectElement) {
      const tau = settings()?.tau ?? data.tau.module;
      const other = input.value === "mean";
      if (other !== relative) chosen.given.tau = Number((other ? tau * keys() : tau / keys()).toPrecision(4));
      chosen.given.tau_relative = other;
    } else if (input.type === "range") {
      const part = Number(input.value) / STEPS;
      const tau = most * part * part * (relative ? keys() : 1);
      chosen.given.tau = upward(tau);
      chosen.given.tau_relative = relative;
    } else {
      const typed = Number(input.value);
      chosen.given[name] = input.value === "" ? undefined : relative ? typed : fromPoints(typed);
      chosen.given.tau_relative = input.value === "" ? undefined : relative;
    }
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    const input = event.target;
    if (!(input instanceof HTMLInputElement || input instanceof HTMLSelectElement)) return;
    const name = /** @type {HTMLElement | null} */ (input.closest("[data-parameter]"))?.dataset.parameter;
    const numbers = input instanceof HTMLInputElement && (input.type === "number" || input.type === "range");
    if (input === method) chosen.method = method.value;
    else if (!name) return;
    else if (name === "tau") takeTau(input, name);
    else if (input.type === "checkbox") chosen.given[name] = /** @type {HTMLInputElement} */ (input).checked || undefined;
    else if (input.value === "") chosen.given[name] = undefined;
    else chosen.given[name] = numbers ? Number(input.value) : input.value;
    if (name === "by") delete chosen.given.norms; // what follows from the granularity follows it
    changed();
  });
  one(form, "#reset", HTMLButtonElement).addEventListener("click", () => {
    chosen.given = {};
    chosen.method = data.methods[0].name;
    changed();
  });
  for (const range of form.querySelectorAll("input[type=range]")) {
    const name = /** @type {"gamma"} */ (range.id);
    if (name in SPAN) range.setAttribute("max", String(SPAN[name]));
  }
  form.hidden = false;
  return { show };
}
