"""The final number: by value, in every script, with every way to group digits."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.evaluation.harness.final_number import final_number, same_number

MGSM = Path(__file__).parents[4] / "shared" / "data" / "mgsm"
LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")

ZEROS = {
    "ASCII": "0",
    "Bengali": "০",
    "Telugu": "౦",
    "Thai": "๐",
    "Arabic-Indic": "٠",
    "Persian": "۰",
    "Devanagari": "०",
    "full width": "０",
    "Khmer": "០",
    "Tamil": "௦",
}

SCRIPTS = {
    "১৮": 18,
    "১,১৪,২০০": 114200,
    "౧౮.౫": "18.5",
    "๑๘": 18,
    "١٨": 18,
    "١٬٢٣٤٫٥": "1234.5",
    "۱۸": 18,
    "१८": 18,
    "１８": 18,
    "２，１２５": 2125,
    "１．８": "1.8",
    "－１８": -18,
    "＄１８": 18,
}

SEPARATORS = {
    "18.00": 18,
    "1.8": "1.8",
    "18.": 18,
    "18 .": 18,
    "2,125": 2125,
    "1,00,000": 100000,
    "12,34,567.50": "1234567.5",
    "1,234,567": 1234567,
    "1,234.5": "1234.5",
    "1.234,5": "1234.5",
    "1.234.567": 1234567,
    "1.234.567,89": "1234567.89",
    "1\u00a0234": 1234,
    "1\u202f234,5": "1234.5",
    "1\u2009234\u2009567": 1234567,
    "1'234": 1234,
    "1’234.50": "1234.5",
    "1234": 1234,
    "1,8": "1.8",
    "18,00": 18,
    "0,5": "0.5",
    "0.123": "0.123",
    "0,123": "0.123",
    "1234,567": "1234.567",
    "1.234": "1.234",
    "3 200": 200,
    "3,4,5": 5,
    "3，4": 4,
    "3、4": 4,
    "3, 4": 4,
    "1.2.3": 3,
    "24.11.2026": 2026,
    "12:30": 30,
    ".5": "0.5",
    "-.5": "-0.5",
    "007": 7,
}

SIGNS = {
    "-5": -5,
    "−5": -5,
    "− 5": -5,
    "= -5": -5,
    "-$5": -5,
    "$-5": -5,
    "−$ 5": -5,
    "是-5": -5,
    "- 5 apples": 5,
    "10-5": 5,
    "10 -5": 5,
    "10 - 5": 5,
    "5 – 10": 10,
    "10–5": 5,
    "— 18": 18,
    "COVID-19": 19,
    "5 * -3": -3,
    "(-3)": -3,
}

AROUND = {
    "$18": 18,
    "US$18": 18,
    "18 $": 18,
    "18$": 18,
    "€1.50": "1.5",
    "18€": 18,
    "₹1,00,000": 100000,
    "Rs.18": 18,
    "KES35,000": 35000,
    "৳18": 18,
    "18%": 18,
    "18 km": 18,
    "18개": 18,
    "18人": 18,
    "$18 per day": 18,
    "**18**": 18,
    "*18*": 18,
    "_18_": 18,
    "`18`": 18,
    "~18": 18,
    "[18]": 18,
    "“18”": 18,
    "18。": 18,
    "18।": 18,
    "18!": 18,
    "$18$": 18,
    "\\(18\\)": 18,
    "\\$18": 18,
    "18\\%": 18,
    "1{,}234": 1234,
    "1\\,234": 1234,
    "1/2": "0.5",
    "3/4 of it": "0.75",
    "½": "0.5",
    "18½": "18.5",
    "\\frac{1}{2}": "0.5",
    "24/11/2026": 2026,
    "1/0": 0,
    "1.8e3": 1800,
    "2E-1": "0.2",
    "18万": 180000,
    "1.8億": 180000000,
    "11万4200円": 114200,
    "1億2000万": 120000000,
}

JOINED = {
    "2 1/2": "2.5",
    "-2 1/2": "-2.5",
    "2\\frac{1}{2}": "2.5",
    "2 \\tfrac{3}{4}": "2.75",
    "2½": "2.5",
    "2 ½": "2.5",
    "12 3/2": "1.5",  # no mixed number
    "7 of 1/2": "0.5",
    "2^3": 8,
    "10²": 100,
    "10^{-2}": "0.01",
    "5 × 10^3": 5000,
    "1.5\\times10^4": 15000,
    "1.2 × 10⁶": 1200000,
    "3 \\cdot 10^{2}": 300,
    "9^0.5": "0.5",  # a root is not read
    "2^999": 999,
}

ANNOUNCED = {
    "The answer is 2^3 = 8 of 12": 8,
    "The answer is 2 1/2 hours for 3": "2.5",
    "The answer is 18.": 18,
    "The answer is 18. I counted 3 times.": 18,
    "The answer is 12. No, that is wrong. The answer is 18.": 18,
    "the ANSWER is $18 per day, or 126 a week": 18,
    "The answer is 9 * 2 = 18 for 1 day": 18,
    "The answer is 16 - 3 - 4 = 9 and 2": 9,
    "The answer is: \n\n**42**\n\nIt took 3 steps": 42,
    "The final answer is 18 because 25-7=18 and 3+4=7": 18,
    "Answer: 18\n\nExplanation: 9 eggs at 2 each": 18,
    "**Answer:** $18\nShe sells 9 for 2.": 18,
    "Answer: 18 dollars\nin 7 days": 18,
    "Answer: 16 - 3 = 13\n13 - 4 = 9": 9,
    "Step-by-Step Answer: 16 eggs are laid on every day.\nShe sells 9.": 9,
    "#### 18\n\nQ2": 18,
    "It is \\boxed{18} in 3 steps": 18,
    "\\boxed{12}, no, $\\boxed{\\$1{,}234.00}$ after 2 tries": 1234,
    "\\boxed{\\frac{1}{2}} of 3": "0.5",
    "\\boxed{9 \\times 2 = 18} 3": 18,
    "\\boxed{\\text{18 eggs}} 3": 18,
    "The answer is 3, so \\boxed{18": 18,
    "The answer is 18 and \\boxed{}": 18,
    "La respuesta es 18. Son 3 pasos.": 18,
    "La réponse est 18 $. En 3 étapes.": 18,
    "Die Antwort lautet 18. In 3 Schritten.": 18,
    "Ответ — 18. За 3 шага.": 18,
    "Ответ: 18\nЗа 3 шага": 18,
    "答案是 18。共3步。": 18,
    "答案：18\n共3步": 18,
    "答えは18です。3段階です。": 18,
    "Jibu ni 18. Hatua 3.": 18,
    "উত্তর হল ১৮। ৩টি ধাপ।": 18,
    "উত্তর: ১৮\n৩টি ধাপ": 18,
    "సమాధానం 18. 3 దశలు.": 18,
    "คำตอบคือ ๑๘ ใน 3 ขั้นตอน": 18,
    "정답은 18입니다. 3단계.": 18,
    "Đáp án là 18. Gồm 3 bước.": 18,
    "Jawabannya adalah 18. Ada 3 langkah.": 18,
    "الجواب هو ١٨ في ٣ خطوات": 18,
    "La risposta è 18. In 3 passi.": 18,
    "She has 16 eggs, eats 3, and sells the other 13": 13,
    "The answer is unclear. She has 3.": 3,
}

BY_LANGUAGE = [
    ("1.234", "de", 1234),
    ("1.234", "es", 1234),
    ("1.234", "vi", 1234),
    ("1.234", "en", "1.234"),
    ("1.234", "sw", "1.234"),
    ("1.234", "zh-CN", "1.234"),
    ("1.234", "de_DE", 1234),
    ("0.234", "de", "0.234"),
    ("18.00", "de", 18),
    ("1.8", "de", "1.8"),
    ("1,234", "de", 1234),
    ("1,8", "de", "1.8"),
    ("1 234", "fr", 1234),
    ("5 000,50", "ru", "5000.5"),
    ("1 234", "en", 234),
    ("3 et 20", "fr", 20),
    ("en 2023 18", "fr", 18),
]


@pytest.mark.parametrize(
    ("text", "value"),
    [*SCRIPTS.items(), *SEPARATORS.items(), *SIGNS.items(), *AROUND.items(), *JOINED.items()],
)
def test_a_number_is_read_by_its_value(text: str, value: Any) -> None:
    assert final_number(text) == Decimal(str(value))
    assert final_number(f"So it is {text}") == Decimal(str(value))


@pytest.mark.parametrize(("text", "value"), ANNOUNCED.items())
def test_the_answer_goes_before_other_numbers(text: str, value: Any) -> None:
    assert final_number(text) == Decimal(str(value))


@pytest.mark.parametrize(("text", "language", "value"), BY_LANGUAGE)
def test_the_language_decides_what_a_point_and_a_space_are(
    text: str, language: str, value: Any
) -> None:
    assert final_number(text, language) == Decimal(str(value))


@pytest.mark.parametrize("text", ["", " ", "none", "eighteen", "十八", ".", "-", "$", "\\boxed{x}"])
def test_no_number_is_none(text: str) -> None:
    assert final_number(text) is None
    assert not same_number(final_number(text), final_number(text))


def test_sameness_is_by_value() -> None:
    assert same_number(Decimal("18.00"), Decimal(18))
    assert same_number("18.00", "18")
    assert same_number("১৮", Decimal(18))
    assert same_number("2.125", "2,125", "de")
    assert not same_number("1.8", "18")
    assert not same_number("1800", "18.00")
    assert not same_number("-18", "18")
    assert not same_number(None, None)
    assert not same_number("none", "none")


def test_much_text_is_read_in_little_time() -> None:
    assert final_number("answer" + " " * 200_000) is None
    assert final_number("The answer is 18. " * 500) == 18
    assert final_number("\\boxed{" * 5_000 + "18") == 18
    assert final_number("9" * 50_000) == Decimal("9" * 50_000)
    assert final_number("1," * 20_000 + "5") == 5
    assert final_number("-" * 50_000 + "5") is not None


@given(
    st.one_of(st.text(), st.text(alphabet="0123456789.,-−/^²× \n$%'eE=×½万億\\boxed{}৫٫٬\u00a0"))
)
def test_any_text_is_read_without_failing(text: str) -> None:
    for language in (None, "de", "en"):
        value = final_number(text, language)
        assert value is None or value.is_finite()


@given(st.integers(-(10**12), 10**12), st.sampled_from(sorted(ZEROS)))
def test_whole_numbers_come_back_in_every_script(number: int, script: str) -> None:
    digits = {ord(str(n)): chr(ord(ZEROS[script]) + n) for n in range(10)}
    assert final_number(str(number).translate(digits)) == number
    assert final_number(f"{number:,}".translate(digits)) == number
    assert final_number(f"... = {number}.00!".translate(digits)) == number


@given(st.decimals(-10000, 10000, places=2), st.sampled_from(["en", "de"]))
def test_decimals_come_back_in_both_conventions(number: Decimal, language: str) -> None:
    written = f"{number:,.2f}"
    if language == "de":
        written = written.translate(str.maketrans(",.", ".,"))
    assert final_number(f"x = {written} kg", language) == number


@pytest.mark.skipif(not MGSM.is_dir(), reason="MGSM is not beside the repository")
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_reference_of_mgsm_is_read(language: str) -> None:
    path = MGSM / f"mgsm_{language}.tsv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert len(rows) == 250
    for _, reference in rows:
        expected = Decimal(reference.replace(",", ""))
        assert final_number(reference, language) == final_number(reference) == expected


HARNESS_WRONG = [  # answer, reference, whether it is right
    ("The total is 18.00", "18", True),
    ("The total is 1.8", "18", False),
    ("The total is 0.18", "018", False),
    ("মোট ১৮", "18", True),
    ("รวม ๑๘ บาท", "18", True),
    ("మొత్తం ౧౮", "18", True),
    ("The total is −18", "18", False),
    ("The answer is 18 (in 3 steps)", "18", True),
    ("Total : 1\u202f234", "1234", True),
    ("The total is 18/2", "2", False),
    ("The total is \\boxed{18} as of step 4", "18", True),
]


def _harness(answer: str, reference: str) -> bool:
    """What lm-evaluation-harness makes of it: MGSM's own filter and metric, as configured."""
    extraction = pytest.importorskip("lm_eval.filters.extraction")
    metrics = pytest.importorskip("lm_eval.api.metrics")
    pattern = "(-?[$0-9.,]{2,})|(-?[0-9]+)"
    taken = extraction.RegexFilter(regex_pattern=pattern, group_select=-1).apply([[answer]], [{}])
    score = metrics.exact_match_hf_evaluate(
        predictions=[next(iter(taken))[0]],
        references=[reference],
        ignore_case=True,
        ignore_punctuation=True,
    )
    return bool(score["exact_match"])


@pytest.mark.parametrize(("answer", "reference", "right"), HARNESS_WRONG)
def test_right_where_the_harness_is_wrong(answer: str, reference: str, right: bool) -> None:
    assert _harness(answer, reference) is not right
    assert same_number(answer, reference) is right


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("The total is 18", "18", True),
        ("The total is $18.", "18", True),
        ("The total is 2,125 dollars", "2125", True),
        ("The total is 17", "18", False),
        ("No idea", "18", False),
    ],
)
def test_and_of_its_opinion_where_it_is_right(answer: str, reference: str, right: bool) -> None:
    assert _harness(answer, reference) is right
    assert same_number(answer, reference) is right
