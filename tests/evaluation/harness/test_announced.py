"""All eleven languages of MGSM are read alike: an answer, then a check with other numbers.

Ten wordings per language, each with every gold number that is at hand; without the public files, a
few made-up golds stand in.
"""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from safeswap.evaluation.harness.final_number import final_number

DATA = Path(__file__).parents[4] / "shared" / "data" / "mgsm"
EVERYWHERE = ("#### {}", "\\boxed{{{}}}", "{name}: {}", "**{name}:** {}")
SAID = {
    "en": ("Answer", "Final answer: {}", "The answer is {}.", "The final answer is {}.",
           "The correct answer is {}.", "So the answer is **{}**.", "The answer would be {}."),
    "de": ("Antwort", "Endgültige Antwort: {}", "Die Antwort ist {}.",
           "Die richtige Antwort ist {}.",
           "Die Antwort lautet {}.", "Das Ergebnis ist {}.", "Die Lösung lautet **{}**."),
    "fr": ("Réponse", "Réponse finale : {}", "La réponse est {}.", "La réponse correcte est {}.",
           "La réponse finale est {}.", "Donc, la bonne réponse est {}.",
           "La réponse exacte est **{}**."),
    "es": ("Respuesta", "Respuesta final: {}", "La respuesta es {}.",
           "La respuesta correcta es {}.",
           "La respuesta final es {}.", "Por lo tanto, la respuesta es **{}**.",
           "El resultado final es {}."),
    "ru": ("Ответ", "Окончательный ответ: {}", "Ответ: {}.", "Правильный ответ: {}",
           "Ответ равен {}.", "Ответом является {}.", "Итак, ответ — {}."),
    "sw": ("Jibu", "Jibu la mwisho: {}", "Jibu ni {}.", "Jibu sahihi ni {}.",
           "Jibu la mwisho ni {}.", "Kwa hiyo jibu ni **{}**.", "Jibu la swali ni {}."),
    "th": ("คำตอบ", "คำตอบสุดท้าย: {}", "คำตอบคือ {}", "คำตอบที่ถูกต้องคือ {}",
           "คำตอบสุดท้ายคือ {}", "ดังนั้นคำตอบคือ **{}**", "คำตอบที่ได้เท่ากับ {}"),
    "zh": ("答案", "最终答案：{}", "答案是{}。", "答案就是{}。", "正确答案为 {}。",
           "所以答案应该是 **{}**。", "答案等于 {}。"),
    "ja": ("答え", "最終的な答え：{}", "答えは{}です。", "正解は {} です。", "正しい答えは{}です。",
           "したがって、答えは **{}** です。", "解答は{}です。"),
    "bn": ("উত্তর", "উত্তরঃ {}", "উত্তর হল {}।", "উত্তরটি হলো {}।", "সঠিক উত্তর হচ্ছে {}।",
           "চূড়ান্ত উত্তর: {}", "সুতরাং উত্তর হবে **{}**।"),
    "te": ("సమాధానం", "జవాబు: {}", "సమాధానం {}.", "సరైన జవాబు {}.", "తుది సమాధానం: {}",
           "కాబట్టి సమాధానం **{}**.", "తుది జవాబు {}."),
}  # fmt: skip
CHECK = "\n\n(2 × 9, 7 + 4.)"


def golds(language: str) -> list[str]:
    path = DATA / f"mgsm_{language}.tsv"
    if not path.is_file():
        return ["18", "2,125", "5", "260", "0.5", "70000"]
    with path.open(encoding="utf-8", newline="") as file:
        return [row[1] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


@pytest.mark.parametrize("language", SAID)
def test_an_announced_answer_is_read_before_a_check(language: str) -> None:
    name, *own = SAID[language]
    wordings = [*EVERYWHERE, *own]
    assert len(wordings) == 10
    for wording in wordings:
        for gold in golds(language):
            text = f"3 + 4 = 7.\n{wording.format(gold, name=name)}{CHECK}"
            wanted = Decimal(gold.replace(",", ""))
            assert final_number(text, language) == wanted, (wording, gold)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1万2千", 12000),
        ("5千", 5000),
        ("3百", 300),
        ("3억 5천만", 350_000_000),
        ("2千3百万円", 23_000_000),
        ("1億2345万6789", 123_456_789),
        ("10万", 100_000),
        ("5千克", 5),
        ("3千米", 3),
        ("The area is 18 m^2.", 18),
        ("18 cm^{3}", 18),
        ("\\text{18 cm}^2", 18),
        ("18 ft²", 18),
        ("18 cm2", 18),
        ("18 = x**2", 18),
        ("It is **18**", 18),
        ("1_000", 1000),
        ("١،٢٥٠", 1250),
    ],
)
def test_spellings_with_scales_units_and_marks(text: str, value: int) -> None:
    assert final_number(text) == value
