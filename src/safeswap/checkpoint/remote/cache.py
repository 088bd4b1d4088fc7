"""Where fetched bytes are kept: pieces of weights, each a file with its digest, in bounded room.

A piece is one answer to one request: bytes ``begin`` to ``end`` of a file in one version. It gets
its name once it is whole, so that a run that was stopped, and the next command, go on from what
came. Pieces that were not used for the longest go first where the room (`SAFESWAP_CACHE_SIZE`,
or what the disk leaves) is used up; bytes that do not fit any more are fetched again when needed.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from safeswap.errors import CheckpointError, ConfigError
from safeswap.io.files import remedy

PIECE = 4 << 20
"""Bytes of a piece at the most."""
TRAILER = 32
"""Bytes of BLAKE3 after a piece's own."""
DEFAULT_ROOM = 200 << 30
SPARED = 10
"""A tenth of the disk is left free."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """``SAFESWAP_CACHE``, else the platform's folder for caches; made where it is missing.

    Raises:
        CheckpointError: it cannot be made.
    """
    given = os.environ.get("SAFESWAP_CACHE")
    if given:
        folder = Path(given).expanduser()
    elif sys.platform == "darwin":
        folder = Path.home() / "Library" / "Caches" / "safeswap"
    else:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "safeswap"
    try:
        # what a token could read is for its owner alone
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot be made ({error.strerror}), and fetched files are kept there. Set "
            "SAFESWAP_CACHE to a folder that can be written."
        ) from error
    return folder.resolve()


def cache_room(folder: Path) -> int:
    """Bytes that pieces may take in all: ``SAFESWAP_CACHE_SIZE`` (``20GB``), else 200 GiB; never so
    much that less than a tenth of the disk is free.

    Raises:
        ConfigError: the variable is no size.
    """
    usage = shutil.disk_usage(folder)
    text = os.environ.get("SAFESWAP_CACHE_SIZE", "").strip().upper()
    room = DEFAULT_ROOM
    if text:
        bare = text.removesuffix("IB").removesuffix("B")
        unit = bare[-1] if bare[-1:] in "KMGT" and bare else ""
        number = bare.removesuffix(unit)
        if not number.strip().isascii() or not number.strip().isdigit():
            raise ConfigError(f"SAFESWAP_CACHE_SIZE={text!r} is no size; write e.g. 20GB.")
        room = int(number) * _UNITS[unit]
    return min(room, max(0, usage.free - usage.total // SPARED) + used(folder / "pieces"))


def used(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(size for _, size, _ in _files(folder))


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """Time of last use, size and path of every file below a folder, the oldest first."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            with suppress(OSError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
    return sorted(found, key=lambda one: one[0])


class Room:
    """The bytes that this process may still keep; shared by all files.

    What was there before it began is thrown out for new pieces, what it fetched itself is not: a
    pass over inputs that are larger than the room would else throw out what it needs next.
    """

    def __init__(self, folder: Path, nbytes: int) -> None:
        self._lock = threading.Lock()
        self._left = nbytes
        self._old = _files(folder)
        self._left -= sum(size for _, size, _ in self._old)
        self._mine: set[Path] = set()
        self._told = False
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        self._in_memory = 0

    def hold(self, nbytes: int, limit: int, drop: Callable[[], None]) -> None:
        """A piece is held in memory; those before it are dropped beyond ``limit`` bytes in all."""
        dropped = []
        with self._lock:
            self._held.append((nbytes, drop))
            self._in_memory += nbytes
            while self._in_memory > limit and len(self._held) > 1:
                size, oldest = self._held.popleft()
                self._in_memory -= size
                dropped.append(oldest)
        for oldest in dropped:
            oldest()

    def keep(self, path: Path) -> None:
        """A piece that was there before is in use: it is thrown out no more."""
        with self._lock:
            self._mine.add(path)
        with suppress(OSError):
            os.utime(path)

    def take(self, nbytes: int) -> bool:
        """Room for a new piece; False where there is none, and it is forgotten after use."""
        with self._lock:
            while self._left < nbytes and self._old:
                _, size, path = self._old.pop(0)
                if path in self._mine:
                    continue
                with suppress(OSError):
                    path.unlink()
                    self._left += size
            if self._left < nbytes:
                if not self._told:
                    self._told = True
                    _log.warning(
                        "the cache is full: what does not fit is fetched again when it is needed "
                        "once more. SAFESWAP_CACHE_SIZE gives it more room, SAFESWAP_CACHE "
                        "another disk."
                    )
                return False
            self._left -= nbytes
            return True


def write_piece(path: Path, data: bytes | memoryview, digest: bytes) -> None:
    """Write a piece whole or not at all.

    Raises:
        CheckpointError: the disk is full or fails.
    """
    part = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as stream:
            part = Path(stream.name)
            stream.write(data)
            stream.write(digest)
        part.replace(path)
    except OSError as error:
        if part is not None:
            with suppress(OSError):
                part.unlink()
        raise CheckpointError(
            f"{path.parent}: a piece cannot be kept ({error.strerror}). {remedy(error)} "
            "SAFESWAP_CACHE names another folder."
        ) from error
