"""How languages announce an answer: "the answer is", "Answer:"."""

from __future__ import annotations

import re
from typing import Final

from safeswap.evaluation.harness.written_numbers import CURRENCY, VULGAR

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
    ("సమాధానం|జవాబు", "", ""),  # te: nothing need say it, but a title does not
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


_NO_TITLE: Final = rf"(?!{_SPOKEN}[:：=])"


def _phrase(names: str, after: str) -> str:
    """The name of an answer, with the words that may follow it."""
    more = rf"(?:{_SPOKEN}(?:{after}))*" if after else ""
    return rf"(?:{names}){more}".replace(" ", r"\s+")


def _sayings() -> str:
    """What announces an answer in every language; a word ends where its script ends words."""
    found = []
    for names, after, verbs in _ANNOUNCED:
        ends = r"(?![a-zà-ÿ])" if verbs and verbs[0].isascii() else ""
        said = rf"{_SPOKEN}(?:{verbs}){ends}".replace("(?= )", r"(?=\s)") if verbs else _NO_TITLE
        found.append(_phrase(names, after) + said.replace("would be", r"would\s+be"))
    return "|".join(found)


_NAMES: Final = "|".join([*(_phrase(names, after) for names, after, _ in _ANNOUNCED), _MORE_NAMES])

_NOUN: Final = r"(?:[^\s\d.,:;!?()=+*]{1,20}\s+)?"
"""What is counted may stand before its number: Jibu: matofaa 5."""
SAID = re.compile(_sayings(), re.IGNORECASE)
"""The answer is …"""
NAMED = re.compile(
    rf"(?:####|(?:{_NAMES})[\s*_]*[:：=ঃ])[\s*_$\\(\[`]*{_NOUN}"
    rf"(?=[-\u2212]?(?:{CURRENCY}\s?)?[-\u2212]?\.?[0-9{VULGAR}])",
    re.IGNORECASE,
)
"""Answer: …, up to the number."""
_WHY: Final = (
    "because|since|given that|weil|denn|parce qu|puisqu|porque|ya que|dado que|já que|pois"
    "|perché|poiché|потому|так как|поскольку|kwa sababu|kwa kuwa|kwani|kwa maana|karena"
)
_WHY_AFTER_COMMA: Final = "as|da|car|pues|ведь|vì"
_WHY_ANYWHERE: Final = (
    "เพราะ|เนื่องจาก|因为|因為|由于|由於|なぜなら|だから|ので|ため|왜냐하면|때문|কারণ|যেহেতু|কেননা|ఎందుకంటే|కాబట్టి"
    "|क्योंकि|لأن"
)
REASON = re.compile(
    rf"\b(?:{_WHY})|[,;]\s*(?:{_WHY_AFTER_COMMA})\b|{_WHY_ANYWHERE}|[(（]", re.IGNORECASE
)
"""What says that the numbers after it explain an answer: "since 3 + 2 = 5", "(3 + 2)"."""
CLAUSE = re.compile(r"[,;:.!?(（，、；。！？।—–=]")
"""Where an answer's unit ends and something else begins."""
_TO: Final = "to|bis|à|hasta|a|до|hadi|mpaka|đến|sampai"
_OR: Final = "or|oder|ou|o|u|или|au|hoặc|atau"
_TO_ANYWHERE: Final = "ถึง|到|至|から|에서|থেকে|నుండి|నుంచి"
_OR_ANYWHERE: Final = "หรือ|或者?|または|もしくは|또는|বা|అথবা|లేదా"
RANGE = re.compile(r"(?:[-\u2212–—~〜～]|\.\.\.?|…)")
_COUNTED: Final = r".{0,8}?"
SPOKEN_RANGE = re.compile(
    rf"\s?{RANGE.pattern}\s?|{_COUNTED}(?:\s(?:{_TO})\s|(?:{_TO_ANYWHERE})\s?)", re.IGNORECASE
)
"""What stands between the two ends of a range: 5–10, 5 to 10."""
EITHER = re.compile(rf"{_COUNTED}(?:\s(?:{_OR})\s|(?:{_OR_ANYWHERE})\s?)", re.IGNORECASE)
"""What stands between two answers."""
BETWEEN = re.compile(r"(?:between|zwischen|entre|между|kati ya|ระหว่าง|tra)\s?$", re.IGNORECASE)
"""What stands before the lower end of a range."""
