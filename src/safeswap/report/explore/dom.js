// Elements by name, with their types. Texts of others only ever become textContent, never markup.

/**
 * The element of a selector, which the page has.
 *
 * @template {Element} T
 * @param {ParentNode} where
 * @param {string} selector
 * @param {new (...all: any[]) => T} kind
 * @returns {T}
 */
export function one(where, selector, kind) {
  const found = where.querySelector(selector);
  if (!(found instanceof kind)) throw new Error(`the page has no ${selector}`);
  return found;
}

/**
 * A new element.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {string} [text]
 * @param {string} [className]
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/**
 * Set a text, and touch nothing where it is the same.
 *
 * @param {Element} element
 * @param {string} text
 */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * The same for commands: a line ends between two words, not after the dashes of an option.
 *
 * @param {Element} element
 * @param {string} text
 */
export function sayWords(element, text) {
  if (element.textContent === text) return;
  element.replaceChildren(...text.split(/([ \n])/).map((word) => (word.trim() ? make("span", word, "word") : word)));
}

/**
 * A number for the reader: at most so many significant digits, no trailing zeros.
 *
 * @param {number} value
 * @param {number} [digits]
 * @returns {string}
 */
export function short(value, digits = 6) {
  return String(Number(value.toPrecision(digits)));
}
