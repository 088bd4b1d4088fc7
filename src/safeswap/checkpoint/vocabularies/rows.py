"""A tensor whose rows lie elsewhere: in another order, and some of them in another tensor.

It is read as any tensor is; runs of rows that follow each other where they lie are read in one go.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.reader import Bytes, Numbers, Sized, Tensor, TensorReader
from safeswap.io.buffers import buffer

Rows = NDArray[np.int64]
_SPAN = 1 << 19
"""Elements that are read at once to pick scattered short rows from: 4 MiB of float64."""
_FEW = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Rows that follow each other: elements ``begin`` to ``end`` of the whole lie from ``start``
    on in one of the two tensors.
    """

    begin: int
    end: int
    own: bool
    start: int


@dataclass(frozen=True, eq=False)
class MappedTensor(Sized):
    """A tensor made of the rows of two others.

    Attributes:
        own: the member's tensor, which gives name and format.
        other: the tensor that gives the rows which ``own`` does not have; of the shape of the
            whole.
        rows: for each row of the whole its row in ``own``; below 0 it is the same row of ``other``.
    """

    own: Tensor
    other: Tensor
    rows: Rows

    def __post_init__(self) -> None:
        """Check that every row is there.

        Raises:
            ValueError: one is not, or the two tensors have rows of different widths.
        """
        width = width_of(self.own.shape)
        fits = width == width_of(self.other.shape) and len(self.rows) == rows_of(self.other.shape)
        if not fits or (len(self.rows) and int(self.rows.max()) >= rows_of(self.own.shape)):
            raise ValueError(f"{self.own.name}: rows that are not there")

    @property
    def name(self) -> str:
        """Name in the member's checkpoint."""
        return self.own.name

    @property
    def shape(self) -> tuple[int, ...]:
        """As many rows as are mapped."""
        return self.other.shape

    @property
    def dtype(self) -> Dtype:
        """The member's format."""
        return self.own.dtype

    @property
    def where(self) -> str:
        """The member's file."""
        return self.own.where

    def reader(self) -> MappedReader:
        """Make a reader of both tensors."""
        return MappedReader(self)

    def runs(self, begin: int, end: int) -> Iterator[Run]:
        """Where a range of elements lies, in runs as long as can be."""
        if begin >= end:
            return
        width = width_of(self.shape)
        first, last = begin // width, -(-end // width)
        rows = self.rows[first:last]
        steps = np.flatnonzero(~_follows(rows)) + 1
        for low, high in zip((0, *steps.tolist()), (*steps.tolist(), len(rows)), strict=True):
            row = int(rows[low])
            at, stop = max(begin, (first + low) * width), min(end, (first + high) * width)
            start = (row if row >= 0 else first + low) * width + at - (first + low) * width
            yield Run(at, stop, row >= 0, start)


def _follows(rows: Rows) -> NDArray[np.bool_]:
    """Of each row but the first, whether it lies right after the one before."""
    before, after = rows[:-1], rows[1:]
    return np.where(before >= 0, after == before + 1, after < 0)


def shared_rows(tensor: Tensor) -> Rows:
    """The numbers of the rows that a tensor has of its own, all of them where none is mapped."""
    if isinstance(tensor, MappedTensor):
        return np.flatnonzero(tensor.rows >= 0)
    return np.arange(rows_of(tensor.shape))


def rows_of(shape: tuple[int, ...]) -> int:
    """The size of the dimension that counts tokens: the first that is not 1."""
    return next((size for size in shape if size != 1), 1)


def width_of(shape: tuple[int, ...]) -> int:
    """Elements of a row."""
    return max(1, prod(shape) // max(1, rows_of(shape)))


class MappedReader:
    """Reads the rows of a `MappedTensor` from its two tensors."""

    __slots__ = ("_other", "_own", "_stack", "_tensor")

    def __init__(self, tensor: MappedTensor) -> None:
        self._tensor, self._stack = tensor, ExitStack()
        self._own: TensorReader = tensor.own.reader()
        self._other: TensorReader = tensor.other.reader()

    def __enter__(self) -> Self:
        """Open both."""
        with ExitStack() as stack:
            stack.enter_context(self._own)
            stack.enter_context(self._other)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close both."""
        self._stack.close()

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        runs = list(self._tensor.runs(begin, end))
        for own in (True, False):
            parts = [run for run in runs if run.own is own]
            reader = self._own if own else self._other
            if not _picked(reader, parts, begin, out):
                for run in parts:
                    stop = run.start + run.end - run.begin
                    reader.read_numbers(run.start, stop, out[run.begin - begin : run.end - begin])

    def read_raw(self, begin: int, end: int, out: Bytes) -> bool:
        """See ``TensorReader.read_raw``; True where all rows lie as stored bytes in this format."""
        own, other, size = self._tensor.own, self._tensor.other, self._tensor.dtype.size
        found = buffer("mapped rows", (end - begin) * size, np.uint8)  # out stays as it was
        runs = list(self._tensor.runs(begin, end))
        if own.dtype != other.dtype and not all(run.own for run in runs):
            return False
        for run in runs:
            reader, part = self._own if run.own else self._other, slice_of(run, begin, size)
            if not reader.read_raw(run.start, run.start + run.end - run.begin, found[part]):
                return False
        out[:] = found
        return True

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        """See ``TensorReader.copy_raw``; always False: what is written has to be digested."""
        return False

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``; only where it is a few runs."""
        runs = list(self._tensor.runs(begin, end))
        for run in runs if len(runs) <= _FEW else ():
            reader = self._own if run.own else self._other
            reader.prefetch(run.start, run.start + run.end - run.begin)


def slice_of(run: Run, begin: int, size: int) -> slice:
    """Where a run's bytes belong in those of a range that starts at element ``begin``."""
    return slice((run.begin - begin) * size, (run.end - begin) * size)


def _picked(reader: TensorReader, runs: list[Run], begin: int, out: Numbers) -> bool:
    """Pick many short runs, as of a bias in another order, from one read of all between them;
    False where they lie too far apart for it.
    """
    if len(runs) <= _FEW:
        return False
    first = min(run.start for run in runs)
    last = max(run.start + run.end - run.begin for run in runs)
    if last - first > min(_SPAN, 64 * len(runs)):
        return False
    span: NDArray[Any] = buffer("mapped span", last - first, out.dtype)
    reader.read_numbers(first, last, span)
    for run in runs:
        at = run.start - first
        out[run.begin - begin : run.end - begin] = span[at : at + run.end - run.begin]
    return True
