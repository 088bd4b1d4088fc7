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

_ANNOUNCED: Final[tuple[tuple[str, str, str], ...]] = (
    # what the answer is called; words that may follow the name; what says that it is
    ("answer|result", "", "is|was|equals|would be|will be|comes to"),  # en
    ("réponse|reponse|résultat", "finale?|correcte?|exacte?|définitive|juste", "est|sera"),  # fr
    ("respuesta|resultado", "final|correcta?|exacta?|definitiva", "es|será|sería"),  # es
    ("resposta|resultado", "final|correta|certa", "é|e|será"),  # pt
    ("risposta|risultato", "finale|corretta|esatta", "è|e|sarà"),  # it
    ("antwort|ergebnis|endergebnis|lösung", "", "lautet|ist|beträgt|wäre"),  # de
    ("ответом|ответ", "", "является|равен|будет|это|[—–-](?= )"),  # ru
    ("答案|解答", "", "就?(?:应该|应当|应|應該)?(?:是|为|為|等于)"),  # zh
    ("答え|解答|正解|答", "", "は|が"),  # ja
    ("정답|답", "", "은|는|이"),  # ko
    ("jibu", "la mwisho|la swali|sahihi|kamili|lake|letu|lako", "ni|litakuwa|itakuwa"),  # sw
    ("উত্তর(?:টি|টা)?|ফলাফল", "সঠিক|চূড়ান্ত|শেষ", "হল|হলো|হ'ল|হচ্ছে|হবে|হয়"),  # bn
    ("उत्तर", "", "है|होगा"),  # hi
    ("సమాధానం|జవాబు", "", ""),  # te: nothing need say it
    (
        "คำตอบ",
        "สุดท้าย|ที่ถูกต้อง|ที่ได้|ที่ถูก|ของคำถามนี้|ก็",
        "คือ|เป็น|เท่ากับ|ได้แก่",
    ),  # th
    ("đáp án|câu trả lời|đáp số", "cuối cùng|đúng", "là"),  # vi
    ("jawabannya|jawabane|jawaban", "akhir|akhirnya|yang benar", "adalah|yaiku|iku"),  # id, jv
    ("الجواب|الإجابة|النتيجة", "النهائية|النهائي|الصحيحة|الصحيح", "هو|هي"),  # ar
)
"""How languages announce an answer, wherever an adjective stands: before the name or after it."""
_MORE_NAMES: Final = "ตอบ|wangsulan"
_SPOKEN: Final = r"[\s*_]*"
"""Between the words: spaces, and Markdown's marks."""


def _phrase(names: str, after: str) -> str:
    """The name of an answer, with the words that may follow it."""
    more = rf"(?:{_SPOKEN}(?:{after}))*" if after else ""
    return rf"(?:{names}){more}".replace(" ", r"\s+")


def _sayings() -> str:
    """What announces an answer in every language; a word ends where its script ends words."""
    found = []
    for names, after, verbs in _ANNOUNCED:
        ends = r"(?![a-zà-ÿ])" if verbs and verbs[0].isascii() else ""
        said = rf"{_SPOKEN}(?:{verbs}){ends}".replace("(?= )", r"(?=\s)") if verbs else ""
        found.append(_phrase(names, after) + said.replace("would be", r"would\s+be"))
    return "|".join(found)


_NAMES: Final = "|".join([*(_phrase(names, after) for names, after, _ in _ANNOUNCED), _MORE_NAMES])

_GROUPING: Final = "'’٬\u00a0\u2007\u2009\u202f"
_VULGAR: Final = "\u00bc-\u00be\u2150-\u215e"
_SMALL: Final = {
    **dict.fromkeys("千仟천", 1000),
    **dict.fromkeys("百佰백", 100),
    **dict.fromkeys("十拾십", 10),
}
_KILO: Final = frozenset("克米瓦卡帕焦赫伏")
"""After 千 these are units: 5千克 is five kilograms."""
_MYRIADS: Final = {"万": 10**4, "萬": 10**4, "만": 10**4, "亿": 10**8, "億": 10**8, "억": 10**8}
_CURRENCY: Final = r"(?:[$€£¥₩₹৳฿₫]|US\$|Rs\.?|KSh|KES|TSh|TZS)"

