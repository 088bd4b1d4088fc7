r"""The final number of an answer, by value: one reader for every language of MGSM.

lm-evaluation-harness looks for ``(-?[$0-9.,]{2,})|(-?[0-9]+)`` and compares without punctuation, so
it knows only the digits 0–9, reads 18.00 as 1800 and takes 1.8 for 18. Here a number is read by its
value, and compared by its value.

**Which number.** The first of these that there is:

1. what stands in the last ``\boxed{…}``;
2. the number that the last phrase of the kind "the answer is" announces: the first one after it, or
   the result where arithmetic begins there ("the answer is 9 × 2 = 18"). A bare "Answer:" counts
   only with the number and at most a unit after it on its line, for it is also the title of
   reasoning to come;
3. the last number of the text.

**How it is written.** Decimal digits of any script. A minus touches its number or its currency
(U+2212 may stand off); a hyphen after a digit or a letter is none, nor is a dash. Currency,
percent, units, Markdown and LaTeX around a number do not matter. Fractions (1/2, ½,
``\\frac{1}{2}``), mixed numbers (2 1/2), powers of ten (1.8e3, 1.8 × 10³, ``10^{3}``) and other
small powers (3², 2^3) are read by value, and the power of a unit (m^2) is none; 千, 万, 억 and
their like multiply (1万2千, 3억 5천만). Numbers in words (eighteen, 十八, "1.8 million") are not
read.

**Separators**, where groups of digits are joined by them:

* a comma before exactly three digits groups thousands, in every language (MGSM's own references
  write 2,125 in all of them), also in the Indian way (1,00,000); else a single comma is decimal;
* a point is decimal (18.00), but 1.234 is 1234 in languages with a decimal comma (German, Spanish,
  French, Russian, Italian, Vietnamese, Indonesian, …), and several points group (1.234.567);
* of both, the last is decimal: 1,234.5 and 1.234,5;
* an apostrophe, ``٬``, an underscore and a no-break or thin space group thousands; a plain space
  only in languages with a decimal comma, for elsewhere "3 200" is two numbers. ``٫`` is decimal.

What fits none of this (1.2.3, 24.11.2026, 3,4,5) is a row of separate numbers.
"""

from __future__ import annotations

import re
from decimal import Decimal

from safeswap.evaluation.harness.answer_phrases import NAMED, SAID
from safeswap.evaluation.harness.written_numbers import Found, is_comma_decimal, numbers, prepared

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_CHAIN = re.compile(r"(?:[\s*×xX÷/+\-\u2212=()$€£¥%]|\\times|\\cdot|\\div)*")
_GLUE = 60
_UNIT = 20


def final_number(text: str, language: str | None = None) -> Decimal | None:
    """The final number of an answer, or None where there is none.

    Args:
        text: an answer, or a reference.
        language: its code (``de``); it decides how 1.234 and 1 234 are read.
    """
    comma_decimal = is_comma_decimal(language)
    plain = prepared(text)
    boxed = _boxed(plain)
    if boxed is not None:
        inside = list(numbers(boxed, comma_decimal))
        if inside:
            return _chained(boxed, inside, 0)
    found = list(numbers(plain, comma_decimal))
    if not found:
        return None
    announced = _announced(plain, found)
    return found[-1].value if announced is None else announced


def same_number(
    one: Decimal | str | None, other: Decimal | str | None, language: str | None = None
) -> bool:
    """Whether two numbers are the same by value (18.00 is 18); no number is the same as none.

    A text is read by ``final_number`` first.
    """
    left, right = (
        final_number(item, language) if isinstance(item, str) else item for item in (one, other)
    )
    return left is not None and right is not None and left == right


def _boxed(text: str) -> str | None:
    r"""What stands in the last ``\boxed{…}``; to the end where it was cut off."""
    starts = [match.end() for match in _BOXED.finditer(text)]
    if not starts:
        return None
    depth = 1
    for position in range(starts[-1], len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[starts[-1] : position]
    return text[starts[-1] :]


def _announced(text: str, found: list[Found]) -> Decimal | None:
    """The number after the last phrase that announces the answer, if there is one."""
    best: tuple[int, Decimal] | None = None
    for phrase in SAID.finditer(text):
        index = next((i for i, item in enumerate(found) if item.start >= phrase.end()), None)
        if index is None or found[index].start - phrase.end() > _GLUE:
            continue
        between = text[phrase.end() : found[index].start]
        if not re.search(r"[.!?。！？।]\s", between):
            best = (phrase.start(), _chained(text, found, index))
    for phrase in NAMED.finditer(text):
        index = next((i for i, item in enumerate(found) if item.start >= phrase.end()), None)
        if index is None or (best is not None and phrase.start() < best[0]):
            continue
        rest = text[found[index].end :].split("\n", 1)[0]
        if len(rest.strip()) <= _UNIT and not re.search(r"[0-9=+×÷]", rest):
            best = (phrase.start(), found[index].value)
    return best[1] if best else None


def _chained(text: str, found: list[Found], index: int) -> Decimal:
    """The number at ``index``, or the result of the arithmetic that it begins."""
    value = found[index].value
    for before, item in zip(found[index:], found[index + 1 :], strict=False):
        between = text[before.end : item.start]
        if not between.strip() or "\n" in between or not _CHAIN.fullmatch(between):
            break
        if "=" in between:
            value = item.value
    return value
