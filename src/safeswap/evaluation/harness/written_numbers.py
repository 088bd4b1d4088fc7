r"""Every number that a text writes, by its value; how they are written stands in `final_number`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Final

_COMMA_LANGUAGES: Final = (
    "ast az be bg bs ca cs da de el es et eu fi fr gl hr hu hy id is it jv ka kk lt lv mk nb nl nn "
    "no pl pt ro ru sk sl sq sr su sv tr uk uz vi"
)
_COMMA_DECIMAL: Final = frozenset(_COMMA_LANGUAGES.split())
"""Languages whose decimal mark is a comma."""


_GROUPING: Final = "'’٬\u00a0\u2007\u2009\u202f"
VULGAR: Final = "\u00bc-\u00be\u2150-\u215e"
_SMALL: Final = {
    **dict.fromkeys("千仟천", 1000),
    **dict.fromkeys("百佰백", 100),
    **dict.fromkeys("十拾십", 10),
}
_KILO: Final = frozenset("克米瓦卡帕焦赫伏")
"""After 千 these are units: 5千克 is five kilograms."""
_MYRIADS: Final = {"万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8, "억": 10**8}
CURRENCY: Final = r"(?:[$€£¥₩₹৳฿₫]|US\$|Rs\.?|KSh|KES|TSh|TZS)"

_TOKEN = re.compile(
    rf"""
    (?P<sign>
        (?<![0-9A-Za-z)\]}}.%])(?<![0-9)][ ])(?:-|\u2212\s?)
        (?=(?:{CURRENCY}\s?)?(?:[0-9]|\.[0-9]|[{VULGAR}]))
    )?
    (?:(?<![0-9]){CURRENCY}\s?(?P<after>[-\u2212])?(?=\.?[0-9]))?
    (?P<body>
        [0-9]+(?:[.,٫\u0020{_GROUPING}][0-9]+)*
      | (?<![0-9A-Za-z.])\.[0-9]+
      | (?=[{VULGAR}])
    )
    (?P<exponent>[eE][+-]?[0-9]{{1,2}}(?![0-9A-Za-z.,]))?
    (?P<vulgar>[{VULGAR}])?
    """,
    re.VERBOSE,
)
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([0-9]+)\s*\}\s*\{\s*([0-9]+)\s*\}")
_LATEX_MIXED = re.compile(rf"(?<=[0-9])\s*{_LATEX_FRACTION.pattern}")
_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_RAISED = re.compile(r"(?<=[0-9])⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_UNIT_POWER = re.compile(
    r"(?<=[^\W\d_])[})]*\s?\^\s?(?:\{\s*-?[0-9]+\s*\}|-?[0-9]+)"
    r"|(?<=[^\W\d_])(?<![^\W\d_]{2})\*\*[0-9]+(?!\*)"  # x**2, but not is **18**
    r"|(?<=[0-9] )(?P<unit>[cdkm]?m|ft|in|yd)[23](?![\w.,]*[0-9])"
)
"""The power of a unit or of a variable (m^2, \\text{cm}^{3}, x**2, m2), which is no number."""
_TIMES = re.compile(r"\s*(?:[×x*·]|\\times|\\cdot)\s*")
_LARGEST_POWER = 20
_EXACT = Context(prec=40)


@dataclass(frozen=True, slots=True)
class Found:
    """A number, where it stands in the prepared text, and whether it can be read in two ways."""

    start: int
    end: int
    value: Decimal
    unsure: bool = False


def is_comma_decimal(language: str | None) -> bool:
    """Whether a language's decimal mark is a comma."""
    code = (language or "").lower().replace("_", "-").split("-")[0]
    return code in _COMMA_DECIMAL


def prepared(text: str) -> str:
    """The text with digits of any script as 0–9 and LaTeX's spaces and fractions written out."""
    chars = []
    for char in text:
        digit = unicodedata.decimal(char, None) if char > "\x7f" else None
        chars.append(char if digit is None else str(digit))
    plain = "".join(chars)
    plain = plain.replace("．", ".").replace("－", "-").replace("﹣", "-").replace("＄", "$")
    plain = re.sub(r"(?<=[0-9])，(?=[0-9]{3}(?![0-9]))", ",", plain)
    plain = re.sub(r"(?<=[0-9])،(?=[0-9]{3}(?![0-9]))", ",", plain)
    plain = re.sub(r"(?<=[0-9])_(?=[0-9]{3}(?![0-9]))", "", plain)
    plain = _UNIT_POWER.sub("", plain)
    plain = plain.replace("{,}", ",").replace("\\$", "$").replace("\\%", "%")
    plain = re.sub(r"(?<=[0-9])\\[,;:! ](?=[0-9]{3})", "\u2009", plain)
    plain = _RAISED.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), plain)
    plain = re.sub(r"(?<=[0-9])\^\{\s*(-?[0-9]+)\s*\}", r"^\1", plain)
    return _LATEX_FRACTION.sub(r"\1/\2", _LATEX_MIXED.sub(r" \1/\2", plain))


