"""Pairs of prompts: the same request in English and in a language, harmful and harmless ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap.calibration.texts import ENGLISH, text_of
from safeswap.errors import CalibrationError, ConfigError, nearest
from safeswap.evaluation.quality import in_other_language
from safeswap.io.csvfile import read_csv
from safeswap.io.jsonfile import LineError, read_json_lines

LABEL, UNSAFE, HARMLESS = "label", "unsafe", "safe"
"""The column that tells harmful prompts from harmless ones, with XSTest's words."""
FEWEST = 2
"""Pairs of each kind: fewer have no spread."""

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pairs:
    """What a language expert is run on for ``sparse-edit``.

    Attributes:
        name: the file's own name.
        harmful, harmless: (in English, in the language), in the file's order.
    """

    name: str
    harmful: tuple[Pair, ...]
    harmless: tuple[Pair, ...]

    def __len__(self) -> int:
        return len(self.harmful) + len(self.harmless)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all prompts, whatever the file's format."""
        content = json.dumps([self.harmful, self.harmless])
        return hashlib.sha256(content.encode()).hexdigest()


def read_pairs(path: Path, language: str, *, checked: bool = True) -> Pairs:
    """Read a file: ``.csv`` with the columns ``label``, ``en`` and the language's name, or
    ``.jsonl`` with the same keys in every line. ``label`` is ``unsafe`` for harmful prompts and
    ``safe`` for harmless ones; other columns are not looked at.

    Args:
        language: the expert's role, such as ``sw``.
        checked: whether prompts that are mostly in other languages are refused.

    Raises:
        CalibrationError: no such file, not UTF-8, a missing column, another label, an empty prompt,
            fewer than two of either kind, both columns the same, prompts in other languages.
    """
    kinds: dict[str, list[Pair]] = {UNSAFE: [], HARMLESS: []}
    for number, row in _rows(path):
        label = text_of(row, LABEL, path, number).lower()
        if label not in kinds:
            raise CalibrationError(
                f"{path}: line {number}: the label is {label!r}; it is {UNSAFE} for harmful "
                f"prompts and {HARMLESS} for harmless ones{nearest(label, kinds)}."
            )
        pair = text_of(row, ENGLISH, path, number), text_of(row, language, path, number)
        kinds[label].append(pair)
    for label, pairs in kinds.items():
        if len(pairs) < FEWEST:
            raise CalibrationError(
                f"{path}: holds {len(pairs) or 'no'} {label} pairs. Both kinds are needed, "
                f"{FEWEST} or more of each, better some hundred: add lines with {LABEL} {label}."
            )
    found = Pairs(path.name, *(tuple(kinds[label]) for label in (UNSAFE, HARMLESS)))
    if checked:
        _require_languages(path, [*found.harmful, *found.harmless], language)
    return found


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        if path.suffix == ".csv":
            yield from read_csv(path, error=CalibrationError)[1]
        elif path.suffix == ".jsonl":
            yield from read_json_lines(path, constants=True, names=False)
        else:
            raise CalibrationError(
                f"{path}: pairs of prompts are CSV (.csv) or JSON Lines (.jsonl) with {LABEL}, "
                f"{ENGLISH} and the language's name."
            )
    except LineError as error:
        raise CalibrationError(f"{error} Give one object with both prompts a line.") from error
    except ConfigError as error:
        raise CalibrationError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: the pairs cannot be read ({error}).") from error


def _require_languages(path: Path, pairs: Sequence[Pair], language: str) -> None:
    same = sum(english == other for english, other in pairs)
    if 2 * same > len(pairs):
        raise CalibrationError(
            f"{path}: {same} of {len(pairs)} prompts are the same in {ENGLISH!r} and {language!r}. "
            "Give translations; --force takes them as they are."
        )
    for at, code in enumerate((ENGLISH, language)):
        strange = sum(bool(in_other_language(pair[at], code)) for pair in pairs)
        if 2 * strange > len(pairs):
            raise CalibrationError(
                f"{path}: {strange} of {len(pairs)} prompts in the column {code!r} are in another "
                "language. Give the same requests in both; --force takes them as they are."
            )
