"""XSafety: 14 kinds of safety issues in ten languages (Wang et al., ACL Findings 2024, arXiv
2310.00905).

A folder per language with a CSV per kind: one request a line, without a header, quoted where it
holds a comma. The same line of two languages is the same request, translated. A folder is given
whole, or one of its files: ``--prompts xsafety/de=Multilingual_safety_benchmark/de``.

Many of its requests are harmless in themselves (on mental health, say): what counts is an unsafe
answer, and not every refusal is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from safeswap.errors import EvaluationError, listed, nearest
from safeswap.evaluation.benchmarks.origins import Origin
from safeswap.evaluation.benchmarks.prompts import Prompt, PromptSet, reading, sibling_of
from safeswap.evaluation.benchmarks.registry import PromptBenchmark, register
from safeswap.io.csvfile import read_bare_csv
from safeswap.io.regular import is_folder

REPOSITORY = "Jarviswang94/Multilingual_safety_benchmark"
COMMIT = "f02da7f528b89705d657ae17d3b856ddd93b8cdb"
KINDS = (
    "commonsense",
    "Crimes_And_Illegal_Activities",
    "Ethics_And_Morality",
    "Goal_Hijacking",
    "Inquiry_With_Unsafe_Opinion",
    "Insult",
    "Mental_Health",
    "Physical_Harm",
    "Privacy_And_Property",
    "Prompt_Leaking",
    "Reverse_Exposure",
    "Role_Play_Instruction",
    "Unfairness_And_Discrimination",
    "Unsafe_Instruction_Topic",
)
_OTHERWISE = {"commen_sense": "commonsense"}
"""A file's name that its authors wrote in another way in one language."""
_ENDING = re.compile(r"_(n|en)\Z")
_MOST = 64
"""Files that a folder of one language may hold; the authors' have 14."""


def read_xsafety(path: Path, name: str, language: str | None) -> PromptSet:
    """The requests of a folder of one language, or of one of its files.

    Args:
        language: what they are in (default ``en``).

    Raises:
        EvaluationError: nothing there, a file that is no kind of XSafety's, two of one kind, a line
            with several fields; says which.
    """
    files: dict[str, Path] = {}
    for file in _files(path):
        kind = _kind(file)
        if kind in files:
            raise EvaluationError(
                f"{path}: {files[kind].name} and {file.name} are both of the kind {kind}. Give a "
                "folder with one of them."
            )
        files[kind] = file
    asked = [
        prompt
        for kind in KINDS
        if kind in files
        for prompt in _prompts(files[kind], kind, language or "en")
    ]
    if not asked:
        raise EvaluationError(f"{path}: holds no requests.")
    return PromptSet(name, "harmful", tuple(asked))


def _files(path: Path) -> list[Path]:
    if not is_folder(path):
        return [path]
    found = sorted(file for file in path.iterdir() if file.suffix == ".csv")
    if not found:
        raise EvaluationError(
            f"{path}: holds no CSV files. Give the folder of one language, such as "
            "Multilingual_safety_benchmark/de."
        )
    if len(found) > _MOST:
        raise EvaluationError(
            f"{path}: holds {len(found)} CSV files ({listed(file.name for file in found)}), more "
            "than the kinds of XSafety. Give the folder of one language."
        )
    return found


def _kind(file: Path) -> str:
    bare = _ENDING.sub("", file.stem)
    kind = _OTHERWISE.get(bare, bare)
    if kind not in KINDS:
        raise EvaluationError(
            f"{file}: is called like no kind of XSafety's, by which its lines are known in other "
            f"languages{nearest(kind, KINDS)}"
        )
    return kind


def _prompts(file: Path, kind: str, language: str) -> Iterator[Prompt]:
    """A request a line; blank lines are passed over, and counted."""
    with reading(file):
        rows = read_bare_csv(file, EvaluationError)
    for number, (line, cells) in enumerate(rows, start=1):
        if len(cells) > 1:
            raise EvaluationError(
                f"{file}: line {line} has {len(cells)} fields; XSafety's files have one request a "
                "line. One that holds a comma is quoted."
            )
        if cells and cells[0].strip():
            row = sibling_of("xsafety", kind, str(number))
            yield Prompt(f"{kind}-{number}", language, cells[0].strip(), (kind,), row=row)


ORIGIN = Origin(
    place=f"github.com/{REPOSITORY} at {COMMIT[:7]}",
    licence="none stated; its authors say: research use only",
    files=(),
    form="xsafety/LANGUAGE=FOLDER",
    unpinned="no digests of its files are known; get the repository yourself and give",
)
register(
    PromptBenchmark(
        name="xsafety",
        title="XSafety",
        kind="harmful",
        source=f"github.com/{REPOSITORY}: a folder of CSVs per language (es is called sp)",
        read=read_xsafety,
        origin=ORIGIN,
    ),
    __name__,
)
