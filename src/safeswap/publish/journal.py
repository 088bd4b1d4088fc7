"""What a run has sent so far, line by line, so that the next one goes on from there."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.errors import OutputError

_SHOWING = "showing"


class Journal:
    """The receipts of one output's uploads.

    Each line is a JSON object: ``{"name", "receipt"}``, ``{"name", "part"…}`` for a part of an
    upload, or ``{"showing": true}`` once files are given their names. A line that a kill cut short
    is not one, and what it said is asked of the store again.

    Attributes:
        receipts: name → its last receipt.
        showing: whether an earlier run had begun to show files.
        job: what the earlier run made, "" where there was none.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        self._open: int | None = None
        self.receipts: dict[str, dict[str, Any]] = {}
        self.showing, self.job = False, ""
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            lines = []
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue

    def _take(self, said: Mapping[str, Any]) -> None:
        if "job" in said:
            self.job = str(said["job"])
        elif _SHOWING in said:
            self.showing = True
        elif "part" in said:
            receipt = self.receipts[said["name"]]
            if receipt["upload"] == said["upload"]:
                receipt.setdefault("parts", {})[str(said["part"])] = said["is"]
        else:
            self.receipts[said["name"]] = dict(said["receipt"])

    def begin(self, job: str) -> None:
        """Write for this job from now on; what was of another one is left out.

        Raises:
            OutputError: the disk is full or fails.
        """
        if job != self.job:
            self._path.unlink(missing_ok=True)
            self.receipts, self.showing, self.job = {}, False, job
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        try:
            self._open = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _failed(self._path, error) from error
        self._write({"job": job})

    def note(self, name: str, receipt: Mapping[str, Any]) -> None:
        """Keep a receipt, or a part of one.

        Raises:
            OutputError: the disk is full or fails.
        """
        whole = "part" not in receipt
        said = {"name": name, "receipt": dict(receipt)} if whole else {"name": name, **receipt}
        self._write(said)
        if whole:
            self.receipts[name] = dict(receipt)

    def show(self) -> None:
        """Keep that files are given their names from now on.

        Raises:
            OutputError: the disk is full or fails.
        """
        self._write({_SHOWING: True})
        self.showing = True

    def _write(self, said: Mapping[str, Any]) -> None:
        assert self._open is not None, "begin was not called"
        try:
            with self._lock:  # the line before may have been cut short: then this begins anew
                os.write(self._open, f"\n{json.dumps(said)}\n".encode())
        except OSError as error:
            raise _failed(self._path, error) from error

    def close(self) -> None:
        """Write nothing more."""
        if self._open is not None:
            os.close(self._open)
            self._open = None


def _failed(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: writing failed ({error.strerror}). Free some space and run the same command "
        "again: it goes on where it stopped."
    )
