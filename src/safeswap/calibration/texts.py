"""Calibration texts: unlabelled, one file for all experts or one for each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap.errors import CalibrationError, ConfigError, EvaluationError, nearest
from safeswap.evaluation.benchmarks.prompts import read_prompts
from safeswap.evaluation.quality import in_other_language
from safeswap.io.jsonfile import LARGE, LineError, read_json_lines
from safeswap.io.regular import is_there, read_regular
from safeswap.roles import SAFETY

ENGLISH = "en"
"""The safety expert's language: what it reads of a file of prompts in several ones."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts that one expert is run on.

    Attributes:
        name: the file's own name.
        texts: in the file's order; none is empty.
        answers: of chats, the answer to each text, whose tokens alone are counted; else none.
    """

    name: str
    texts: tuple[str, ...]
    answers: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the texts (and answers) in their order, whatever the file's format."""
        content = [self.texts, self.answers] if self.answers else self.texts
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def assign_texts(
    given: Sequence[str], roles: Sequence[str], option: str = "--texts"
) -> dict[str, Path]:
    """Which file each expert reads, from ``FILE`` (for all others) and ``ROLE=FILE``.

    Raises:
        CalibrationError: an unknown role, a role or FILE given twice, an expert without texts.
    """
    chosen, rest = parse_texts(given, roles, option)
    if len(rest) > 1:
        raise CalibrationError(
            f"{option}: {' and '.join(rest)} are both for all experts. Give EXPERT=FILE for each."
        )
    missing = [role for role in roles if role not in chosen]
    if missing and not rest:
        raise CalibrationError(f"{missing[0]} has no texts: add {option} {missing[0]}=FILE.")
    return {role: Path(chosen.get(role) or rest[0]) for role in roles}


def parse_texts(
    given: Sequence[str], roles: Sequence[str], option: str = "--texts"
) -> tuple[dict[str, str], list[str]]:
    """What was given as ``ROLE=FILE``, role → file, and the files without a role.

    Raises:
        CalibrationError: an unknown role, or one given twice.
    """
    chosen: dict[str, str] = {}
    rest: list[str] = []
    for text in given:
        role, separator, path = text.partition("=")
        whole = is_there(Path(text)) and not is_there(Path(path))  # a name that holds "="
        if separator and role in roles and not whole:
            if role in chosen:
                raise CalibrationError(f"{option} {role}=… is given twice. Give one file.")
            chosen[role] = path
        elif separator and not is_there(Path(text)):
            raise CalibrationError(
                f"{option} {text}: there is no expert {role!r}{nearest(role, roles)}. Give "
                "EXPERT=FILE."
            )
        else:
            rest.append(text)
    return chosen, rest


def read_texts(path: Path, role: str) -> Texts:
    """Read a file: ``.csv`` as prompts (the role's language, English for safety), ``.jsonl`` with a
    ``text`` in every line, anything else as plain text with one text a line.

    Raises:
        CalibrationError: no such file, not UTF-8, no texts, a line without a text.
    """
    if path.suffix == ".csv":
        return Texts(path.name, _from_prompts(path, role))
    try:
        texts = tuple(_json_texts(path) if path.suffix == ".jsonl" else _lines(path))
    except LineError as error:
        raise CalibrationError(
            f"{error} Give one object a line, or name the file .txt for plain text."
        ) from error
    except ConfigError as error:
        raise CalibrationError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"{path}: the texts cannot be read ({error}). Give a UTF-8 file with --texts."
        ) from error
    if not texts:
        raise CalibrationError(f"{path}: holds no texts. Give a file with one text a line.")
    return Texts(path.name, texts)


