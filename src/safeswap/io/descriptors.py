"""Files that stay open between uses, never more than a few at once.

Six languages of two hundred shards each are 1,200 files; a process may have 1,024 open, or fewer.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safeswap.errors import OutputError
from safeswap.io.files import remedy

AT_ONCE = 64
"""Files kept open; more only while more than so many are in use at the same moment."""


class Descriptors:
    """Descriptors of files opened for reading and writing, made when missing.

    The one that was used longest ago is closed first; one that is in use is not.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._open: OrderedDict[Path, list[int]] = OrderedDict()  # path → [descriptor, users]
        self._lock = threading.Lock()

    @contextmanager
    def using(self, path: Path) -> Iterator[int]:
        """A descriptor of a file, open until the end of the block at least.

        Raises:
            OutputError: it cannot be opened or made; says why.
        """
        with self._lock:
            entry = self._open.get(path)
            if entry is None:
                entry = self._open[path] = [_opened(path), 0]
            entry[1] += 1
            self._open.move_to_end(path)
            self._close_idle(self._at_once)
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1

    def close(self) -> None:
        """Close all that are not in use."""
        with self._lock:
            self._close_idle(0)

    def _close_idle(self, keep: int) -> None:
        for path in [p for p, (_, users) in self._open.items() if not users]:
            if len(self._open) <= keep:
                return
            os.close(self._open.pop(path)[0])


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be opened ({error.strerror}). {remedy(error)}"
        ) from error
