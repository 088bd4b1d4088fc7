"""Files of rows that are only ever added, so that nothing done is lost or done twice.

Every row has a ``key``, unique in its file. A line that a killed process left half written is cut
off when the file is opened to go on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from safeswap.errors import ConfigError, EvaluationError
from safeswap.io.jsonfile import LineError, read_json_lines
from safeswap.io.locks import HeldError, take_lock

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
            raise unwritable(self.path, error) from error
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
            raise unwritable(part, error) from error
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
            raise unwritable(path, error) from error
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


def remove_journal(path: Path) -> None:
    """Remove a file of rows that no other process is writing.

    Raises:
        EvaluationError: one is; or the file cannot be opened.
        OSError: it cannot be removed.
    """
    file = _locked(path)
    try:
        path.unlink()
    finally:
        file.close()


def _line(row: Row) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a surrogate pair, as a server may send: written as \udXXX
        return (json.dumps(row) + "\n").encode()


def unwritable(path: Path, error: OSError) -> EvaluationError:
    """What is said where the disk does not take a file."""
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
    for number, row in _whole_lines(path):
        key = row.get("key") if isinstance(row, dict) else None
        if not isinstance(key, str):
            raise _damaged(path, number)
        if key in seen:
            raise EvaluationError(
                f"{path}: line {number} repeats the key {key!r}. Remove one of the two lines."
            )
        seen.add(key)
        yield row


def _whole_lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        yield from read_json_lines(path, constants=True, names=False, whole=True)
    except LineError as error:
        raise _damaged(path, error.line) from error
    except ConfigError as error:
        raise EvaluationError(str(error)) from error


def _damaged(path: Path, line: int) -> EvaluationError:
    return EvaluationError(
        f"{path}: line {line} is damaged (not a JSON object with a key). Remove the line and run "
        "again: what is missing is done again."
    )
