"""PolyRefuse: harmful and harmless requests, machine-translated (Wang et al., 2025, arXiv
2505.17306).

JSON lists of ``instruction``, ``category`` and, in the translated test sets,
``instruction_translated``, which is what is asked then; the instruction is its English original.
A request is known by its English words: the same id in every language, and in the harmful and the
harmless half of any split. Some stand twice in the authors' files, and are asked once.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from safeswap.errors import ConfigError, EvaluationError
from safeswap.evaluation.benchmarks.origins import Origin, OriginFile, github
from safeswap.evaluation.benchmarks.prompts import (
    Kind,
    Prompt,
    PromptSet,
    identity_of,
    need_text,
    reading,
)
from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register
from safeswap.io.jsonfile import load_json
from safeswap.io.keys import check_keys

_log = logging.getLogger("safeswap.evaluation")
REPOSITORY = "mainlp/Multilingual-Refusal"
COMMIT = "985169df2a0b1ba56a95c65d5f60e228f12be4a1"
_KEYS = ("instruction", "instruction_translated", "category")

_HARMFUL = {
    "en": ("5e12ae102c3791dee083a69ab6269a78e033411c629bc3f66f75d2fde196d9ef", 115_743),
    "ar": ("f1f363a3b253872d2415838175ccaf741c279bee9723ce7ae5a40dec8f0ae548", 446_649),
    "it": ("9587a5bbd4878d380b843e9cb01285f0cf36dcc97a381dec9f20480f52f3fa65", 218_399),
    "ko": ("9dc80eb4d7bf41ca9bed3643e35e8d363e4e6665b46c1106c71ea57c44980724", 302_007),
    "th": ("c071202e38e6d1fcc147b96a219e29de2b77d1aa4e1b97c27072b596a793f8c5", 504_294),
    "yo": ("13285d2b1e1d6bad82588abf399246039c7e0172693e65c72cb5714496e401e4", 238_105),
    "zh": ("2bbf743fe07db0d16c657e4c234b2db8677a6280b7d2a552c0b311fadce3498c", 253_818),
}
_HARMLESS = {
    "en": ("ca86e8417e238e04b5542db8cacda276ea48203d74993da8fb58d6ad12229a4a", 62_289),
    "ar": ("b9ccfb0ae2db06bc6fa2230bfdd4f6ef56bf51100547859e113ad8a3a6b43979", 200_157),
    "it": ("622cd6e1ac2d505b67e19180c6321c3fde8065a3fd7ddec5744a3c5de02c02fd", 116_100),
    "ko": ("769d76c1dd15f4e859b677fd0182e023781d6c33f1c4cdfb22c728d4561aedaf", 152_559),
    "th": ("c0e70df3d1ea0a79734b6ec316c8432f9d9413b6f30174934b218394a43a3b43", 230_733),
    "yo": ("9a4d4a9e1a5f23cf309b24095c13186701d90577898bff1619a72fb908fb3268", 124_983),
}


def read_polyrefuse(kind: Kind, path: Path, name: str, language: str | None) -> PromptSet:
    """The requests of a file.

    Args:
        kind: harmful or harmless; the file does not say it.
        language: what the file is in (default ``en``); needed where it holds translations.

    Raises:
        EvaluationError: no such file, not JSON, another form, nothing to ask; says which entry.
    """
    entries = _entries(path)
    asked: dict[str, Prompt] = {}
    for number, entry in enumerate(entries, start=1):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise EvaluationError(f"{where} is no object with {', '.join(_KEYS)}.")
        check_keys(entry, _KEYS, where, EvaluationError)
        origin = need_text(entry, "instruction", where)
        text = origin
        if "instruction_translated" in entry:
            text = need_text(entry, "instruction_translated", where)
            if language is None:
                raise EvaluationError(
                    f"{path}: holds translations, and does not say into which language. Name it: "
                    f"--prompts {name}/LANGUAGE=FILE."
                )
        tags = (need_text(entry, "category", where),) if entry.get("category") else ()
        same = identity_of(origin)
        asked.setdefault(same, Prompt(same, language or "en", text, tags, origin=origin))
    if not asked:
        raise EvaluationError(f"{path}: holds no requests.")
    if twice := len(entries) - len(asked):
        _log.info(
            f"{name}, {language or 'en'}: {twice} of {len(entries)} requests stand twice; each is "
            "asked once"
        )
    return PromptSet(name, kind, tuple(asked.values()))


def _entries(path: Path) -> list[Any]:
    try:
        with reading(path):
            entries = load_json(path)
    except ConfigError as error:
        raise EvaluationError(f"{error} PolyRefuse's files are JSON.") from error
    if not isinstance(entries, list):
        raise EvaluationError(f"{path}: is no JSON list of requests, as PolyRefuse's files are.")
    return entries


def _origin(name: str, half: str, english: str, known: dict[str, tuple[str, int]]) -> Origin:
    def path(code: str) -> str:
        return english if code == "en" else f"PolyRefuse/{half}_test_translated_{code}.json"

    return Origin(
        place=f"github.com/{REPOSITORY} at {COMMIT[:7]}",
        licence="Apache-2.0",
        files=tuple(
            OriginFile(github(REPOSITORY, COMMIT, path(code)), digest, size, (code,))
            for code, (digest, size) in known.items()
        ),
        form=f"{name}/LANGUAGE=FILE",
        unpinned="no digest of a file of its authors in this language is known; such a file is "
        "given with",
    )


_SOURCE = f"github.com/{REPOSITORY}, PolyRefuse/{{}}_test_translated_LANGUAGE.json"
register(
    PromptBenchmark(
        name="polyrefuse",
        title="PolyRefuse",
        kind="harmful",
        source=_SOURCE.format("harmful"),
        read=partial(read_polyrefuse, "harmful"),
        origin=_origin("polyrefuse", "harmful", "dataset/splits/harmful_test.json", _HARMFUL),
    ),
    __name__,
)
register(
    PromptBenchmark(
        name="polyrefuse-harmless",
        title="PolyRefuse, harmless",
        kind="harmless",
        source=_SOURCE.format("harmless"),
        read=partial(read_polyrefuse, "harmless"),
        origin=_origin(
            "polyrefuse-harmless",
            "harmless",
            "dataset/splits/harmless_test_500_sampled.json",
            _HARMLESS,
        ),
    ),
    __name__,
)