def read_refusals(path: Path, *, checked: bool = True) -> Texts:
    """Read harmful requests with refusals: chats (see :func:`read_chats`) in English.

    Args:
        checked: whether requests and refusals that are mostly in another language are refused.

    Raises:
        CalibrationError: as :func:`read_chats`.
    """
    chats = _chats(path)
    for what, texts in (("requests", chats.texts), ("refusals", chats.answers)):
        if checked and (strange := strange_texts(texts, ENGLISH)):
            raise CalibrationError(
                f"{path}: {strange} of {len(texts)} {what} are not in English, and the harmful "
                "requests must be what the safety expert knows. Give English ones; --force takes "
                "them as they are."
            )
    return chats


def read_chats(path: Path, language: str | None = None) -> Texts:
    """Read requests with their answers: JSON Lines with ``prompt`` and ``response``.

    Args:
        language: what the answers must be in, where that can be told; None: whatever.

    Raises:
        CalibrationError: no such file, not UTF-8, no chats, a line without one of the two, most
            answers in another language.
    """
    chats = _chats(path)
    if language is not None and (strange := strange_texts(chats.answers, language)):
        raise CalibrationError(
            f"{path}: {strange} of {len(chats)} answers are not in {language!r}, and the "
            f"harmless chats must be what the {language} expert is to keep. Give chats in the "
            "language; --force takes them as they are."
        )
    return chats


def strange_texts(texts: Sequence[str], language: str) -> int:
    """How many texts are in another language, where most are; else 0.

    Languages that nobody here knows, and texts too short to tell, count as fine.
    """
    count = sum(bool(in_other_language(text, language)) for text in texts)
    return count if 2 * count > len(texts) else 0


def _chats(path: Path) -> Texts:
    if path.suffix != ".jsonl":
        raise CalibrationError(
            f"{path}: chats are JSON Lines (.jsonl) with prompt and response in every line."
        )
    try:
        pairs = [
            (text_of(row, "prompt", path, number), text_of(row, "response", path, number))
            for number, row in read_json_lines(path, constants=True, names=False)
        ]
    except LineError as error:
        raise CalibrationError(
            f"{error} Give one object with prompt and response a line."
        ) from error
    except ConfigError as error:
        raise CalibrationError(str(error)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError(f"{path}: the chats cannot be read ({error}).") from error
    if not pairs:
        raise CalibrationError(f"{path}: holds no chats. Give prompt and response in every line.")
    prompts, answers = zip(*pairs, strict=True)
    return Texts(path.name, prompts, answers)


def _lines(path: Path) -> Iterator[str]:
    lines = re.split("\r\n|\r|\n", read_regular(path, LARGE).decode("utf-8-sig"))
    return (line.strip() for line in lines if line.strip())


def _json_texts(path: Path) -> Iterator[str]:
    for number, row in read_json_lines(path, constants=True, names=False):
        yield text_of(row, "text", path, number)


def text_of(row: object, key: str, path: Path, number: int) -> str:
    """A line's text under a key, stripped.

    Raises:
        CalibrationError: it has none (with the nearest key), or no text; names the line.
    """
    if not isinstance(row, Mapping) or key not in row:
        near = nearest(key, row) if isinstance(row, Mapping) else ""
        raise CalibrationError(f"{path}: line {number} has no key {key!r}{near}. Give it one.")
    text = row[key]
    if not isinstance(text, str) or not text.strip():
        raise CalibrationError(
            f"{path}: line {number}: {key} is empty or no text. Remove the line."
        )
    return text.strip()


def _from_prompts(path: Path, role: str) -> tuple[str, ...]:
    language = ENGLISH if role == SAFETY else role
    try:
        found = read_prompts(path, "texts", language)
    except EvaluationError as error:
        raise CalibrationError(f"{error} (Give plain texts as .txt or .jsonl.)") from error
    texts = tuple(prompt.text for prompt in found.in_languages([language]))
    if not texts:
        raise CalibrationError(
            f"{path}: has no prompts in {language!r}, which the {role} expert reads"
            f"{nearest(language, found.languages)}. Give {role}=FILE with its texts."
        )
    return texts
