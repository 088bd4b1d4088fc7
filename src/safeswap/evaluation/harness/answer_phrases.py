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

SAID = re.compile(_sayings(), re.IGNORECASE)
NAMED = re.compile(
    rf"(?:####|(?:{_NAMES})[\s*_]*[:：=ঃ])[\s*_$\\(\[`]*"
    rf"(?=[-\u2212]?(?:{CURRENCY}\s?)?[-\u2212]?\.?[0-9{VULGAR}])",
    re.IGNORECASE,
)
