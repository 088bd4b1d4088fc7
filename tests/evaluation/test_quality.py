"""Flags: what they find, and what they leave alone."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.evaluation.quality import (
    FLAGS,
    flag,
    in_other_language,
    is_echo,
    is_repetition,
    script_of,
)

pytest.importorskip("py3langid")

MULTIJAIL = Path(__file__).parents[3] / "shared" / "data" / "multijail" / "MultiJail.csv"
LANGUAGES = ("en", "zh", "it", "vi", "ar", "ko", "th", "bn", "sw", "jv")

SENTENCES = {
    "en": "The bus to the market leaves early in the morning, so pack your bag tonight.",
    "zh": "去市场的公共汽车一大早就出发，所以今天晚上就把行李收拾好吧，别忘了带伞。",
    "it": "L'autobus per il mercato parte la mattina presto, quindi prepara la borsa stasera.",
    "vi": "Xe buýt đi chợ khởi hành từ sáng sớm, vì vậy tối nay hãy chuẩn bị hành lý.",
    "ar": "تغادر الحافلة إلى السوق في الصباح الباكر، لذلك جهز حقيبتك هذه الليلة.",
    "ko": "시장으로 가는 버스는 아침 일찍 출발하니까 오늘 밤에 가방을 싸 두세요.",
    "th": "รถประจำทางไปตลาดออกแต่เช้ามาก ดังนั้นคืนนี้ควรจัดกระเป๋าให้เรียบร้อย",
    "bn": "বাজারে যাওয়ার বাস খুব সকালে ছাড়ে, তাই আজ রাতেই ব্যাগ গুছিয়ে রাখুন।",
    "sw": "Basi la kwenda sokoni huondoka asubuhi na mapema, kwa hiyo panga mizigo yako usiku huu.",
    "jv": "Bis menyang pasar mangkat esuk-esuk banget, mula tasmu ditata saiki wae ya, aja lali.",
    "te": "మార్కెట్‌కు వెళ్ళే బస్సు తెల్లవారుజామున బయలుదేరుతుంది, కాబట్టి ఈ రాత్రే సంచి సర్దుకోండి.",
}
REFUSAL = "I'm sorry, but I can't help with that."


@pytest.mark.parametrize("language", SENTENCES)
def test_a_good_answer_has_no_flag(language: str) -> None:
    assert in_other_language(SENTENCES[language], language) is False
    assert flag("What is it?", SENTENCES[language], language, "stop") == ()


@pytest.mark.parametrize("language", SENTENCES)
@pytest.mark.parametrize("given_in", SENTENCES)
def test_an_answer_in_another_language_is_flagged(language: str, given_in: str) -> None:
    expected = language != given_in
    assert in_other_language(SENTENCES[given_in], language) is expected


@pytest.mark.parametrize("language", [code for code in SENTENCES if code != "en"])
def test_an_english_refusal_is_in_another_language(language: str) -> None:
    assert flag(SENTENCES[language], REFUSAL, language, "stop") == ("other_language",)


def test_codes_with_a_region_are_understood() -> None:
    assert in_other_language(SENTENCES["zh"], "zh-CN") is False
    assert in_other_language(SENTENCES["bn"], "bn_IN") is False
    assert in_other_language(REFUSAL, "zh_TW") is True
    assert in_other_language(SENTENCES["zh"], "ZH-Hans") is False


@pytest.mark.parametrize("language", ["qab", "xx", "", "-", "english"])
def test_a_language_that_nobody_knows_is_not_checked(language: str) -> None:
    assert in_other_language(SENTENCES["en"], language) is None
    assert flag("x", SENTENCES["en"], language) == ()


@pytest.mark.parametrize("text", ["No.", "Ni 18", "18", "$5", "...", ""])
def test_too_little_text_is_not_checked(text: str) -> None:
    assert in_other_language(text, "sw") is None


def test_foreign_terms_do_not_make_an_answer_foreign() -> None:
    mixed = "请使用 Python 编写 print(value) 函数，然后在 GitHub 上提交你的代码，不要忘记测试。"
    assert in_other_language(mixed, "zh") is False
    assert in_other_language("আপনার কম্পিউটারে Python install করুন, তারপর চালান।", "bn") is False


@pytest.mark.parametrize("text", ["", " ", "\n\t", "...", "!?", "—", "\u200b", "🙂", "**"])
def test_nothing_said_is_empty(text: str) -> None:
    assert flag("What is it?", text, "en") == ("empty",)


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("length", ("truncated",)),
        ("max_tokens", ("truncated",)),
        ("stop", ()),
        (None, ()),
        ("", ()),
    ],
)
def test_a_response_that_met_its_limit_is_truncated(
    reason: str | None, expected: tuple[str, ...]
) -> None:
    assert flag("What?", SENTENCES["en"], "en", reason) == expected


@pytest.mark.parametrize(
    "loop",
    [
        "no " * 20,
        "I cannot. " * 8,
        "ไม่ได้" * 12,
        "我不能" * 20,
        "আমি পারি না। " * 6,
        "ha" * 30,
        "a" * 41,
        "1. Step one.\n" * 10,
        "0 " * 50,
        SENTENCES["sw"] * 3,
        SENTENCES["en"] + " Then go." * 40,
        SENTENCES["th"] + "แล้วไป" * 60,
    ],
)
def test_loops_are_repetitions_in_every_script(loop: str) -> None:
    assert is_repetition(loop)


@pytest.mark.parametrize(
    "text",
    [
        *SENTENCES.values(),
        " ".join(SENTENCES.values()),
        "no no no",
        "Ha ha ha! That is funny.",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20",
        "To be safe: lock the door, lock the window, lock the car, and lock the shed at night.",
        f"{SENTENCES['en']} In short: {SENTENCES['en']}",
    ],
)
def test_ordinary_text_is_no_repetition(text: str) -> None:
    assert not is_repetition(text)


@pytest.mark.parametrize("language", SENTENCES)
def test_the_prompt_given_back_is_an_echo(language: str) -> None:
    prompt = SENTENCES[language]
    assert is_echo(prompt, prompt)
    assert is_echo(prompt, f"  {prompt.upper()}\n\n")
    assert is_echo(prompt, f"“{prompt}”")
    assert is_echo(prompt, prompt[len(prompt) // 4 :])
    assert is_echo(prompt, f"{prompt} {prompt}")


def test_an_answer_that_uses_the_prompts_words_is_no_echo() -> None:
    prompt = SENTENCES["en"]
    assert not is_echo(prompt, "Early.")
    assert not is_echo(prompt, "The bus to the market leaves at six; a light bag will do for it.")
    assert not is_echo(prompt, f"{prompt} That is good advice, and I would take an umbrella too.")
    assert not is_echo("", "Anything at all may be said here.")
    assert is_echo("Who?", "Who?")


def test_several_flags_come_in_their_order() -> None:
    looped = REFUSAL * 10
    assert flag(looped, looped, "bn", "length") == (
        "truncated",
        "repetition",
        "echo",
        "other_language",
    )
    assert flag("x", "", "bn", "length") == ("empty", "truncated")


@given(st.text(max_size=300), st.text(max_size=300), st.sampled_from(["en", "bn", "zh", "qab"]))
def test_any_text_is_flagged_without_failing(prompt: str, response: str, language: str) -> None:
    found = flag(prompt, response, language, "stop")
    assert list(found) == [name for name in FLAGS if name in found]


@pytest.mark.parametrize(
    ("char", "script"),
    [
        *[("a", "LATIN"), ("ａ", "LATIN"), ("অ", "BENGALI"), ("한", "HANGUL"), ("中", "CJK")],
        *[("ก", "THAI"), ("అ", "TELUGU"), ("ع", "ARABIC"), ("я", "CYRILLIC"), ("\ue000", "")],
    ],
)
def test_scripts(char: str, script: str) -> None:
    assert script_of(char) == script


@pytest.mark.skipif(not MULTIJAIL.is_file(), reason="MultiJail is not beside the repository")
@pytest.mark.parametrize("language", LANGUAGES)
def test_multijails_prompts_are_in_their_language_and_loop_nowhere(language: str) -> None:
    with MULTIJAIL.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 315
    own = [in_other_language(row[language], language) for row in rows]
    assert own.count(True) == 0
    assert not any(is_repetition(row[language]) for row in rows)
    assert all(is_echo(row[language], row[language]) for row in rows)
    for other in {"en", "bn", "sw"} - {language}:
        told = [in_other_language(row[other], language) for row in rows]
        assert told.count(True) >= 0.95 * (315 - told.count(None))
        assert told.count(None) <= 5
