"""Output shards being written: any thread, any order, every byte at the place laid out for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.reader import TensorReader
from safeswap.checkpoint.shards import Layout
from safeswap.io.descriptors import Descriptors
from safeswap.io.files import fsync, read_into, set_size, write_at

_FORCED_AT_ONCE = 1 << 28
"""Bytes written to a shard before it is forced to the disk, so that the end does not wait for all
of them."""


@dataclass(slots=True)
class _Shard:
    """A shard that is being written.

    Attributes:
        unforced: bytes written since the shard was last forced to the disk.
        lock: held by who writes: a thread that waits for it sleeps, one that waits in the kernel
            burns its core (copies took twice the CPU time).
    """

    path: Path
    unforced: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class ShardWriter:
    """Writes the shards of one output; a context manager.

    Args:
        folder: where the shards lie; made if missing. What an earlier run left of them stays.
        layout: where every byte goes.
        dtypes: tensor → format that it is written in.
        descriptors: open files, shared by all outputs of a run, so that there are never too many.
        forget: give back the memory that caches a shard once it is on the disk.

    Raises:
        OutputError: the folder or a shard cannot be made, or the disk is full.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        dtypes: Mapping[str, Dtype],
        descriptors: Descriptors,
        *,
        forget: bool,
    ) -> None:
        self._layout, self._dtypes, self._open = layout, dtypes, descriptors
        self._forget = forget
        self._shards: dict[str, _Shard] = {}
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._forced: list[Future[None]] = []
        folder.mkdir(parents=True, exist_ok=True)
        for shard in layout.shards:
            made = self._shards[shard.name] = _Shard(folder / shard.name)
            with descriptors.using(made.path) as descriptor:
                set_size(descriptor, shard.size, made.path)
                write_at(descriptor, 0, shard.header, made.path)

    def __enter__(self) -> Self:
        """Return the writer; its files were opened when it was made."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop forcing; files stay as they are."""
        self._pool.shutdown(cancel_futures=True)

    def write(self, name: str, begin: int, raw: NDArray[np.uint8]) -> None:
        """Write bytes of a tensor from element ``begin`` on.

        Raises:
            OutputError: the disk is full or fails.
        """
        shard, start = self._place(name, begin)
        with self._open.using(shard.path) as descriptor, shard.lock:
            write_at(descriptor, start, raw.data, shard.path)

    def copy(self, name: str, begin: int, end: int, reader: TensorReader) -> bool:
        """Copy the stored bytes of a range of elements; False where the reader has none.

        Raises:
            CheckpointError, OutputError: the source or the disk fails.
        """
        shard, start = self._place(name, begin)
        with self._open.using(shard.path) as descriptor, shard.lock:
            return reader.copy_raw(begin, end, descriptor, start, shard.path)

    def read_back(self, name: str, begin: int, out: NDArray[np.uint8]) -> None:
        """Fill ``out`` with what lies in the shard from element ``begin`` on.

        Raises:
            CheckpointError: the shard ends early.
        """
        shard, start = self._place(name, begin)
        with self._open.using(shard.path) as descriptor:
            read_into(descriptor, start, out, shard.path)

    def done(self, name: str, nbytes: int) -> None:
        """Count bytes as written; from time to time the shard is forced to the disk meanwhile."""
        shard, _ = self._place(name, 0)
        with shard.lock:
            shard.unforced += nbytes
            if shard.unforced < _FORCED_AT_ONCE:
                return
            shard.unforced = 0
        self._force(shard)

    def finish(self) -> None:
        """Wait until all shards are on the disk.

        Raises:
            OutputError: the disk is full or fails after all.
        """
        for shard in self._shards.values():
            self._force(shard)
        for forced in self._forced:
            forced.result()

    def _place(self, name: str, begin: int) -> tuple[_Shard, int]:
        shard, start = self._layout.place[name]
        return self._shards[shard.name], start + begin * self._dtypes[name].size

    def _force(self, shard: _Shard) -> None:
        def force() -> None:
            with self._open.using(shard.path) as descriptor:
                fsync(descriptor, shard.path, forget=self._forget)

        self._forced.append(self._pool.submit(force))
