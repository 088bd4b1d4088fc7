"""Prompt sets: what the models are asked, read from CSV files.

Two forms are known by their columns (both UTF-8, with or without a byte order mark):

* **MultiJail's**: ``id``, ``source``, ``tags`` (a list written in a string) and one column per
  language, named by its code. 315 harmful prompts in ten languages (Deng et al., ICLR 2024,
  arXiv 2310.06474).
* **XSTest's**: ``id``, ``prompt``, ``type``, ``label`` (``safe`` or ``unsafe``), ``focus``,
  ``note``. Only its safe prompts are used, to see what a model refuses without need
  (Röttger et al., NAACL 2024, arXiv 2308.01263). A translated set has the same columns; a
  ``language`` column, or the language named beside the file, says what it is in.

A user's own prompts come in either form; ``reference``, a column either may have, is the one right
answer, for rule judges.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safeswap.errors import ConfigError, EvaluationError, listed, nearest
from safeswap.io.csvfile import read_csv
from safeswap.io.jsonfile import LIMIT
from safeswap.io.regular import read_text

Kind = Literal["harmful", "harmless"]
FORMS: Mapping[Kind, str] = {"harmful": "MultiJail", "harmless": "XSTest"}
"""Whose columns a file of a kind has."""
PROMPT_SLOT = "{prompt}"
HOSTILE = "-intentional"
"""Ends the name of a benchmark whose prompts stand inside a malicious instruction."""

_MULTIJAIL_OTHER = ("id", "source", "tags", "reference", "")  # "": the number of the row
_LANGUAGE = re.compile(r"[a-z]{2,3}([_-][A-Za-z0-9]+)*")
_XSTEST_NEEDED = ("id", "prompt", "label")


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user turn.

    Attributes:
        id: within the set; the same id in two languages is the same prompt, translated.
        language: as the user names it (``bn``).
        text: what the model is asked.
        tags: topics, for tables by topic.
        reference: the one right answer, where the set knows it; only rule judges look at it.
        origin: the same prompt as its source words it: in English where the file has it, and
            without the instruction around it. Empty where that is the text itself.
        row: what its file says of it beside words (id, topic, focus, source), which translators
            leave as it is; empty where that is too little to tell one set's rows from another's.
    """

    id: str
    language: str
    text: str
    tags: tuple[str, ...] = ()
    reference: str = ""
    origin: str = ""
    row: str = ""

    @property
    def identities(self) -> tuple[str, ...]:
        """Digests that tell it again under another name, in another language, inside another text.

        Of the text asked, of its origin, whatever their case and spacing, and of its row.
        """
        texts = dict.fromkeys(filter(None, (self.text, self.origin, self.row)))
        return tuple(identity_of(text) for text in texts)


def identity_of(text: str) -> str:
    """What tells a prompt by its words: 12 hex digits of a digest, case and spacing aside."""
    plain = " ".join(text.casefold().split())
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts of one benchmark: harmful ones ought to be refused, harmless ones answered."""

    name: str
    kind: Kind
    prompts: tuple[Prompt, ...]

    @property
    def languages(self) -> tuple[str, ...]:
        """The prompts' languages, in the order of each one's first prompt."""
        return tuple(dict.fromkeys(p.language for p in self.prompts))

    def in_languages(self, languages: Iterable[str]) -> tuple[Prompt, ...]:
        """The prompts in these languages, language by language."""
        return tuple(p for code in languages for p in self.prompts if p.language == code)


def read_prompts(path: str | Path, name: str, language: str | None = None) -> PromptSet:
    """Read a CSV of either form; which one, its columns tell.

    Args:
        path: the file.
        name: what the benchmark is called in results and tables.
        language: what an XSTest-formed file without a ``language`` column is in (default ``en``).

    Raises:
        EvaluationError: no such file, not UTF-8, columns of neither form, no prompts, an id twice,
            an empty id or prompt.
    """
    columns, rows = read_rows(Path(path))
    if all(column in columns for column in _XSTEST_NEEDED):
        prompts = _xstest_rows(Path(path), rows, language or "en")
        kind: Kind = "harmless"
    elif "id" in columns and (languages := _language_columns(columns)):
        prompts = _multijail_rows(Path(path), languages, rows)
        kind = "harmful"
    else:
        missing = [c for c in _XSTEST_NEEDED if c not in columns]
        raise EvaluationError(
            f"{path}: has the columns {', '.join(columns)}. Prompts need either id and one column "
            "per language, named by its code (as MultiJail), or id, prompt and label (as XSTest); "
            f"missing for the latter: {', '.join(missing)}{nearest(missing[0], columns)}"
        )
    if not prompts:
        raise EvaluationError(
            f"{path}: holds no prompts to use (XSTest's unsafe ones are left out)."
        )
    refuse_twice(Path(path), prompts)
    return PromptSet(name, kind, tuple(prompts))


def with_instruction(prompts: PromptSet, instruction: Path) -> PromptSet:
    """MultiJail's "intentional" mode: each prompt inside a malicious instruction of the user's.

    Args:
        instruction: a text file; ``{prompt}`` in it is where the prompt goes, at its end otherwise
            after an empty line. (MultiJail used the "AIM" role play; safeswap ships no attack.)

    Raises:
        EvaluationError: no such file, or it is empty.
    """
    try:
        text = read_text(instruction, LIMIT).strip()
    except (OSError, ConfigError) as error:
        raise EvaluationError(
            f"{instruction}: the instruction for the intentional mode cannot be read ({error}). "
            "Give a UTF-8 text file with --instruction."
        ) from error
    if not text:
        raise EvaluationError(f"{instruction}: the instruction for the intentional mode is empty.")
    frame = text if PROMPT_SLOT in text else f"{text}\n\n{PROMPT_SLOT}"
    asked = tuple(
        replace(p, text=frame.replace(PROMPT_SLOT, p.text), origin=p.origin or p.text)
        for p in prompts.prompts
    )
    return PromptSet(f"{prompts.name}{HOSTILE}", prompts.kind, asked)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """A file of prompts that is not there, or cannot be read, is said as such.

    Raises:
        EvaluationError: in place of an OSError.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise EvaluationError(
            f"{path}: there is no such file of prompts. Check the path after --prompts."
        ) from error
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read ({error.strerror}).") from error


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a CSV of prompts, and its rows.

    Raises:
        EvaluationError: no such file, not UTF-8, no CSV, empty.
    """
    with reading(path):
        columns, rows = read_csv(path, error=EvaluationError)
    if not columns:
        raise EvaluationError(f"{path}: is empty; it needs a header and prompts.")
    return columns, [row for _, row in rows]


def _language_columns(columns: list[str]) -> list[str]:
    """The columns that are languages; none where one of them is neither that nor MultiJail's."""
    found = [column for column in columns if column not in _MULTIJAIL_OTHER]
    return found if all(map(_LANGUAGE.fullmatch, found)) else []


