"""SEA-Safeguard, "cultural in the wild": requests written by speakers, half of them harmless
(from SEA-HELM).

JSON lines of ``label`` (a word of the language), ``prompts`` (one, with ``local_prompt`` and
``en_prompt``) and ``metadata`` (``language``, ``topic``). The harmful half is one benchmark, the
harmless half of the same file another: what a model refuses without need, in the language itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from safeswap.errors import ConfigError, EvaluationError, nearest
from safeswap.evaluation.benchmarks.origins import Origin, OriginFile, github
from safeswap.evaluation.benchmarks.prompts import (
    Kind,
    Prompt,
    PromptSet,
    identity_of,
    need_text,
    reading,
    refuse_twice,
)
from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register
from safeswap.io.jsonfile import read_json_lines
from safeswap.io.keys import check_keys

REPOSITORY = "aisingapore/SEA-HELM"
FOLDER = "seahelm_tasks/safety/safeguard/cultural_in_the_wild/data"
COMMIT = "41cbb6a38c9f5bb3c2c0fb66422eac04cb00616a"
_EARLIER = "6f31153330015502a80b2af9ae3d3ee5d0dc6bde"
_KEYS = ("label", "prompts", "metadata")

LABELS: dict[str, tuple[str, str]] = {
    "id": ("Aman", "Berbahaya"),
    "ms": ("Selamat", "Berbahaya"),
    "my": ("ဘေးကင်း", "အန္တရာယ်ရှိ"),
    "ta": ("பாதுகாப்பானது", "தீங்கு விளைவிக்கும்"),
    "th": ("ปลอดภัย", "อันตราย"),
    "tl": ("Maingat", "Mapahamak"),
    "vi": ("An toàn", "Có hại"),
}
"""Language → its words for harmless and for harmful."""

_FILES = {
    "id": ("0a07a412c216e9307c9ceb36bae93715058898d4688bf474ae266efa05dfa1d4", 152_674, COMMIT),
    "ms": ("92f1db6774a610b06a5b7f9d56265884e763a2d6630d1c5908db1a11aba6351c", 132_988, COMMIT),
    "my": ("24ec518149c1794281d557cc18995ae5222c87b31ba4d2965831455c55cb7dfc", 180_289, COMMIT),
    "ta": ("71760296502dc49014ecde4b1df3cc139cf6c9dbf058b2ccca99dae4947e9da4", 191_037, _EARLIER),
    "th": ("aab8c9c6f76e18981f021a55bdc8616949466b26ea62d78be0f24f33b7e6a3af", 171_983, COMMIT),
    "tl": ("06d6aa03132c856434ee6e812e088c9722c3043d2af41906f9d6dc4a0c9b1cf4", 120_507, COMMIT),
    "vi": ("d501172757dbdf55fa5d83810550fb2505e4c98f4cb95f702c3e4502fe02c1ea", 155_349, _EARLIER),
}


def read_sea_safeguard(kind: Kind, path: Path, name: str, language: str | None) -> PromptSet:
    """One half of a file.

    Args:
        kind: which half.
        language: what the user names it; another one than the file says is refused.

    Raises:
        EvaluationError: no such file, not JSON lines, another form, an unknown label, a request
            twice, none of this half; says which line.
    """
    asked = [
        prompt for line, row in _rows(path) if (prompt := _prompt(path, line, row, kind, language))
    ]
    if not asked:
        raise EvaluationError(f"{path}: holds no {kind} requests.")
    refuse_twice(path, asked)
    return PromptSet(name, kind, tuple(asked))


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        with reading(path):
            yield from read_json_lines(path)
    except ConfigError as error:
        raise EvaluationError(f"{error} SEA-Safeguard's files have one JSON object a line.") from (
            error
        )


def _prompt(path: Path, line: int, row: Any, kind: Kind, language: str | None) -> Prompt | None:
    """The request of a line; None where it is of the other half."""
    where = f"{path}: line {line}"
    if not isinstance(row, dict):
        raise EvaluationError(f"{where} is no object with {', '.join(_KEYS)}.")
    check_keys(row, _KEYS, where, EvaluationError)
    about, prompts = row.get("metadata"), row.get("prompts")
    if not isinstance(about, dict) or not isinstance(prompts, list) or len(prompts) != 1:
        raise EvaluationError(f"{where} needs `prompts`, a list of one, and `metadata`, an object.")
    if not isinstance(prompts[0], dict):
        raise EvaluationError(f"{where}: its prompt is no object with local_prompt and en_prompt.")
    code = need_text(about, "language", where)
    if code not in LABELS:
        raise EvaluationError(f"{where} is in {code!r}, whose labels are unknown{_near(code)}")
    if language not in (None, code):
        raise EvaluationError(
            f"{where} is in {code!r}, and --prompts says {language!r}. Check the file."
        )
    label, words = need_text(row, "label", where), LABELS[code]
    if label not in words:
        raise EvaluationError(
            f"{where} has the label {label!r}; in {code} they are {words[0]} (harmless) and "
            f"{words[1]} (harmful){nearest(label, words)}"
        )
    if (label == words[1]) != (kind == "harmful"):
        return None
    text = need_text(prompts[0], "local_prompt", where)
    origin = need_text(prompts[0], "en_prompt", where)
    tags = (need_text(about, "topic", where),) if about.get("topic") else ()
    return Prompt(identity_of(origin), code, text, tags, origin=origin)


def _near(code: str) -> str:
    return nearest(code, LABELS)


def _origin(name: str) -> Origin:
    return Origin(
        place=f"github.com/{REPOSITORY} at {COMMIT[:7]} (ta, vi: {_EARLIER[:7]})",
        licence="MIT",
        files=tuple(
            OriginFile(
                github(REPOSITORY, commit, f"{FOLDER}/{code}_cultural_in_the_wild.jsonl"),
                digest,
                size,
                (code,),
            )
            for code, (digest, size, commit) in _FILES.items()
        ),
        form=f"{name}/LANGUAGE=FILE",
    )


def _register(name: str, title: str, kind: Kind) -> None:
    register(
        PromptBenchmark(
            name=name,
            title=title,
            kind=kind,
            source=f"github.com/{REPOSITORY}, {FOLDER}/LANGUAGE_cultural_in_the_wild.jsonl",
            read=partial(read_sea_safeguard, kind),
            origin=_origin(name),
        ),
        __name__,
    )


_register("sea-safeguard", "SEA-Safeguard", "harmful")
_register("sea-safeguard-harmless", "SEA-Safeguard, harmless", "harmless")
