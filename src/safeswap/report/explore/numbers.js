// Numbers as Python writes them, so that a plan from the page is the plan from the command line.

/**
 * As Python's `repr` of a float: the shortest digits that give the number again.
 *
 * @param {number} value a finite number
 * @returns {string} e.g. `0.5`, `1.0`, `1e-05`, `-0.0`
 */
export function pythonFloat(value) {
  if (Object.is(value, -0)) return "-0.0";
  if (Number.isInteger(value) && Math.abs(value) < 1e16) return `${value}.0`;
  const [digits, power] = value.toExponential().split("e");
  const exponent = Number(power);
  if (exponent >= -4 && exponent < 16) return positional(digits, exponent);
  const size = String(Math.abs(exponent)).padStart(2, "0");
  return `${digits}e${exponent < 0 ? "-" : "+"}${size}`;
}

/**
 * Digits without an exponent, however small the number.
 *
 * @param {string} digits of `toExponential`, e.g. `-1.25`
 * @param {number} exponent from -4 to 15
 * @returns {string}
 */
function positional(digits, exponent) {
  const sign = digits.startsWith("-") ? "-" : "";
  const bare = digits.replace("-", "").replace(".", "");
  if (exponent < 0) return `${sign}0.${"0".repeat(-exponent - 1)}${bare}`;
  const whole = bare.slice(0, exponent + 1).padEnd(exponent + 1, "0");
  return `${sign}${whole}.${bare.slice(exponent + 1) || "0"}`;
}

/**
 * As YAML's library for Python writes a float: `1.0e-05`.
 *
 * @param {number} value
 * @returns {string}
 */
export function yamlFloat(value) {
  const text = pythonFloat(value);
  return text.includes(".") ? text : text.replace("e", ".0e");
}

/**
 * As Python's `round(value, 9)`: the nearest nine decimals, and half way between two the even one.
 *
 * `toFixed` finds the nearest exactly, but goes up half way. A binary fraction lies half way only if
 * it is an odd multiple of 1/1024: then it is an odd multiple of 5⁹ halves of 10⁻⁹.
 *
 * @param {number} value a share or a difference of shares
 * @returns {number}
 */
export function rounded(value) {
  const parts = value * 1024;
  if (!Number.isInteger(parts) || parts % 2 === 0) return Number(value.toFixed(9));
  const below = Math.floor((parts * 5 ** 9) / 2);
  const even = below % 2 === 0 ? below : below + 1;
  return even / 1e9;
}

/**
 * A share, from what a person typed in points or per cent: 0.1 is 0.001, not a neighbour of it.
 *
 * @param {number} points
 * @returns {number}
 */
export function fromPoints(points) {
  return Number((points / 100).toPrecision(15));
}

/**
 * A size as people read it: `980 bytes`, `13.0 kB`, `2.47 GB`.
 *
 * @param {number} bytes
 * @returns {string}
 */
export function shownBytes(bytes) {
  if (bytes < 999.5) return `${Math.round(bytes)} bytes`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let value = bytes / 1000;
  while (value >= 999.5 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value < 100 ? value.toPrecision(3) : value.toFixed(0)} ${units[0]}`;
}
