"""Tensors as files store them: numbers at an offset, in a file here or in ranges of another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.numerics import decode
from safeswap.checkpoint.reader import Bytes, Numbers, Sized
from safeswap.io.buffers import buffer
from safeswap.io.files import (
    close_descriptor,
    copy_range,
    open_descriptor,
    prefetch,
    read_into,
    write_at,
)
from safeswap.io.workers import BLOCK_ELEMENTS


class ByteRanges(Protocol):
    """The bytes of a file that does not lie here, for several threads at once."""

    @property
    def where(self) -> str:
        """Its address, for messages."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def version(self) -> str:
        """What its store says that tells it from what it was or will be."""

    @property
    def sha256(self) -> str | None:
        """Its digest (hex), where its store knows it."""

    def read_into(self, start: int, out: Bytes) -> None:
        """Fill ``out`` from byte ``start``.

        Raises:
            CheckpointError: the file ends before, changed, or cannot be fetched.
        """
        ...

    def prefetch(self, start: int, nbytes: int) -> None:
        """Say which range comes next; returns at once."""
        ...

    def refuse_changed(self) -> None:
        """Ask whether it is still what was opened.

        Raises:
            CheckpointError: it is not, or nobody can say.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredTensor(Sized):
    """A tensor whose bytes lie in a file: file, format, shape and absolute byte offset.

    ``ranges`` gives the bytes of a file that does not lie here; ``file`` then only names it.
    """

    name: str
    file: Path
    dtype: Dtype
    shape: tuple[int, ...]
    start: int
    ranges: ByteRanges | None = None

    @property
    def where(self) -> str:
        """The file, or its address."""
        return str(self.file) if self.ranges is None else self.ranges.where

    def reader(self) -> StoredReader:
        """Make a reader of the file's bytes."""
        return StoredReader(self) if self.ranges is None else RangedReader(self, self.ranges)


class StoredReader:
    """Reads a tensor whose bytes lie in a local file (safetensors, or a ``.bin`` of torch)."""

    __slots__ = ("_descriptor", "_tensor")

    def __init__(self, tensor: StoredTensor) -> None:
        self._tensor = tensor
        self._descriptor = -1

    def __enter__(self) -> Self:
        """Open the file.

        Raises:
            CheckpointError: it is gone or may not be read.
        """
        self._descriptor = open_descriptor(self._tensor.file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        close_descriptor(self._descriptor)
        self._descriptor = -1

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        dtype = self._tensor.dtype
        for at in range(begin, end, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, end - at)
            raw = buffer("stored", count * dtype.size, np.uint8)
            self.read_raw(at, at + count, raw)
            decode(raw, dtype, out[at - begin : at - begin + count])

    def read_raw(self, begin: int, end: int, out: Bytes) -> bool:
        """See ``TensorReader.read_raw``; always True."""
        stored = self._tensor
        read_into(self._descriptor, stored.start + begin * stored.dtype.size, out, stored.file)
        return True

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        """See ``TensorReader.copy_raw``; always True, and inside the kernel where it can."""
        stored, size = self._tensor, self._tensor.dtype.size
        source, nbytes = stored.start + begin * size, (end - begin) * size
        copy_range(self._descriptor, source, target, start, nbytes, stored.file, into)
        return True

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``."""
        stored, size = self._tensor, self._tensor.dtype.size
        prefetch(self._descriptor, stored.start + begin * size, (end - begin) * size)


class RangedReader(StoredReader):
    """Reads a tensor whose bytes lie in a remote file."""

    __slots__ = ("_ranges",)

    def __init__(self, tensor: StoredTensor, ranges: ByteRanges) -> None:
        super().__init__(tensor)
        self._ranges = ranges

    def __enter__(self) -> Self:
        """Nothing is held open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is to be closed."""

    def read_raw(self, begin: int, end: int, out: Bytes) -> bool:
        """See ``TensorReader.read_raw``; always True."""
        stored = self._tensor
        self._ranges.read_into(stored.start + begin * stored.dtype.size, out)
        return True

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        """See ``TensorReader.copy_raw``; always True."""
        size = self._tensor.dtype.size
        for at in range(begin, end, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, end - at)
            raw = buffer("ranged", count * size, np.uint8)
            self.read_raw(at, at + count, raw)
            write_at(target, start + (at - begin) * size, raw.data, into)
        return True

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``."""
        stored, size = self._tensor, self._tensor.dtype.size
        self._ranges.prefetch(stored.start + begin * size, (end - begin) * size)
