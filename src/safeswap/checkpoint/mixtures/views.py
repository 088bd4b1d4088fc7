"""Tensors in another order than they are stored in: several as one, transposed, rows interleaved.

A view changes no number and no byte, only where they are: what can be copied below can be copied
here. Views stand on any tensors, on one another too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.reader import Bytes, Numbers, Sized, Tensor, TensorReader
from safeswap.checkpoint.sliced import SlicedTensor


@dataclass(frozen=True)
class View(Sized):
    """What views have in common.

    Attributes:
        name: in the family.
        parts: the tensors that its numbers come from, of one format.
        shape: rows first.
    """

    name: str
    parts: tuple[Tensor, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> Dtype:
        """The parts' format."""
        return self.parts[0].dtype

    @property
    def where(self) -> str:
        """The first part's file."""
        return self.parts[0].where

    def reader(self) -> TensorReader:
        """Make a reader; subclasses say of what."""
        raise NotImplementedError


@dataclass(frozen=True)
class Stack(View):
    """Several tensors, one after another."""

    ends: tuple[int, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        """Find where each part ends."""
        ends = np.cumsum([part.elements for part in self.parts]).tolist()
        object.__setattr__(self, "ends", tuple(ends))

    def reader(self) -> TensorReader:
        """Make a reader that opens the parts that it needs."""
        return _StackReader(self)


@dataclass(frozen=True)
class Turned(View):
    """Matrices ``[…, rows, columns]`` of one tensor, each transposed."""

    def reader(self) -> TensorReader:
        """Make a reader that holds one matrix."""
        return _TurnedReader(self)


@dataclass(frozen=True)
class Braid(View):
    """The rows of two tensors in turns: the first of each, the second of each and so on."""

    def reader(self) -> TensorReader:
        """Make a reader of both."""
        return _BraidReader(self)


@dataclass(frozen=True)
class Strand(View):
    """Every second row of one tensor, from row ``first`` (0 or 1) on."""

    first: int = 0

    def reader(self) -> TensorReader:
        """Make a reader of the rows."""
        return _StrandReader(self)


def leaves(tensor: Tensor) -> tuple[Tensor, ...]:
    """The tensors that a view stands on in the end; itself, where it is none."""
    below = tensor.parts if isinstance(tensor, View) else ()
    below = (tensor.under,) if isinstance(tensor, SlicedTensor) else below
    return tuple(dict.fromkeys(leaf for part in below for leaf in leaves(part))) or (tensor,)


class _Reader:
    """What readers of views share: parts that are opened when they are needed, and bytes that are
    as good as numbers: both are read into an array, whose elements are put in order.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._stack = ExitStack()
        self._open: dict[int, TensorReader] = {}

    def __enter__(self) -> Self:
        """Open nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the parts that were opened."""
        self._open.clear()
        self._stack.close()

    def part(self, number: int) -> TensorReader:
        """A part's reader."""
        if number not in self._open:
            made = self._view.parts[number].reader()
            self._open[number] = self._stack.enter_context(made)
        return self._open[number]

    def part_into(self, number: int, begin: int, end: int, out: NDArray[Any]) -> bool:
        """A part's numbers, or its bytes where ``out`` has unsigned integers of their size."""
        if out.dtype.kind == "f":
            self.part(number).read_numbers(begin, end, out)
            return True
        return self.part(number).read_raw(begin, end, out.view(np.uint8))

    def fill(self, begin: int, end: int, out: NDArray[Any]) -> bool:
        """Put a range in its order into ``out``; False where there are no bytes."""
        raise NotImplementedError

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        self.fill(begin, end, out)

    def read_raw(self, begin: int, end: int, out: Bytes) -> bool:
        """See ``TensorReader.read_raw``; where it is False ``out`` may hold anything."""
        return self.fill(begin, end, out.view(f"u{self._view.dtype.size}"))

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        """See ``TensorReader.copy_raw``; always False: who copies reads and writes."""
        return False

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``."""


class _StackReader(_Reader):
    def _runs(self, begin: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Part, its begin and end, and where that begins in the range."""
        view = self._view
        assert isinstance(view, Stack)
        at = begin
        number = bisect_right(view.ends, begin)
        while at < end:
            start = view.ends[number] - view.parts[number].elements
            stop = min(end, view.ends[number])
            if at < stop:
                yield number, at - start, stop - start, at - begin
            at, number = max(at, stop), number + 1

    def fill(self, begin: int, end: int, out: NDArray[Any]) -> bool:
        return all(
            self.part_into(number, first, last, out[at : at + last - first])
            for number, first, last, at in self._runs(begin, end)
        )

    def prefetch(self, begin: int, end: int) -> None:
        for number, first, last, _ in self._runs(begin, end):
            self.part(number).prefetch(first, last)


class _TurnedReader(_Reader):
    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._held: tuple[int, NDArray[Any]] | None = None

    def fill(self, begin: int, end: int, out: NDArray[Any]) -> bool:
        size = prod(self._view.shape[-2:])
        at = begin
        while at < end:
            number, inside = divmod(at, size)
            stop = min(end, (number + 1) * size)
            turned = self._matrix(number, out.dtype)
            if turned is None:
                return False
            out[at - begin : stop - begin] = turned[inside : inside + stop - at]
            at = stop
        return True

    def _matrix(self, number: int, kind: np.dtype[Any]) -> NDArray[Any] | None:
        """A matrix in the view's order, flat."""
        if self._held is None or self._held[0] != number or self._held[1].dtype != kind:
            columns, rows = self._view.shape[-2:]
            size = rows * columns
            found: NDArray[Any] = np.empty(size, kind)
            if not self.part_into(0, number * size, (number + 1) * size, found):
                return None
            self._held = number, np.ascontiguousarray(found.reshape(rows, columns).T).ravel()
        return self._held[1]

    def prefetch(self, begin: int, end: int) -> None:
        size = prod(self._view.shape[-2:])
        self.part(0).prefetch(begin // size * size, -(-end // size) * size)


class _BraidReader(_Reader):
    def fill(self, begin: int, end: int, out: NDArray[Any]) -> bool:
        width = prod(self._view.shape[1:])
        first, last = begin // (2 * width), -(-end // (2 * width))
        both: NDArray[Any] = np.empty((last - first, 2, width), out.dtype)
        for number in (0, 1):
            own: NDArray[Any] = np.empty((last - first) * width, out.dtype)
            if not self.part_into(number, first * width, last * width, own):
                return False
            both[:, number] = own.reshape(-1, width)
        skipped = begin - first * 2 * width
        out[:] = both.ravel()[skipped : skipped + end - begin]
        return True


class _StrandReader(_Reader):
    def fill(self, begin: int, end: int, out: NDArray[Any]) -> bool:
        view = self._view
        assert isinstance(view, Strand)
        width = prod(view.shape[1:])
        first, last = begin // width, -(-end // width)
        both: NDArray[Any] = np.empty((last - first) * 2 * width, out.dtype)
        if not self.part_into(0, first * 2 * width, last * 2 * width, both):
            return False
        own = np.ascontiguousarray(both.reshape(-1, 2, width)[:, view.first]).ravel()
        out[:] = own[begin - first * width : end - first * width]
        return True