_TOKEN = re.compile(
    rf"""
    (?P<sign>
        (?<![0-9A-Za-z)\]}}.%])(?<![0-9)][ ])(?:-|\u2212\s?)
        (?=(?:{_CURRENCY}\s?)?(?:[0-9]|\.[0-9]|[{_VULGAR}]))
    )?
    (?:(?<![0-9]){_CURRENCY}\s?(?P<after>[-\u2212])?(?=\.?[0-9]))?
    (?P<body>
        [0-9]+(?:[.,٫\u0020{_GROUPING}][0-9]+)*
      | (?<![0-9A-Za-z.])\.[0-9]+
      | (?=[{_VULGAR}])
    )
    (?P<exponent>[eE][+-]?[0-9]{{1,2}}(?![0-9A-Za-z.,]))?
    (?P<vulgar>[{_VULGAR}])?
    """,
    re.VERBOSE,
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
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
_SAID = re.compile(_sayings(), re.IGNORECASE)
_NAMED = re.compile(
    rf"(?:####|(?:{_NAMES})[\s*_]*[:：=ঃ])[\s*_$\\(\[`]*"
    rf"(?=[-\u2212]?(?:{_CURRENCY}\s?)?[-\u2212]?\.?[0-9{_VULGAR}])",
    re.IGNORECASE,
)
_CHAIN = re.compile(r"(?:[\s*×xX÷/+\-\u2212=()$€£¥%]|\\times|\\cdot|\\div)*")
_GLUE = 60
_UNIT = 20
_LARGEST_POWER = 20
_EXACT = Context(prec=40)


@dataclass(frozen=True, slots=True)
class _Found:
    """A number and where it stands in the prepared text."""

    start: int
    end: int
    value: Decimal


def final_number(text: str, language: str | None = None) -> Decimal | None:
    """The final number of an answer, or None where there is none.

    Args:
        text: an answer, or a reference.
        language: its code (``de``); it decides how 1.234 and 1 234 are read.
    """
    comma_decimal = _is_comma_decimal(language)
    plain = _prepared(text)
    boxed = _boxed(plain)
    if boxed is not None:
        inside = list(_numbers(boxed, comma_decimal))
        if inside:
            return _chained(boxed, inside, 0)
    found = list(_numbers(plain, comma_decimal))
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


def _is_comma_decimal(language: str | None) -> bool:
    code = (language or "").lower().replace("_", "-").split("-")[0]
    return code in _COMMA_DECIMAL


def _prepared(text: str) -> str:
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


def _announced(text: str, found: list[_Found]) -> Decimal | None:
    """The number after the last phrase that announces the answer, if there is one."""
    best: tuple[int, Decimal] | None = None
    for phrase in _SAID.finditer(text):
        index = next((i for i, item in enumerate(found) if item.start >= phrase.end()), None)
        if index is None or found[index].start - phrase.end() > _GLUE:
            continue
        between = text[phrase.end() : found[index].start]
        if not re.search(r"[.!?。！？।]\s", between):
            best = (phrase.start(), _chained(text, found, index))
    for phrase in _NAMED.finditer(text):
        index = next((i for i, item in enumerate(found) if item.start >= phrase.end()), None)
        if index is None or (best is not None and phrase.start() < best[0]):
            continue
        rest = text[found[index].end :].split("\n", 1)[0]
        if len(rest.strip()) <= _UNIT and not re.search(r"[0-9=+×÷]", rest):
            best = (phrase.start(), found[index].value)
    return best[1] if best else None


def _chained(text: str, found: list[_Found], index: int) -> Decimal:
    """The number at ``index``, or the result of the arithmetic that it begins."""
    value = found[index].value
    for before, item in zip(found[index:], found[index + 1 :], strict=False):
        between = text[before.end : item.start]
        if not between.strip() or "\n" in between or not _CHAIN.fullmatch(between):
            break
        if "=" in between:
            value = item.value
    return value


def _numbers(text: str, comma_decimal: bool) -> Iterator[_Found]:
    """Every number of a prepared text; fractions, powers and myriads are joined."""
    joined: list[_Found] = []
    for single in _scaled(text, _single(text, comma_decimal)):
        item = single
        while joined and (value := _together(text, joined[-1], item)) is not None:
            item = _Found(joined.pop().start, item.end, value)
        joined.append(item)
    yield from joined


def _scaled(text: str, singles: Iterator[_Found]) -> Iterator[_Found]:
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

    item: _Found
    end: int
    small: int
    large: int


def _term(text: str, item: _Found) -> _Term:
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
    if (gap and not (gap == " " and hangul and scaled)) or term.item.value < 0:
        return False
    larges = [one.large for one in chain if one.large > 1]
    if term.large > 1 and larges and term.large >= larges[-1]:
        return False
    section = before.small if before.large == 1 else 10**4
    return term.small < section


def _summed(chain: list[_Term]) -> _Found:
    """The value of a chain: what stands before a 万 is multiplied by it as a whole."""
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
    return _Found(first.start, chain[-1].end, value)


def _together(text: str, before: _Found, item: _Found) -> Decimal | None:
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


def _is_mixed(text: str, whole: _Found, part: _Found) -> bool:
    """Whether a whole number and a fraction with a space between them are one: 2 1/2."""
    written = text[part.start : part.end]
    fraction = "/" in written or not written[0].isdigit()
    return (
        text[whole.end : part.start] == " "
        and text[whole.start : whole.end].lstrip("-\u2212").isdigit()
        and fraction
        and 0 < part.value < 1
    )


def _is_power(text: str, base: _Found, exponent: _Found) -> bool:
    """Whether two numbers are joined by ^, and the power is no monster."""
    return (
        text[base.end : exponent.start] == "^"
        and bool(base.value)
        and base.end - base.start <= _LARGEST_POWER
        and abs(exponent.value) <= _LARGEST_POWER
        and exponent.value == exponent.value.to_integral_value()
    )


def _is_fraction(text: str, above: _Found, below: _Found) -> bool:
    """Whether two numbers are joined by the only slash between them: 1/2, but not 24/11/2026."""
    around = text[max(above.start - 1, 0) : above.start] + text[below.end : below.end + 1]
    return text[above.end : below.start] == "/" and "/" not in around


def _single(text: str, comma_decimal: bool) -> Iterator[_Found]:
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
            yield _Found(start if first else begin, end, signed)


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