def numbers(text: str, comma_decimal: bool) -> Iterator[Found]:
    """Every number of a prepared text; fractions, powers and myriads are joined."""
    joined: list[Found] = []
    for single in _scaled(text, _single(text, comma_decimal)):
        item = single
        while joined and (value := _together(text, joined[-1], item)) is not None:
            before = joined.pop()
            item = Found(before.start, item.end, value, before.unsure or item.unsure)
        joined.append(item)
    yield from joined


def _scaled(text: str, singles: Iterator[Found]) -> Iterator[Found]:
    """Numbers with the 千, 万 and 억 after them: 1万2千, 3억 5천만, 2千3百万."""
    chain: list[_Term] = []
    for item in singles:
        term = _term(text, item)
        if chain and not _continues(text, chain, term):
            yield _summed(chain)
            chain = []
        chain.append(term)
        if term.small == term.large == 1:
            yield _summed(chain)
            chain = []
    if chain:
        yield _summed(chain)


@dataclass(frozen=True, slots=True)
class _Term:
    """A number and the scales written after it, 1 where there is none."""

    item: Found
    end: int
    small: int
    large: int


def _term(text: str, item: Found) -> _Term:
    end, small, large = item.end, 1, 1
    mark = text[end : end + 1]
    kilo = _SMALL.get(mark) == 1000 and text[end + 1 : end + 2] in _KILO and text[end + 1 : end + 2]
    if mark in _SMALL and not kilo:
        small, end = _SMALL[mark], end + 1
    if (mark := text[end : end + 1]) in _MYRIADS:
        large, end = _MYRIADS[mark], end + 1
    return _Term(item, end, small, large)


def _continues(text: str, chain: list[_Term], term: _Term) -> bool:
    """Whether a term belongs to the number before it: each scale is smaller than the last."""
    before = chain[-1]
    gap = text[before.end : term.item.start]
    scaled = term.small * term.large > 1
    hangul = "가" <= text[before.end - 1] <= "힣"
    whole = text[term.item.start : term.end].isdigit() and term.end - term.item.start > 1
    if (gap and not (gap == " " and hangul and (scaled or whole))) or term.item.value < 0:
        return False
    larges = [one.large for one in chain if one.large > 1]
    if term.large > 1 and larges and term.large >= larges[-1]:
        return False
    section = before.small if before.large == 1 else 10**4
    return term.small < section and (scaled or term.item.value < section)


def _summed(chain: list[_Term]) -> Found:
    """The value of a chain: what stands before a 万 is multiplied by it as a whole.

    A single digit at its end (1万2) is 12,000 as Chinese is spoken, and 10,002 as it is written.
    """
    total = section = Decimal(0)
    first = chain[0].item
    for term in chain:
        value = term.item.value.copy_abs()
        section = _EXACT.add(section, _EXACT.multiply(value, term.small))
        if term.large > 1:
            total = _EXACT.add(total, _EXACT.multiply(section, term.large))
            section = Decimal(0)
    total = _EXACT.add(total, section)
    alone = len(chain) == 1 and chain[0].small == chain[0].large == 1
    value = first.value if alone else total.copy_sign(first.value)
    last = chain[-1]
    bare = len(chain) > 1 and last.small == last.large == 1 and last.end - last.item.start == 1
    unsure = bare and last.item.value != 0 and chain[-2].small * chain[-2].large > 10
    return Found(first.start, last.end, value, unsure)


def _together(text: str, before: Found, item: Found) -> Decimal | None:
    """The value of two neighbours that are one number, or None where they are two."""
    if item.value and _is_fraction(text, before, item):
        return _EXACT.divide(before.value, item.value)
    if _is_mixed(text, before, item):
        return _EXACT.add(before.value, item.value.copy_sign(before.value))
    if _is_power(text, before, item):
        return _EXACT.power(before.value, item.value)
    scale = text[item.start : item.end].startswith("10^")
    if scale and _TIMES.fullmatch(text, before.end, item.start):
        return _EXACT.multiply(before.value, item.value)
    return None