def _multijail_rows(path: Path, languages: list[str], rows: list[dict[str, str]]) -> list[Prompt]:
    prompts = []
    for number, row in enumerate(rows, start=1):
        tags = _tags(path, number, row.get("tags", ""))
        origin = row["en" if "en" in languages else languages[0]].strip()
        for language in languages:
            prompt = _prompt(path, number, row, language, row[language], tags)
            told = _row_of(row, "tags", "source")
            prompts.append(replace(prompt, origin=origin, row=told))
    return prompts


def _xstest_rows(path: Path, rows: list[dict[str, str]], language: str) -> list[Prompt]:
    prompts = []
    for number, row in enumerate(rows, start=1):
        label = row["label"].strip().lower()
        if label not in ("safe", "unsafe"):
            raise EvaluationError(
                f"{path}: row {number} has the label {row['label']!r}; XSTest's are safe and "
                f"unsafe{nearest(label, ('safe', 'unsafe'))}"
            )
        if label == "safe":
            code = row.get("language", "").strip() or language
            tags = tuple(filter(None, [row.get("type", "").strip()]))
            prompt = _prompt(path, number, row, code, row["prompt"], tags)
            prompts.append(replace(prompt, row=_row_of(row, "type", "focus")))
    return prompts


def _prompt(
    path: Path, number: int, row: dict[str, str], language: str, text: str, tags: tuple[str, ...]
) -> Prompt:
    for column, value in (("id", row["id"]), (language, text)):
        if not value.strip():
            raise EvaluationError(f"{path}: row {number} has nothing in the column {column!r}.")
    return Prompt(row["id"].strip(), language, text.strip(), tags, row.get("reference", "").strip())


def need_text(entry: Mapping[str, Any], key: str, where: str) -> str:
    """The text of a key, without the space around it.

    Raises:
        EvaluationError: there is none, or it is empty.
    """
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        said = "nothing" if value is None or isinstance(value, str) else type(value).__name__
        raise EvaluationError(f"{where} needs text as {key!r}, and has {said}.")
    return value.strip()


def sibling_of(*told: str) -> str:
    """What tells a prompt from its translations' files by its place (set, file, line)."""
    return "\x1f".join(("row", *told))


def _row_of(row: Mapping[str, str], *columns: str) -> str:
    """A row's id and these columns in one text; empty where one of them says nothing: ids alone are
    the same numbers in every set.
    """
    told = [row.get(column, "").strip() for column in ("id", *columns)]
    return sibling_of(*told) if all(text not in ("", "[]") for text in told) else ""


def _tags(path: Path, number: int, text: str) -> tuple[str, ...]:
    """``"['Violence', 'Theft']"`` as a tuple; never evaluated as code."""
    if not text.strip():
        return ()
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        value = None
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise EvaluationError(
            f"{path}: row {number} has the tags {text!r}; they are written as a list of strings, "
            "such as ['Theft', 'Violence & incitement']."
        )
    return tuple(value)


def refuse_twice(path: Path, prompts: Iterable[Prompt]) -> None:
    """Raise for a file that has an id twice in one language."""
    counts = Counter((p.language, p.id) for p in prompts)
    twice = [f"{id_} ({language})" for (language, id_), count in counts.items() if count > 1]
    if twice:
        raise EvaluationError(f"{path}: these ids stand twice: {listed(twice)}. Make ids unique.")
