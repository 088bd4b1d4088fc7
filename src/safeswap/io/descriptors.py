"""Files that stay open between uses, never more than a few at once.

Six languages of two hundred shards each are 1,200 files; a process may have 1,024 open, or fewer.
"""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safeswap.errors import OutputError
from safeswap.io.files import remedy

AT_ONCE = 64
"""Files kept open at most; more only while more than so many are in use at the same moment."""


def at_once() -> int:
    """How many files to keep open: `AT_ONCE`, or a quarter of what this process may have open.

    The rest is for the inputs, which every thread opens for itself, and for libraries.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return AT_ONCE if allowed == resource.RLIM_INFINITY else max(1, min(AT_ONCE, allowed // 4))


class Descriptors:
    """Descriptors of files opened for reading and writing, made when missing.

    The one that was used longest ago is closed first; one that is in use is not.
    """

    def __init__(self, keep: int | None = None) -> None:
        """``keep``: files kept open; `at_once` where it is not given."""
        self._at_once = at_once() if keep is None else keep
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
                self._close_idle(self._at_once - 1)
                entry = self._open[path] = [self._opened(path), 0]
            entry[1] += 1
            self._open.move_to_end(path)
        try:
            yield entry[0]
        finally:
            with self._lock:
                entry[1] -= 1

    def close(self) -> None:
        """Close all that are not in use."""
        with self._lock:
            self._close_idle(0)

    def _opened(self, path: Path) -> int:
        """A new descriptor; where there are too many, those that are idle are closed first."""
        try:
            return _open(path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise _not_opened(path, error) from error
        self._close_idle(0)
        try:
            return _open(path)
        except OSError as error:
            raise _not_opened(path, error) from error

    def _close_idle(self, keep: int) -> None:
        for path in [p for p, (_, users) in self._open.items() if not users]:
            if len(self._open) <= keep:
                return
            os.close(self._open.pop(path)[0])


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)


def _not_opened(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be opened ({error.strerror}). {remedy(error)}")
