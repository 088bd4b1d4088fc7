"""The results folder: rows that are only ever added, so that nothing done is lost or done twice.

::

    RESULTS/
      settings.json                 what all arms share; a run with other settings is refused
      ARM/model.json                which model this is: source, digest, backend, versions
      ARM/responses.jsonl           one row per prompt
      ARM/requests.jsonl            what lm-eval asked the model, and what it answered
      ARM/scores.jsonl              one row per question of an lm-eval task
      ARM/verdicts/JUDGE.jsonl      one row per response
      ARM/verdicts/JUDGE.json       which judge that is

Every row has a ``key``, unique in its file. A line that a killed process left half written is cut
off when the file is opened to go on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from blake3 import blake3

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.results import checked as checks
from safeswap.evaluation.results.checked import checked
from safeswap.io.files import write_atomically
from safeswap.io.jsonfile import LARGE, load_json
from safeswap.io.locks import HeldError, take_lock

SETTINGS = "settings.json"
MODEL = "model.json"
RESPONSES = "responses.jsonl"
REQUESTS = "requests.jsonl"
SCORES = "scores.jsonl"
VERDICTS = "verdicts"

Row = dict[str, Any]


class Journal:
    """A file of rows, open for adding by one process at a time.

    ``with Journal(path) as journal:`` reads the keys there are, then takes rows. Each batch of rows
    is on its way to the disk when `add` returns, so ``kill -9`` costs at most the batch at hand.

    Raises:
        EvaluationError: another process has the file open for adding; a line in it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _locked(path)
        try:
            self._cut_half_line()
            self.rows: dict[str, Row] = {row["key"]: row for row in read_rows(path)}
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def __contains__(self, key: str) -> bool:
        return key in self.rows

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; one whose key is there already is an error of the caller's.

        Raises:
            EvaluationError: the disk does not take them.
        """
        new: dict[str, Row] = {}
        for row in rows:
            if row["key"] in self.rows or row["key"] in new:
                raise ValueError(f"{self.path}: the key {row['key']!r} is there already")
            new[row["key"]] = dict(row)
        rest = memoryview(b"".join(map(_line, new.values())))
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.rows |= new

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the whole file anew with these rows; the old one stays until the new one is whole.

        For rows that went stale (a verdict on a response that has changed since).

        Raises:
            EvaluationError: the disk does not take them; the old file is as it was.
        """
        kept = {row["key"]: dict(row) for row in rows}
        part = self.path.with_name(self.path.name + ".part")
        try:
            part.write_bytes(b"".join(map(_line, kept.values())))
        except OSError as error:
            raise _unwritable(part, error) from error
        # Locked before it has the name: no other process gets in between.
        try:
            replacement = _locked(part)
        except EvaluationError:
            part.unlink(missing_ok=True)
            raise
        part.replace(self.path)
        self._file.close()
        self._file, self.rows = replacement, kept

    def _cut_half_line(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        position = end
        while position:
            start = max(0, position - 65536)
            self._file.seek(start)
            found = self._file.read(position - start).rfind(b"\n")
            if found >= 0:
                position = start + found + 1
                break
            position = start
        if position < end:
            self._file.truncate(position)
        self._file.seek(0, os.SEEK_END)


def _locked(path: Path) -> FileIO:
    """The file, open for adding by this process alone."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise _unwritable(path, error) from error
        try:
            take_lock(file.fileno(), path, EvaluationError, wait=False)
        except HeldError as error:
            file.close()
            raise EvaluationError(
                f"{path}: another safeswap is writing to it. Wait for it, or use another --out."
            ) from error
        except EvaluationError:
            file.close()
            raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # replaced between opening and locking: once more


def _line(row: Row) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair, as a server may send: written as \udXXX
        return (json.dumps(row) + "\n").encode()


def _unwritable(path: Path, error: OSError) -> EvaluationError:
    return EvaluationError(
        f"{path}: cannot be written ({error.strerror}). Free some space, or check the folder's "
        "permissions, and run the same command again: what was stored is kept."
    )


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, in their order; none where there is no file.

    A last line without its end (a process is writing, or was killed) is passed over.

    Raises:
        EvaluationError: a whole line is no JSON object with a key, or a key is given twice.
    """
    if not path.exists():
        return
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                row = json.loads(line)
                key = row["key"]
                if not isinstance(key, str):
                    raise TypeError("the key is no text")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise EvaluationError(
                    f"{path}: line {number} is damaged (not a JSON object with a key). Remove the "
                    "line and run again: what is missing is done again."
                ) from error
            if key in seen:
                raise EvaluationError(
                    f"{path}: line {number} repeats the key {key!r}. Remove one of the two lines."
                )
            seen.add(key)
            yield row


def digest_of(value: Any) -> str:
    """A short content digest of plain data (32 hex digits of BLAKE3 over sorted JSON)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake3(text.encode(errors="surrogatepass")).hexdigest(length=16)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON; the file is there whole or not at all.

    Raises:
        EvaluationError: the disk does not take it.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _encoded(text, value))
    except OSError as error:
        raise _unwritable(path, error) from error


def _encoded(text: str, value: Any) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # as in `_line`
        return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        EvaluationError: it is missing or damaged.
    """
    try:
        value = load_json(path, LARGE, constants=True, names=False)
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: is missing. Is this a results folder?") from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise EvaluationError(f"{path}: is no JSON object.")
    return value


def file_name(name: str) -> str:
    """A name as one path component: letters, digits, dot, dash and underscore stay."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


@dataclass(frozen=True, slots=True)
class Results:
    """A results folder that exists."""

    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        """What all arms share."""
        found = read_json(self.folder / SETTINGS)
        checked(found, checks.SETTINGS, self.folder / SETTINGS)
        return found

    @property
    def arms(self) -> list[str]:
        """The models in it, in the order they were first evaluated in."""
        found = [path.parent for path in self.folder.glob(f"*/{MODEL}")]
        order = {name: n for n, name in enumerate(self.settings.get("arms", []))}
        return sorted((p.name for p in found), key=lambda name: (order.get(name, len(order)), name))

    def model(self, arm: str) -> dict[str, Any]:
        """Which model an arm is."""
        path = self.folder / arm / MODEL
        found = read_json(path)
        checked(found, checks.MODEL, path)
        return found

    def judges(self) -> list[str]:
        """The judges that any arm has verdicts of."""
        return sorted({path.stem for path in self.folder.glob(f"*/{VERDICTS}/*.jsonl")})


def open_results(folder: str | Path) -> Results:
    """A results folder for reading.

    Raises:
        EvaluationError: it is none.
    """
    path = Path(folder)
    if not (path / SETTINGS).is_file():
        raise EvaluationError(
            f"{path}: is no results folder (it has no {SETTINGS}). `safeswap evaluate` makes one."
        )
    return Results(path)


def start_results(folder: str | Path, settings: Mapping[str, Any], arms: Iterable[str]) -> Results:
    """Make a results folder, or go on in one of the same settings.

    Raises:
        EvaluationError: the folder holds results of other settings (the first difference is named),
            or something else; or it cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(path):
            return _start(path, {**settings, "arms": list(arms)})
    except OSError as error:
        raise EvaluationError(
            f"{path}: results cannot be stored there ({error.strerror}). Give --out a folder "
            "that can be written."
        ) from error


def _start(path: Path, settings: Mapping[str, Any]) -> Results:
    if not (path / SETTINGS).is_file():
        # A process that was killed may have left the half-written settings.
        if any(
            found.name not in (f"{SETTINGS}.part", f".{SETTINGS}.part") for found in path.iterdir()
        ):
            raise EvaluationError(
                f"{path}: holds other files and no {SETTINGS}. Give --out an empty folder."
            )
        write_json(path / SETTINGS, settings)
        return Results(path)
    found = Results(path).settings
    joined = join_settings(found, settings, str(path), "this run")
    if joined != found:
        write_json(path / SETTINGS, joined)
    return Results(path)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a folder among processes: models may be evaluated side by side into one folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        take_lock(handle, folder, EvaluationError, wait=True)
        yield
    finally:
        os.close(handle)


def join_settings(
    one: Mapping[str, Any], other: Mapping[str, Any], name: str, other_name: str
) -> dict[str, Any]:
    """The settings of two runs that may stand in one table.

    ``arms`` and ``cells`` (benchmark/language) may be more in one than in the other; a cell that
    both have must be the same prompts, and everything else must be equal.

    Raises:
        EvaluationError: names the first difference and both values.
    """
    plain = json.loads(json.dumps(dict(other)))
    for key in sorted((set(one) | set(plain)) - {"arms", "cells"}):
        if one.get(key) != plain.get(key):
            _refuse_difference(key, one.get(key), plain.get(key), name, other_name)
    cells = dict(one.get("cells", {}))
    for cell, value in plain.get("cells", {}).items():
        known = cells.get(cell, value)
        if known != value and "absent" not in known and "absent" not in value:
            _refuse_difference(f"the input of {cell}", known, value, name, other_name)
        cells[cell] = value if "absent" in known else known
    arms = list(dict.fromkeys([*one.get("arms", []), *plain.get("arms", [])]))
    return {**one, "cells": cells, "arms": arms}


def _refuse_difference(key: str, one: Any, other: Any, name: str, other_name: str) -> None:
    if isinstance(one, dict) and isinstance(other, dict):  # name what differs, not all there is
        inner = next(k for k in sorted({*one, *other}) if one.get(k) != other.get(k))
        key, one, other = f"{inner} of {key}", one.get(inner), other.get(inner)
    raise EvaluationError(
        f"{name} and {other_name} have different settings: {key} is {one!r} in the former and "
        f"{other!r} in the latter. Results of different settings must not stand in one table: use "
        "the same settings, or another --out folder."
    )


def find_model(results: Results, name: str) -> str:
    """An arm by name.

    Raises:
        EvaluationError: there is none of that name; the nearest is named.
    """
    if name not in results.arms:
        raise EvaluationError(
            f"{results.folder}: has no model called {name!r}{nearest(name, results.arms)}"
        )
    return name
