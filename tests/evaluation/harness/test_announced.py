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
SAME_LINE = {
    # the name of the answer; numbers on its line that explain it; the title of reasoning to come
    "en": ("Answer: {} apples, since 7 - 4 and 3.", "Answer: {} because of the 7 and the 4",
           "Answer: {} apples (7 and 4)", "Answer: apples {} (7, 4)",
           "The answer is {} apples, since 7 and 4.", "The answer is {}, not 7 and not 4.",
           "Step-by-Step Answer: 7 apples, 4 more.\nThat makes {}"),
    "de": ("Antwort: {} Äpfel, weil 7 - 4 und 3.", "Antwort: {}, denn 7 und 4",
           "Antwort: {} Äpfel (7 und 4)", "Antwort: Äpfel {} (7, 4)",
           "Die Antwort ist {} Äpfel, weil 7 und 4.", "Die Antwort lautet {}, nicht 7 und nicht 4.",
           "Schritt-für-Schritt-Antwort: 7 Äpfel, 4 mehr.\nDas sind {}"),
    "fr": ("Réponse : {} pommes, parce que 7 - 4 et 3.", "Réponse : {}, car 7 et 4",
           "Réponse : {} pommes (7 et 4)", "Réponse : pommes {} (7, 4)",
           "La réponse est {} pommes, parce que 7 et 4.", "La réponse est {}, et non 7 ni 4.",
           "Réponse étape par étape : 7 pommes, 4 de plus.\nCela fait {}"),
    "es": ("Respuesta: {} manzanas, porque 7 - 4 y 3.", "Respuesta: {}, ya que 7 y 4",
           "Respuesta: {} manzanas (7 y 4)", "Respuesta: manzanas {} (7, 4)",
           "La respuesta es {} manzanas, porque 7 y 4.", "La respuesta es {}, no 7 ni 4.",
           "Respuesta paso a paso: 7 manzanas, 4 más.\nSon {}"),
    "ru": ("Ответ: {} яблок, потому что 7 - 4 и 3.", "Ответ: {}, так как 7 и 4",
           "Ответ: {} яблок (7 и 4)", "Ответ: яблок {} (7, 4)",
           "Ответ равен {}, поскольку 7 и 4.", "Ответ — {}, а не 7 и не 4.",
           "Пошаговый ответ: 7 яблок, ещё 4.\nВсего {}"),
    "sw": ("Jibu: {}, kwa sababu 7 - 4 na 3.", "Jibu: {} kwani 7 na 4",
           "Jibu: {} (7 na 4)", "Jibu: matofaa {}, kwa kuwa 7 na 4",
           "Jibu ni matofaa {}, kwa sababu 7 na 4.", "Jibu ni {}, si 7 wala 4.",
           "Jibu la Hatua kwa Hatua: 7, na zaidi 4.\nJumla {}"),
    "th": ("คำตอบ: {} ผล เพราะ 7 - 4 และ 3", "คำตอบ: {} เนื่องจาก 7 และ 4",
           "คำตอบ: {} ผล (7 และ 4)", "คำตอบ: แอปเปิล {} ผล (7, 4)",
           "คำตอบคือ {} ผล เพราะ 7 และ 4", "คำตอบคือ {} ไม่ใช่ 7 หรือ 4",
           "คำตอบทีละขั้นตอน: 7 ผล, อีก 4\nรวม {}"),
    "zh": ("答案：{}个，因为7 - 4和3。", "答案：{}，由于7和4",
           "答案：{}个（7和4）", "答案：苹果 {} 个（7、4）",
           "答案是{}个，因为7和4。", "答案是{}，不是7和4。",
           "逐步解答：7个，还有4个。\n一共{}"),
    "ja": ("答え：{}個、なぜなら7 - 4と3。", "答え：{}、7と4だから",
           "答え：{}個（7と4）", "答え：りんご {} 個（7、4）",
           "答えは{}個です。7と4だから。", "答えは{}で、7や4ではない。",
           "ステップごとの答え：7個、あと4個。\n合計{}"),
    "bn": ("উত্তর: {}টি, কারণ 7 - 4 এবং 3।", "উত্তর: {}, যেহেতু 7 এবং 4",
           "উত্তর: {}টি (7 এবং 4)", "উত্তর: আপেল {}টি (7, 4)",
           "উত্তর হল {}টি, কারণ 7 এবং 4।", "উত্তর হল {}, 7 এবং 4 নয়।",
           "ধাপে ধাপে উত্তর: 7টি, আরও 4টি।\nমোট {}"),
    "te": ("సమాధానం: {} ఆపిల్స్, ఎందుకంటే 7 - 4 మరియు 3.", "సమాధానం: {}, 7 మరియు 4 కాబట్టి",
           "సమాధానం: {} ఆపిల్స్ (7 మరియు 4)", "సమాధానం: ఆపిల్స్ {} (7, 4)",
           "సమాధానం {} ఆపిల్స్, ఎందుకంటే 7 మరియు 4.", "సమాధానం {}, 7 మరియు 4 కాదు.",
           "దశలవారీగా సమాధానం: 7 ఆపిల్స్, ఇంకా 4.\nమొత్తం {}"),
}  # fmt: skip
TWO_WAYS = {
    "en": (
        "The answer is {} to {}.",
        "The answer is {} or {}.",
        "The answer is between {} and {}.",
    ),
    "de": ("Die Antwort ist {} bis {}.", "Die Antwort ist {} oder {}."),
    "fr": ("La réponse est {} à {}.", "La réponse est {} ou {}."),
    "es": ("La respuesta es {} a {}.", "La respuesta es {} o {}."),
    "ru": ("Ответ равен {} до {}.", "Ответ равен {} или {}."),
    "sw": ("Jibu ni {} hadi {}.", "Jibu ni {} au {}."),
    "th": ("คำตอบคือ {} ถึง {}", "คำตอบคือ {} หรือ {}"),
    "zh": ("答案是{}到{}。", "答案是{}个或{}个。"),
    "ja": ("答えは{}から{}です。", "答えは{}個または{}個です。"),
    "bn": ("উত্তর হল {} থেকে {}।", "উত্তর হল {} বা {}।"),
    "te": ("సమాధానం {} నుండి {}.", "సమాధానం {} లేదా {}."),
}
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


