// The form: what it shows of a method's parameters, and what was touched.

/** @import { Data, Parameter } from "./types" */
/** @import { Chosen } from "./state.js" */
import { make, one, say } from "./dom.js";
import { methodOf } from "./rules.js";
import { settingsOrNull, showSlider, takeTau } from "./sliders.js";

/** @type {Record<string, string>} */
const HINTS = {
  tau: "An expert has a unit where its share is larger by more than τ; between −τ and τ it is a blend. The slider ends at the largest difference.",
};

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
  const places = [...form.querySelectorAll("[data-parameter]")].map(
    (place) => /** @type {HTMLElement} */ (place),
  );
  const mixture = data.weights.some(({ experts, router }) => experts[0] || router);

  const show = () => {
    const about = methodOf(data, chosen.method);
    method.value = chosen.method;
    say(one(form, "#method-hint", HTMLElement), `${about.summary} Source: ${about.source}.`);
    for (const place of places) {
      const own = about.parameters.find(({ name }) => name === place.dataset.parameter);
      const ofMixtures = place.dataset.parameter === "router" || place.dataset.parameter === "shared_experts";
      place.hidden = !own || (ofMixtures && !mixture);
      if (own && !place.hidden) showParameter(place, own, data, chosen);
    }
    const more = one(form, "#more", HTMLElement);
    more.hidden = places.every((place) => place.hidden || !more.contains(place));
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    const input = event.target;
    if (!(input instanceof HTMLInputElement || input instanceof HTMLSelectElement)) return;
    if (input === method) chosen.method = method.value;
    else take(input, data, chosen);
    changed();
  });
  one(form, "#reset", HTMLButtonElement).addEventListener("click", () => {
    chosen.given = {};
    chosen.method = data.methods[0].name;
    changed();
  });
  form.hidden = false;
  return { show };
}

/**
 * What was done to a control.
 *
 * @param {HTMLInputElement | HTMLSelectElement} input
 * @param {Data} data
 * @param {Chosen} chosen is changed
 */
function take(input, data, chosen) {
  const place = input.closest("[data-parameter]");
  const name = place instanceof HTMLElement ? place.dataset.parameter : undefined;
  if (!name) return;
  const { given } = chosen;
  if (name === "tau") takeTau(input, data, chosen);
  else if (input instanceof HTMLInputElement && input.type === "checkbox")
    given[name] = input.checked || undefined;
  else if (input.value === "") given[name] = undefined;
  else given[name] = input.type === "number" || input.type === "range" ? Number(input.value) : input.value;
}

/**
 * @param {HTMLElement} place
 * @param {Parameter} own
 * @param {Data} data
 * @param {Chosen} chosen
 */
function showParameter(place, own, data, chosen) {
  const { given } = chosen;
  const hint = place.querySelector(".hint");
  if (hint) say(hint, HINTS[own.name] ?? own.doc);
  const input = place.querySelector("input");
  if (own.name === "by") {
    for (const radio of place.querySelectorAll("input"))
      radio.checked = radio.value === (given.by ?? own.default);
  } else if (place.querySelector("input[type=range]")) showSlider(place, own, data, chosen);
  else if (own.choices.length) showChoice(place, own, data, chosen);
  else if (!input) return;
  else if (own.kind === "bool") input.checked = given[own.name] ?? own.default;
  else if (document.activeElement !== input) input.value = given[own.name] ?? "";
}

/**
 * The words that a parameter may be, after what it is where none is chosen.
 *
 * @param {HTMLElement} place
 * @param {Parameter} about
 * @param {Data} data
 * @param {Chosen} chosen
 */
function showChoice(place, about, data, chosen) {
  const select = one(place, "select", HTMLSelectElement);
  const untouched = { ...chosen, given: { ...chosen.given, [about.name]: undefined } };
  const itself = settingsOrNull(data, untouched)?.[about.name];
  const words = [
    ["", itself ? `${itself}, by itself` : "by itself"],
    ...about.choices.map((word) => [word, word]),
  ];
  const key = JSON.stringify(words);
  if (select.dataset.words !== key) {
    select.dataset.words = key;
    select.replaceChildren(...words.map(([value, text]) => Object.assign(make("option", text), { value })));
  }
  const given = chosen.given[about.name];
  select.value = about.choices.includes(given) ? given : "";
}
