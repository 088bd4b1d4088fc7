r"""The final number of an answer, by value: one reader for every language of MGSM.

lm-evaluation-harness looks for ``(-?[$0-9.,]{2,})|(-?[0-9]+)`` and compares without punctuation, so
it knows only the digits 0–9, reads 18.00 as 1800 and takes 1.8 for 18. Here a number is read by its
value, and compared by its value.

**Which number.** The first of these that there is:

1. what stands in the last ``\boxed{…}``;
2. the number that the last phrase of the kind "the answer is" announces: the first one after it, or
   the result where arithmetic begins there ("the answer is 9 × 2 = 18"). A bare "Answer:" is also
   the title of reasoning to come: it counts with the number, what is counted before it and a unit
   after it, and further numbers on its line only where a word or a bracket says that they explain
   ("Answer: 5 apples, since 3 + 2 = 5");
3. the last number of the text.

**Not read at all**, for it may be meant in two ways: a range and two answers (5–10, "5 or 10"),
"Answer: 5 apples, 2 of them red" (an answer, or the beginning of reasoning), and 1万2, which is
short for 12,000 in Chinese (in Japanese and Korean it is 10,002).

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
from dataclasses import replace
from decimal import Decimal

from safeswap.evaluation.harness.answer_phrases import (
    BETWEEN,
    CLAUSE,
    EITHER,
    NAMED,
    RANGE,
    REASON,
    SAID,
    SPOKEN_RANGE,
)
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
    plain = prepared(text)
    boxed = _boxed(plain)
    inside = [] if boxed is None else _read(boxed, language)
    if boxed is not None and inside:
        chosen = _range_refused(boxed, inside, _chained(boxed, inside, 0))
    else:
        found = _read(plain, language)
        if not found:
            return None
        chosen = _announced(plain, found) or _last(plain, found)
    return None if chosen.unsure else chosen.value


def _read(text: str, language: str | None) -> list[Found]:
    found = list(numbers(text, is_comma_decimal(language)))
    if (language or "").lower()[:2] in ("ja", "ko"):  # where 1万2 is never short for 1万2千
        found = [replace(one, unsure=False) for one in found]
    return found


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


def _last(text: str, found: list[Found]) -> Found:
    """The last number of a text; not where it is the upper end of a range: 5–10."""
    last = found[-1]
    if len(found) > 1 and 0 <= found[-2].value < last.value:
        unsure = RANGE.fullmatch(text, found[-2].end, last.start) is not None
        return replace(last, unsure=last.unsure or unsure)
    return last


def _announced(text: str, found: list[Found]) -> Found | None:
    """The number after the last phrase that announces the answer, if there is one."""
    best: tuple[int, Found] | None = None
    for phrase in SAID.finditer(text):
        index = next((i for i, item in enumerate(found) if item.start >= phrase.end()), None)
        if index is None or found[index].start - phrase.end() > _GLUE:
            continue
        between = text[phrase.end() : found[index].start]
        if not re.search(r"[.!?。！？।]\s", between):
            chosen = _range_refused(text, found, _chained(text, found, index))
            best = (phrase.start(), chosen)
    for phrase in NAMED.finditer(text):
        index = next((i for i, item in enumerate(found) if item.start >= phrase.end()), None)
        if index is None or (best is not None and phrase.start() < best[0]):
            continue
        named = _named(text, found, index)
        if named is not None:
            best = (phrase.start(), named)
    return best[1] if best else None


def _named(text: str, found: list[Found], index: int) -> Found | None:
    """What a bare "Answer:" announces; None where it is the title of reasoning to come.

    Numbers after it on its line are an explanation where a word or a bracket says so. Where nothing
    tells the answer from the beginning of a reasoning ("Answer: 5 apples, 2 red ones"), it is not
    read at all.
    """
    one = found[index]
    end = text.find("\n", one.end)
    rest = text[one.end : end if end >= 0 else len(text)]
    ranged = _range_refused(text, found, one)
    if ranged.unsure:
        return ranged
    clause = CLAUSE.search(rest)
    reason = REASON.search(rest)
    unit = rest[: min(found.start() if found else len(rest) for found in (clause, reason))]
    short = len(unit.strip()) <= _UNIT and not re.search(r"[0-9+×÷]", unit)
    if not re.search(r"[0-9=+×÷]", rest):
        return one if len(rest.strip()) <= _UNIT else None
    if not short or (end >= 0 and found[-1].start > end and not reason):
        return None
    if reason:
        return one
    return None if "=" in rest or found[-1].value == one.value else replace(one, unsure=True)


def _range_refused(text: str, found: list[Found], one: Found) -> Found:
    """A number that is announced, unsure where it is one end of a range, or one of two answers."""
    index = found.index(one)
    if index + 1 == len(found):
        return one
    after = found[index + 1]
    ranged = SPOKEN_RANGE.fullmatch(text, one.end, after.start) and one.value < after.value
    either = EITHER.fullmatch(text, one.end, after.start)
    between = BETWEEN.search(text[max(0, one.start - 20) : one.start])
    return replace(one, unsure=one.unsure or any(map(bool, (ranged, either, between))))


def _chained(text: str, found: list[Found], index: int) -> Found:
    """The number at ``index``, or the result of the arithmetic that it begins."""
    chosen = found[index]
    for before, item in zip(found[index:], found[index + 1 :], strict=False):
        between = text[before.end : item.start]
        if not between.strip() or "\n" in between or not _CHAIN.fullmatch(between):
            break
        if "=" in between:
            chosen = item
    return chosen
