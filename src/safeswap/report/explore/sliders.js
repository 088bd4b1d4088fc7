// Sliders and their numbers. τ's goes by squares, to the largest difference that there is.

/** @import { Data, Parameter, Settings } from "./types" */
/** @import { Chosen } from "./state.js" */
import { one, short } from "./dom.js";
import { fromPoints } from "./numbers.js";
import { Refusal } from "./refusal.js";
import { tableOf } from "./rules.js";
import { settingsOf } from "./state.js";

const STEPS = 1000;

/**
 * The settings of what is chosen, or null where they cannot be.
 *
 * @param {Data} data
 * @param {Chosen} chosen
 * @returns {Settings | null}
 */
export function settingsOrNull(data, chosen) {
  try {
    return settingsOf(data, chosen);
  } catch (error) {
    if (error instanceof Refusal) return null;
    throw error;
  }
}

/**
 * Show a parameter on its slider and as a number; a number that is being typed is left alone.
 *
 * @param {HTMLElement} place
 * @param {Parameter} about
 * @param {Data} data
 * @param {Chosen} chosen
 */
export function showSlider(place, about, data, chosen) {
  const range = one(place, "input[type=range]", HTMLInputElement);
  const number = one(place, "input[type=number]", HTMLInputElement);
  const found = settingsOrNull(data, chosen);
  const value = Number(found?.[about.name] ?? chosen.given[about.name] ?? about.default ?? 0);
  const tau = about.name === "tau";
  const relative = Boolean(found?.tau_relative);
  if (document.activeElement !== number) number.value = short(tau && !relative ? 100 * value : value);
  if (!tau) {
    range.value = String(value);
    return;
  }
  one(place, "#tau-unit", HTMLSelectElement).value = relative ? "mean" : "points";
  const part = value / (relative ? keys(data, chosen) : 1) / largest(data, chosen);
  range.value = String(Math.round(STEPS * Math.sqrt(Math.min(1, part))));
  const said = relative ? `${short(value)} times the mean share` : `${short(100 * value)} points`;
  range.setAttribute("aria-valuetext", said);
}

/**
 * What was done to τ's slider, number or unit.
 *
 * @param {HTMLInputElement | HTMLSelectElement} input
 * @param {Data} data
 * @param {Chosen} chosen is changed
 */
export function takeTau(input, data, chosen) {
  const { given } = chosen;
  const now = settingsOrNull(data, chosen);
  const relative = Boolean(now?.tau_relative);
  const count = keys(data, chosen);
  if (input instanceof HTMLSelectElement) {
    const tau = now?.tau ?? data.tau.module;
    const other = input.value === "mean";
    if (other !== relative) given.tau = Number((other ? tau * count : tau / count).toPrecision(4));
    given.tau_relative = other;
  } else if (input.type === "range") {
    const part = Number(input.value) / STEPS;
    given.tau = upward(largest(data, chosen) * part * part * (relative ? count : 1));
    given.tau_relative = relative;
  } else if (input.value === "") {
    given.tau = given.tau_relative = undefined;
  } else {
    given.tau = relative ? Number(input.value) : fromPoints(Number(input.value));
    given.tau_relative = relative;
  }
}

/**
 * A number of three digits that is no smaller: at its end the slider leaves nothing to an expert.
 *
 * @param {number} value 0 or more
 * @returns {number}
 */
function upward(value) {
  const near = Number(value.toPrecision(3));
  if (near >= value) return near;
  const [digits, power] = near.toExponential(2).split("e");
  return Number(`${(Number(digits) + 0.01).toFixed(2)}e${power}`);
}

/** @param {Data} data @param {Chosen} chosen @returns {string} whose shares are compared with τ */
function table(data, chosen) {
  try {
    return tableOf(data, settingsOrNull(data, chosen) ?? { by: chosen.given.by });
  } catch (error) {
    if (error instanceof Refusal) return "module";
    throw error;
  }
}

/** @param {Data} data @param {Chosen} chosen @returns {number} how many are decided */
function keys(data, chosen) {
  return data.keys[table(data, chosen)].length || 1;
}

/** @param {Data} data @param {Chosen} chosen @returns {number} the largest difference of shares */
function largest(data, chosen) {
  const name = table(data, chosen);
  let found = 0;
  for (const { tables } of data.languages) {
    const { safety, language } = tables[name];
    for (let n = 0; n < safety.length; n += 1) found = Math.max(found, Math.abs(safety[n] - language[n]));
  }
  return found || 0.01;
}
