"""A remote file of weights: any range of its bytes, fetched in pieces by several requests at once.

Pieces are ordered ahead of the reader (``prefetch``), land in the cache's folder, and are read from
there; the memory of a run does not grow with the model. A read that finds its bytes nowhere orders
them itself and waits.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import shutil
import threading
from bisect import bisect_right
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint.remote.cache import PIECE, TRAILER, Room, write_piece
from safeswap.checkpoint.remote.fetch import CONNECTIONS, Origin, fetch_range
from safeswap.errors import CheckpointError

WAITING = 2048
"""Pieces that may be ordered ahead; more are ordered when they are read."""
HELD = 96 << 20
"""Bytes of pieces in memory, where the cache has no room for them."""
_LARGE = 1 << 18
"""A piece that is there already and larger is not fetched once more on the way to others."""
_NAME = re.compile(r"(\d{1,19})-(\d{1,19})")


@dataclass(eq=False)
class _Piece:
    """Bytes ``begin`` to ``end``: ordered, or there (in a file, or in memory).

    Attributes:
        started: somebody is fetching it.
        trusted: its digest was made or compared in this process.
    """

    begin: int
    end: int
    path: Path | None = None
    data: bytearray | None = None
    error: BaseException | None = None
    started: bool = False
    trusted: bool = True
    done: threading.Event = field(default_factory=threading.Event)


class RemoteFile:
    """Ranges of one remote file; for several threads at once."""

    def __init__(self, origin: Origin, folder: Path, room: Room) -> None:
        """``folder``: of the cache, for the pieces of all files."""
        self.origin = origin
        self._room = room
        self._lock = threading.Lock()
        self._pieces: list[_Piece] = []  # by where they begin
        if origin.version:
            said = f"{origin.where}\n{origin.version}\n{origin.size}"
            self._folder = folder / hashlib.sha256(said.encode()).hexdigest()[:32]
            self._find()
        else:  # nothing tells whether it is the same file the next time
            folder.mkdir(parents=True, exist_ok=True)
            self._folder = Path(mkdtemp(dir=folder, prefix="once-"))
            atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    @property
    def where(self) -> str:
        """Its address, for messages."""
        return self.origin.where

    @property
    def size(self) -> int:
        """Bytes."""
        return self.origin.size

    @property
    def version(self) -> str:
        """What its store says that tells it from what it was or will be; empty for nothing."""
        return self.origin.version

    @property
    def sha256(self) -> str | None:
        """Its digest (hex), where its store knows it."""
        return self.origin.sha256

    def read_into(self, start: int, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` (uint8) from byte ``start``.

        Raises:
            CheckpointError: the file ends before, changed, or cannot be fetched.
        """
        stop = start + len(out)
        if stop > self.size:
            raise CheckpointError(
                f"{self.where}: ends at byte {self.size}, {stop - self.size} bytes too early."
            )
        at = start
        while at < stop:
            with self._lock:
                piece = self._covering(at) or self._order(at, stop)
            if not piece.done.is_set():
                _pool().hurry(self, piece)
                piece.done.wait()
            if piece.error is not None:
                raise piece.error
            at += self._copy(piece, at, out[at - start :])

    def prefetch(self, start: int, nbytes: int) -> None:
        """Order what is not there yet of a range, and return at once."""
        at, stop = start, min(start + nbytes, self.size)
        while at < stop:
            with self._lock:
                piece = self._covering(at)
                if piece is None:
                    if _pool().waiting >= WAITING:
                        return
                    piece = self._order(at, stop)
                at = piece.end

    def refuse_changed(self) -> None:
        """See ``Origin.refuse_changed``."""
        self.origin.refuse_changed()

    def _find(self) -> None:
        """The pieces that an earlier run left."""
        found = []
        with suppress(OSError):
            for entry in os.scandir(self._folder):
                match = _NAME.fullmatch(entry.name)
                if match is None or not entry.is_file(follow_symlinks=False):
                    continue
                begin, end = int(match[1]), int(match[2])
                sound = begin < end <= self.size and end - begin <= PIECE
                if sound and entry.stat().st_size == end - begin + TRAILER:
                    piece = _Piece(begin, end, Path(entry.path), started=True, trusted=False)
                    piece.done.set()
                    found.append(piece)
        self._pieces = sorted(found, key=lambda piece: (piece.begin, piece.end))

    def _covering(self, at: int) -> _Piece | None:
        """A piece with the byte ``at``; one that is there goes before one that is ordered."""
        index, best = bisect_right(self._pieces, at, key=lambda piece: piece.begin), None
        for piece in reversed(self._pieces[max(0, index - 128) : index]):
            if piece.begin + PIECE <= at:
                break
            if piece.end > at and piece.error is None:
                if piece.done.is_set():
                    return piece
                best = best or piece
        return best

    def _order(self, at: int, stop: int) -> _Piece:
        """Order the bytes from ``at`` on: up to ``stop``, or to a large piece that is there."""
        limit = min(stop, at + PIECE)
        index = bisect_right(self._pieces, at, key=lambda piece: piece.begin)
        end = limit
        for piece in self._pieces[index:]:
            if piece.begin >= limit:
                break
            if piece.end - piece.begin >= _LARGE:
                end = piece.begin
                break
        before = self._pieces[index - 1] if index else None
        # small tensors that follow each other are one request, as long as nobody fetches them
        if before and not before.started and before.end == at and end - before.begin <= PIECE:
            before.end = end
            return before
        piece = _Piece(at, end)
        self._pieces.insert(index, piece)
        _pool().add(self, piece)
        return piece

    def start(self, piece: _Piece) -> bool:
        """Whether the caller is to fetch a piece; from then on its bounds are fixed."""
        with self._lock:
            if piece.started:
                return False
            piece.started = True
            return True

    def fetch(self, piece: _Piece) -> None:
        """Fetch a piece, keep it, and wake who waits for it."""
        data, at = bytearray(piece.end - piece.begin), 0

        def take(part: memoryview) -> None:
            nonlocal at
            data[at : at + len(part)] = part
            at += len(part)

        try:
            fetch_range(self.origin, piece.begin, piece.end, take)
            if self._room.take(len(data) + TRAILER):
                path = self._folder / f"{piece.begin}-{piece.end}"
                write_piece(path, memoryview(data), blake3(data).digest())
                piece.path = path
                self._room.keep(path)
            else:
                piece.data = data
                self._room.hold(len(data), HELD, lambda: self._drop(piece))
        except BaseException as error:
            piece.error = error
            self._drop(piece)
        finally:
            piece.done.set()

    def _drop(self, piece: _Piece) -> None:
        with self._lock, suppress(ValueError):
            self._pieces.remove(piece)

    def _copy(self, piece: _Piece, at: int, out: NDArray[np.uint8]) -> int:
        """Copy what a piece has from byte ``at`` on; 0 where it is gone or damaged."""
        count = min(len(out), piece.end - at)
        held = piece.data
        if held is not None:
            out[:count] = np.frombuffer(held, np.uint8, count, at - piece.begin)
            return count
        assert piece.path is not None
        try:
            if not piece.trusted:
                content = piece.path.read_bytes()
                if blake3(content[:-TRAILER]).digest() != content[-TRAILER:]:
                    piece.path.unlink()
                    raise FileNotFoundError
                self._room.keep(piece.path)
                piece.trusted = True
            with piece.path.open("rb", buffering=0) as stream:
                stream.seek(at - piece.begin)
                if stream.readinto(out[:count].data) == count:
                    return count
        except OSError:
            pass
        self._drop(piece)  # thrown out by another process: it is fetched again
        return 0


