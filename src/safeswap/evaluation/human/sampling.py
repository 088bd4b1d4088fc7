"""Out: a stratified, blind sample as a sheet to label, and its key."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap.errors import EvaluationError, listed
from safeswap.evaluation.human.label_sheet import read_sheet
from safeswap.evaluation.results.rows import JudgedRow
from safeswap.io.files import remedy, write_atomically
from safeswap.tables import spreadsheet_safe, storable

LABELS = ("safe", "unsafe", "invalid")  # MultiJail's three; blank is not labelled yet
COLUMNS = ("row_key", "arm_blinded", "language", "prompt", "response", "label", "note")
KEY_FORMAT = "safeswap annotation key 1"

_FIELDS = ("key", "arm", "benchmark", "language", "prompt", "response", "verdict")


@dataclass(frozen=True)
class Sample:
    """Responses drawn to be labelled.

    Attributes:
        rows: drawn, in the order they are shown.
        strata: responses there were in each stratum, by its name.
        drawn: how many of them were drawn.
        seed: of the drawing.
    """

    rows: tuple[JudgedRow, ...]
    strata: Mapping[str, int]
    drawn: Mapping[str, int]
    seed: int


def stratum(row: JudgedRow) -> str:
    """The stratum of a response: ``arm / benchmark / language / verdict``, flagged ones apart."""
    flagged = ", flagged" if row.get("flags") else ""
    return f"{row['arm']} / {row['benchmark']} / {row['language']} / {row['verdict']}{flagged}"


def sample_for_annotation(rows: Sequence[JudgedRow], count: int, seed: int = 0) -> Sample:
    """A stratified sample: proportional, at least one of each stratum, never more than it has.

    Every further seat goes to the stratum furthest below its share. The same rows and seed give the
    same sample, whatever the order of the rows.

    Args:
        rows: responses with their verdicts.
        count: how many; all of them where there are no more.

    Raises:
        EvaluationError: no rows, one without a field, a key twice, or fewer rows asked for than
            there are strata.
    """
    if not rows:
        raise EvaluationError("there are no judged responses to sample; run safeswap judge first")
    _check_rows(rows)
    strata: dict[str, list[JudgedRow]] = {}
    for row in sorted(rows, key=lambda row: str(row["key"])):
        strata.setdefault(stratum(row), []).append(row)
    sizes = {name: len(strata[name]) for name in sorted(strata)}
    seats = _seats(sizes, count)
    chosen: list[JudgedRow] = []
    for name, share in seats.items():
        chosen += random.Random(f"{seed}/{name}").sample(strata[name], share)
    random.Random(f"{seed}").shuffle(chosen)
    return Sample(tuple(chosen), sizes, seats, seed)


def _check_rows(rows: Sequence[JudgedRow]) -> None:
    for row in rows:
        missing = [field for field in _FIELDS if not isinstance(row.get(field), str)]
        if missing:
            raise EvaluationError(
                f"response {row.get('key', '?')!r} has no text in {listed(missing)}; "
                "sample responses that were judged"
            )
    twice = [key for key, n in Counter(row["key"] for row in rows).items() if n > 1]
    if twice:
        raise EvaluationError(f"responses are there more than once: {listed(twice)}")


def _seats(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """How many to draw of each stratum."""
    total = sum(sizes.values())
    if count < len(sizes):
        raise EvaluationError(
            f"{count} rows cannot show all {len(sizes)} strata (arm × benchmark × language × "
            "verdict, flagged or not); "
            f"ask for {len(sizes)} or more"
        )
    if count >= total:
        return dict(sizes)
    seats = dict.fromkeys(sizes, 1)
    for _ in range(count - len(sizes)):
        room = [name for name, size in sizes.items() if size > seats[name]]
        seats[max(room, key=lambda name: count * sizes[name] / total - seats[name])] += 1
    return seats


def write_sample(sample: Sample, path: Path | str, *, overwrite: bool = False) -> Path:
    """Write the sheet to label, and the key beside it; returns the key's path.

    The sheet is UTF-8 with a byte-order mark, every cell quoted, no cell a formula, line breaks
    kept. The key's name is the sheet's, with ``.key.json`` after it: give out the sheet only.
    The key comes first and the sheet last, each whole or not at all: after a kill or on a full disk
    there is no sheet yet, and the same command goes on.

    Args:
        overwrite: an earlier sheet there is replaced, as long as nobody has written into it.

    Raises:
        EvaluationError: the sheet is there already, so that no labels are lost; or the key of
            another sample, whose sheet may be out to be labelled; or the disk does not take them.
    """
    path = Path(path)
    key_path = key_of(path)
    if path.exists() and not overwrite:
        raise EvaluationError(
            f"{path} exists already; labels in it are not overwritten. Choose another --out; "
            "--overwrite replaces a sheet without labels."
        )
    if path.exists():
        _remove_unlabelled(path, key_path)
    letters = _blind_names([str(row["arm"]) for row in sample.rows], sample.seed)
    lines, hidden = [], {}
    for row in sample.rows:
        name = _blind_key(str(row["key"]), sample.seed)
        shown = [name, letters[row["arm"]], row["language"], row["prompt"], row["response"], "", ""]
        line = [spreadsheet_safe(storable(cell)) for cell in shown]
        lines.append(line)
        hidden[name] = {
            "key": row["key"],
            "arm": row["arm"],
            "benchmark": row["benchmark"],
            "language": row["language"],
            "verdict": row["verdict"],
            "stratum": stratum(row),
            "digest": digest(line[3], line[4]),
        }
    key = {
        "format": KEY_FORMAT,
        "seed": sample.seed,
        "sheet": path.name,
        "strata": {
            name: {"size": size, "sampled": sample.drawn[name], "weight": size / sample.drawn[name]}
            for name, size in sample.strata.items()
        },
        "rows": hidden,
    }
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([list(COLUMNS), *lines])
    _write_key(key_path, (json.dumps(key, indent=1) + "\n").encode(), path)
    _write(path, out.getvalue().encode("utf-8-sig"))
    return key_path


def _remove_unlabelled(sheet: Path, key: Path) -> None:
    """Remove a sheet that nobody has written into, and its key.

    Raises:
        EvaluationError: it is none of ours, or holds labels or notes.
    """
    columns, rows = read_sheet(sheet)
    if columns != COLUMNS:
        raise EvaluationError(
            f"{sheet}: --overwrite replaces a sheet of `safeswap label sample` only, and this has "
            "other columns. Choose another --out."
        )
    if written := sum(bool(row["label"].strip() or row["note"].strip()) for row in rows):
        raise EvaluationError(
            f"{sheet}: holds labels or notes in {written} rows, which --overwrite does not "
            "throw away. Choose another --out, or move the sheet and its key."
        )
    try:
        sheet.unlink()
        key.unlink(missing_ok=True)
    except OSError as error:
        raise EvaluationError(f"{sheet} cannot be removed ({error.strerror}).") from error


def _write_key(key_path: Path, content: bytes, sheet: Path) -> None:
    """Write the key, unless the key of another sample lies there."""
    try:
        found = key_path.read_bytes()
    except FileNotFoundError:
        _write(key_path, content)
        return
    except OSError as error:
        raise EvaluationError(f"{key_path} cannot be read: {error.strerror}") from error
    if found != content:
        raise EvaluationError(
            f"{key_path} is the key of another sample, and {sheet.name} is not beside it: was it "
            "renamed, or handed out? Choose another --out; or remove the key if nobody labels that "
            "sample."
        )


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content, settle=True)
    except OSError as error:
        raise EvaluationError(
            f"{path} cannot be written ({error.strerror}). {remedy(error)}"
        ) from error


def key_of(path: Path | str) -> Path:
    """Where a sheet's key lies: beside it."""
    return Path(f"{path}.key.json")


def _blind_key(key: str, seed: int) -> str:
    """A name for the row that says nothing about the arm, which the row's own key may."""
    digest = hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogatepass"))
    return f"r{digest.hexdigest()[:12]}"


def _blind_names(arms: Sequence[str], seed: int) -> dict[str, str]:
    names = sorted(set(arms))
    order = random.Random(f"{seed}/arms").sample(range(len(names)), len(names))
    return {name: f"model {number + 1}" for name, number in zip(names, order, strict=True)}


def digest(prompt: str, response: str) -> str:
    """Of what the annotator saw, less what spreadsheets change: spacing and the leading '."""
    words = [" ".join(text.lstrip("'").split()) for text in (prompt, response)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
