"""StrongREJECT: 313 forbidden requests in English (Souly et al., NeurIPS 2024, arXiv 2402.10260).

A CSV of ``category``, ``source`` and ``forbidden_prompt``. A translation has the English beside
what is asked, in a column ``forbidden_prompt_translated``, so that a request is known in both.
"""

from __future__ import annotations

from pathlib import Path

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.benchmarks.origins import Origin, OriginFile, github
from safeswap.evaluation.benchmarks.prompts import (
    Prompt,
    PromptSet,
    identity_of,
    need_text,
    read_rows,
    refuse_twice,
)
from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register

REPOSITORY = "alexandrasouly/strongreject"
COMMIT = "f7cad6c17e624e21d8df2278e918ae1dddb4cb56"
PATH = "strongreject_dataset/strongreject_dataset.csv"
_NEEDED = ("category", "source", "forbidden_prompt")
_TRANSLATED = "forbidden_prompt_translated"


def read_strongreject(path: Path, name: str, language: str | None) -> PromptSet:
    """The requests of a file.

    Args:
        language: what is asked in (default ``en``); needed where the file holds translations.

    Raises:
        EvaluationError: no such file, no such columns, an empty or repeated request.
    """
    columns, rows = read_rows(path)
    for column in _NEEDED:
        if column not in columns:
            raise EvaluationError(
                f"{path}: has no column {column!r}, as StrongREJECT's file has"
                f"{nearest(column, columns)}"
            )
    translated = _TRANSLATED in columns
    if translated and language is None:
        raise EvaluationError(
            f"{path}: holds translations, and does not say into which language. Name it: --prompts "
            f"{name}/LANGUAGE=FILE."
        )
    asked = []
    for number, row in enumerate(rows, start=1):
        where = f"{path}: row {number}"
        origin = need_text(row, "forbidden_prompt", where)
        text = need_text(row, _TRANSLATED, where) if translated else origin
        tags = (need_text(row, "category", where),)
        asked.append(Prompt(identity_of(origin), language or "en", text, tags, origin=origin))
    if not asked:
        raise EvaluationError(f"{path}: holds no requests.")
    refuse_twice(path, asked)
    return PromptSet(name, "harmful", tuple(asked))


ORIGIN = Origin(
    place=f"github.com/{REPOSITORY} at {COMMIT[:7]}",
    licence="MIT (requests from earlier sets: theirs)",
    files=(
        OriginFile(
            github(REPOSITORY, COMMIT, PATH),
            "4dd70357e4ff8b5d0ba5ebafecab5d6dd5633ce8046e3dd1c8bd93e64de44381",
            56_359,
            ("en",),
        ),
    ),
    form="strongreject/LANGUAGE=FILE",
    unpinned="its authors wrote it in English; a translation is given with",
)
register(
    PromptBenchmark(
        name="strongreject",
        title="StrongREJECT",
        kind="harmful",
        source=f"github.com/{REPOSITORY}, {PATH} (English)",
        read=read_strongreject,
        origin=ORIGIN,
    ),
    __name__,
)