class _Pool:
    """A few threads that fetch pieces, those first that somebody waits for."""

    def __init__(self) -> None:
        self._ready = threading.Condition()
        self._urgent: deque[tuple[RemoteFile, _Piece]] = deque()
        self._ahead: deque[tuple[RemoteFile, _Piece]] = deque()
        self._threads = 0
        self._idle = 0

    @property
    def waiting(self) -> int:
        return len(self._ahead)

    def add(self, file: RemoteFile, piece: _Piece) -> None:
        with self._ready:
            self._ahead.append((file, piece))
            self._wake()

    def hurry(self, file: RemoteFile, piece: _Piece) -> None:
        """Somebody waits for a piece: it goes before those that were ordered ahead."""
        if not piece.started:
            with self._ready:
                self._urgent.append((file, piece))
                self._wake()

    def _wake(self) -> None:
        work = len(self._urgent) + len(self._ahead)
        if self._idle < work and self._threads < CONNECTIONS:
            self._threads += 1
            # a process that ends does not wait for them: nothing half-made has a piece's name
            threading.Thread(target=self._work, daemon=True, name="safeswap-fetch").start()
        self._ready.notify()

    def _work(self) -> None:
        while True:
            with self._ready:
                self._idle += 1
                while not (self._urgent or self._ahead):
                    self._ready.wait()
                self._idle -= 1
                file, piece = (self._urgent or self._ahead).popleft()
            if file.start(piece):
                file.fetch(piece)


_pools: dict[int, _Pool] = {}
_pools_lock = threading.Lock()


def _pool() -> _Pool:
    """This process's threads; a forked process has none of its parent's."""
    process = os.getpid()
    with _pools_lock:
        if process not in _pools:
            _pools[process] = _Pool()
        return _pools[process]