@pytest.mark.parametrize("language", SAID)
def test_other_numbers_on_the_line_of_the_answer_do_not_count(language: str) -> None:
    assert len(SAME_LINE[language]) == 7
    for wording in SAME_LINE[language]:
        for gold in golds(language):
            wanted = Decimal(gold.replace(",", ""))
            assert final_number(wording.format(gold), language) == wanted, (wording, gold)


@pytest.mark.parametrize("language", SAID)
def test_two_answers_and_ranges_are_not_read(language: str) -> None:
    name = SAID[language][0]
    for wording in (
        *TWO_WAYS[language],
        f"{name}: {{}}–{{}}",
        f"{name}: {{}}-{{}}",
        "\\boxed{{{}-{}}}",
    ):
        assert final_number(wording.format(5, 10), language) is None, wording
    # an answer with its parts, or the beginning of reasoning
    assert final_number(f"{name}: 5, 2, 1.", language) is None
    assert final_number(f"{name}: 5, 2, 1. = 5", language) == 5


@pytest.mark.parametrize(
    ("text", "language", "value"),
    [
        ("1万2", "zh", None),
        ("1万2", None, None),
        ("3千5", "zh", None),
        ("1万2", "ja", 10002),
        ("1만2", "ko", 10002),
        ("3만 500원", "ko", 30500),
        ("1万02", "zh", 10002),
        ("1万200", "zh", 10200),
        ("2十5", "zh", 25),
        ("It is 5-10", "en", None),
        ("It is 10-5", "en", 5),
        ("It was 7 and rose from 5 to 10", "en", 10),
        ("5〜10個", "ja", None),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(
    text: str, language: str | None, value: int | None
) -> None:
    assert final_number(text, language) == value


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