def _is_mixed(text: str, whole: Found, part: Found) -> bool:
    """Whether a whole number and a fraction with a space between them are one: 2 1/2."""
    written = text[part.start : part.end]
    fraction = "/" in written or not written[0].isdigit()
    return (
        text[whole.end : part.start] == " "
        and text[whole.start : whole.end].lstrip("-\u2212").isdigit()
        and fraction
        and 0 < part.value < 1
    )


def _is_power(text: str, base: Found, exponent: Found) -> bool:
    """Whether two numbers are joined by ^, and the power is no monster."""
    return (
        text[base.end : exponent.start] == "^"
        and bool(base.value)
        and base.end - base.start <= _LARGEST_POWER
        and abs(exponent.value) <= _LARGEST_POWER
        and exponent.value == exponent.value.to_integral_value()
    )


def _is_fraction(text: str, above: Found, below: Found) -> bool:
    """Whether two numbers are joined by the only slash between them: 1/2, but not 24/11/2026."""
    around = text[max(above.start - 1, 0) : above.start] + text[below.end : below.end + 1]
    return text[above.end : below.start] == "/" and "/" not in around


def _single(text: str, comma_decimal: bool) -> Iterator[Found]:
    """Every number as it is written, one after the other."""
    for match in _TOKEN.finditer(text):
        if not match["body"] and not match["vulgar"]:
            continue
        negative = bool(match["sign"] or match["after"])
        start = match.start() if negative else match.start("body")
        pieces = list(_pieces(match["body"], match.start("body"), comma_decimal))
        for number, (begin, end, value) in enumerate(pieces):
            if number == len(pieces) - 1:
                end = match.end()
                value = _with_tail(value, match["exponent"], match["vulgar"])
            first = number == 0
            signed = value.copy_negate() if negative and first else value
            yield Found(start if first else begin, end, signed)


def _with_tail(value: Decimal, exponent: str | None, vulgar: str | None) -> Decimal:
    if exponent:
        value = value.scaleb(int(exponent[1:]), context=_EXACT)
    if vulgar:
        value = _EXACT.add(value, _EXACT.divide(round(unicodedata.numeric(vulgar) * 2520), 2520))
    return value


def _pieces(body: str, start: int, comma_decimal: bool) -> Iterator[tuple[int, int, Decimal]]:
    """The one number that a run of groups is, or else the numbers that it is a row of."""
    if not body:
        yield start, start, Decimal(0)
        return
    parts = [body] if comma_decimal else body.split(" ")
    position = start
    for part in parts:
        value = _value(part, comma_decimal)
        if value is not None:
            yield position, position + len(part), value
        else:
            for group in re.finditer(r"[0-9]+", part):
                begin = position + group.start()
                yield begin, begin + len(group[0]), Decimal(group[0])
        position += len(part) + 1


def _value(written: str, comma_decimal: bool) -> Decimal | None:
    """A number with its separators, or None where they make no sense."""
    marks = [char for char in written if not char.isdigit()]
    if not marks:
        return Decimal(written)
    if written[0] == ".":
        return Decimal("0" + written)
    decimal = _decimal_mark(written, marks, comma_decimal)
    whole, _, fraction = written.rpartition(decimal) if decimal else (written, "", "")
    grouping = {char for char in whole if not char.isdigit()}
    if len(grouping) > 1:
        return None
    if grouping and not _groups_well(whole, grouping.pop()):
        return None
    digits = re.sub(r"[^0-9]", "", whole)
    return Decimal(f"{digits}.{fraction}" if decimal else digits)


def _decimal_mark(written: str, marks: list[str], comma_decimal: bool) -> str:
    """Which of the separators is the decimal one; empty where none is."""
    last = marks[-1]
    if last == "٫":
        return last
    if last not in ".," or marks.count(last) > 1:
        return ""
    if set(marks) - {last}:
        return last
    whole, _, fraction = written.partition(last)
    thousands = len(fraction) == 3 and len(whole) <= 3 and not whole.startswith("0")
    if last == ".":
        return "" if thousands and comma_decimal else "."
    return "" if thousands else ","


def _groups_well(whole: str, mark: str) -> bool:
    groups = whole.split(mark)
    western = len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])
    indian = (
        mark == ","
        and len(groups[0]) <= 2
        and len(groups[-1]) == 3
        and all(len(group) == 2 for group in groups[1:-1])
    )
    return (western or indian) and bool(groups[0])
