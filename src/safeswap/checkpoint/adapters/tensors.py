"""Tensors that an adapter changes, as the reading seam knows them: computed while they are read.

The number of a weight is ``W + ΔW`` in the arithmetic that is asked for (float32, or float64 for
32-bit weights): ΔW is a product in that type, of factors that are scaled in float64, and the sum is
not rounded to the stored format first, as peft's ``merge_and_unload`` does. A copy is rounded once,
when it is written. DoRA is computed in float64.

Everything is made in panels of whole rows, on a grid that hangs on the tensor alone, so that the
numbers do not depend on how they are read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import prod
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.adapters.factors import Factors, all_numbers
from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.reader import Numbers, Sized, Tensor, TensorReader, WithoutBytes
from safeswap.errors import CheckpointError
from safeswap.io import blas


@dataclass(frozen=True)
class ComputedTensor(Sized):
    """A tensor of an adapter's base as the adapter changes it.

    Attributes:
        under: the tensor that is changed; its format is that of a copy.
        sources: the adapter's tensors that change it, for messages and digests.
    """

    name: str
    under: Tensor
    dtype: Dtype
    shape: tuple[int, ...]
    sources: tuple[Tensor, ...]

    @property
    def where(self) -> str:
        """The file of the adapter."""
        return self.sources[0].where

    def reader(self) -> TensorReader:
        """Make a reader; subclasses say of what."""
        raise NotImplementedError


class ComputedReader(WithoutBytes):
    """What readers of an adapter's tensors have in common: a reader of what is below."""

    def __init__(self, under: Tensor) -> None:
        self._under = under.reader()

    def __enter__(self) -> Self:
        """Open what lies below."""
        blas.enter()
        try:
            self._under.__enter__()
        except BaseException:
            blas.leave()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what lies below."""
        blas.leave()
        self._under.__exit__(kind, error, trace)

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``."""
        self._under.prefetch(begin, end)

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        raise NotImplementedError


class Recent:
    """The right factors that were read last: the chunks of a tensor come one after another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[tuple[Factors, int, np.dtype[Any]], NDArray[Any]] = {}

    def right(self, factors: Factors, block: int, kind: np.dtype[Any]) -> NDArray[Any]:
        """The right factor of a block as ``kind``, read unless it was kept."""
        with self._lock:
            found = self._kept.get((factors, block, kind))
        if found is None:
            found = factors.right(block).astype(kind, copy=False)
            with self._lock:
                self._kept[factors, block, kind] = found
                while len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
        return found


_KEPT = 4
_DOUBLE = np.dtype(np.float64)


class _Panels:
    """The panels of ``ΔW`` in one arithmetic, the last one kept."""

    def __init__(self, factors: Factors, recent: Recent, kind: np.dtype[Any] = _DOUBLE) -> None:
        self._factors, self._recent, self._kind = factors, recent, kind
        self._block, self._right = -1, np.empty((0, 0))
        self._at, self._panel = (-1, -1), np.empty((0, 0))
        self._room: NDArray[Any] | None = None

    def touching(self, begin: int, end: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """The panels that a range of elements touches: (first element, rows × columns)."""
        factors = self._factors
        size = factors.rows * factors.columns
        step = factors.panel_rows
        at = begin
        while at < end:
            block, inside = divmod(at, size)
            row = inside // factors.columns // step * step
            last = min(row + step, factors.rows)
            yield block * size + row * factors.columns, self._made(block, row, last)
            at = block * size + last * factors.columns

    def _made(self, block: int, row: int, last: int) -> NDArray[Any]:
        if self._at != (block, row):
            if self._block != block:
                self._right = self._recent.right(self._factors, block, self._kind)
                self._block = block
            if self._room is None:
                size = self._factors.panel_rows, self._factors.columns
                self._room = np.empty(size, self._kind)
            left = self._factors.left(block, row, last).astype(self._kind, copy=False)
            self._panel = np.matmul(left, self._right, out=self._room[: last - row])
            self._at = block, row
        return self._panel


def _overlap(first: int, count: int, begin: int, end: int) -> tuple[slice, slice]:
    """Where a panel of ``count`` elements from ``first`` on meets a range: in it, and in that."""
    low, high = max(first, begin), min(first + count, end)
    return slice(low - first, high - first), slice(low - begin, high - begin)


@dataclass(frozen=True)
class LowRankTensor(ComputedTensor):
    """``W + s · L · R``."""

    factors: Factors = field(kw_only=True)
    recent: Recent = field(kw_only=True, default_factory=Recent, compare=False)

    def reader(self) -> LowRankReader:
        """Make a reader of the sums."""
        return LowRankReader(self)


class LowRankReader(ComputedReader):
    """Reads ``W + s · L · R``, or the update alone."""

    def __init__(self, tensor: LowRankTensor) -> None:
        super().__init__(tensor.under)
        self._tensor = tensor
        self._panels: dict[np.dtype[Any], _Panels] = {}

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        self._under.read_numbers(begin, end, out)
        for first, panel in self._of(out.dtype).touching(begin, end):
            inside, place = _overlap(first, panel.size, begin, end)
            np.add(out[place], panel.reshape(-1)[inside], out=out[place])

    def read_change(self, begin: int, end: int, out: Numbers) -> None:
        """Fill ``out`` with the numbers of the update alone; what lies below is not read."""
        for first, panel in self._of(out.dtype).touching(begin, end):
            inside, place = _overlap(first, panel.size, begin, end)
            np.copyto(out[place], panel.reshape(-1)[inside])

    def _of(self, kind: np.dtype[Any]) -> _Panels:
        """The panels in the arithmetic that is asked for."""
        if kind not in self._panels:
            self._panels[kind] = _Panels(self._tensor.factors, self._tensor.recent, kind)
        return self._panels[kind]


@dataclass(frozen=True)
class DoraTensor(ComputedTensor):
    """``m / ‖W + sLR‖ · (W + sLR)``, the norm of each output (Liu et al., ICML 2024, 2402.09353).

    Outputs are rows, or columns where the factors are transposed (``Conv1D``, embeddings): then the
    whole tensor is read once for its norms, which stay in memory.
    """

    factors: Factors = field(kw_only=True)
    magnitudes: Tensor = field(kw_only=True)
    recent: Recent = field(kw_only=True, default_factory=Recent, compare=False)
    norms: _Norms = field(kw_only=True, default_factory=lambda: _Norms(), compare=False)

    def reader(self) -> DoraReader:
        """Make a reader of the scaled sums."""
        return DoraReader(self)


class _Norms:
    """The norms of all columns, made by whoever needs them first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: NDArray[np.float64] | None = None

    def get(self, make: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The norms, made by ``make`` the first time."""
        with self._lock:
            if self._found is None:
                self._found = make()
            return self._found


class DoraReader(ComputedReader):
    """Reads what DoRA makes of a weight."""

    def __init__(self, tensor: DoraTensor) -> None:
        super().__init__(tensor.under)
        self._tensor, self._panels = tensor, _Panels(tensor.factors, tensor.recent)
        self._scale: NDArray[np.float64] | None = None
        self._at, self._values = -1, np.empty(0)

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        for first, panel in self._panels.touching(begin, end):
            if self._at != first:
                self._values = self._scaled(first, panel).reshape(-1)
                self._at = first
            inside, place = _overlap(first, panel.size, begin, end)
            np.copyto(out[place], self._values[inside], casting="same_kind")

    def _sum(self, first: int, panel: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.empty(panel.size, np.float64)
        self._under.read_numbers(first, first + panel.size, total)
        return total.reshape(panel.shape) + panel

    def _scaled(self, first: int, panel: NDArray[np.float64]) -> NDArray[np.float64]:
        total = self._sum(first, panel)
        by_column = self._tensor.factors.transposed
        if self._scale is None:
            self._scale = all_numbers(self._tensor.magnitudes)
            if by_column:
                self._scale = self._scale / self._tensor.norms.get(self._column_norms)
        if by_column:
            return total * self._scale
        row = first // panel.shape[1]
        wanted = self._scale[row : row + len(panel)]
        norms = np.sqrt(np.vecdot(total, total))
        return total * _checked(wanted / norms, self._tensor)[:, None]

    def _column_norms(self) -> NDArray[np.float64]:
        squares = np.zeros(self._tensor.factors.columns)
        for first, panel in _Panels(self._tensor.factors, self._tensor.recent).touching(
            0, self._tensor.elements
        ):
            total = self._sum(first, panel)
            squares += (total * total).sum(axis=0)
        return _checked(np.sqrt(squares), self._tensor)


def _checked(values: NDArray[np.float64], tensor: ComputedTensor) -> NDArray[np.float64]:
    if not bool(np.isfinite(values).all() and (values != 0).all()):
        raise CheckpointError(
            f"{tensor.where}: DoRA's norms or magnitudes for {tensor.name!r} are 0 or no numbers. "
            "The adapter does not fit the base, or is damaged."
        )
    return values


@dataclass(frozen=True)
class RowsTensor(ComputedTensor):
    """``W`` with some rows replaced (``trainable_token_indices``).

    Attributes:
        rows: which, in the order of the replacement's own rows.
        replacement: the new rows.
    """

    rows: tuple[int, ...] = field(kw_only=True)
    replacement: Tensor = field(kw_only=True)

    def reader(self) -> RowsReader:
        """Make a reader with the rows in their places."""
        return RowsReader(self)


class RowsReader(ComputedReader):
    """Reads a tensor some of whose rows are others."""

    def __init__(self, tensor: RowsTensor) -> None:
        super().__init__(tensor.under)
        self._width = prod(tensor.shape[1:])
        self._tensor = tensor
        self._new: NDArray[np.float64] | None = None

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        self._under.read_numbers(begin, end, out)
        if self._new is None:
            self._new = all_numbers(self._tensor.replacement).reshape(-1, self._width)
        rows = np.asarray(self._tensor.rows)
        here = (rows * self._width < end) & ((rows + 1) * self._width > begin)
        for number in np.flatnonzero(here):
            inside, place = _overlap(int(rows[number]) * self._width, self._width, begin, end)
            out[place] = self._new[number][inside]


@dataclass(frozen=True)
class AddedTensor(ComputedTensor):
    """``b + s · b'`` (``lora_bias``)."""

    added: Tensor = field(kw_only=True)
    scale: float = field(kw_only=True)

    def reader(self) -> AddedReader:
        """Make a reader of the sums."""
        return AddedReader(self)


class AddedReader(ComputedReader):
    """Reads the sum of two tensors."""

    def __init__(self, tensor: AddedTensor) -> None:
        super().__init__(tensor.under)
        self._tensor = tensor

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        self._under.read_numbers(begin, end, out)
        change = np.empty(end - begin, np.float64)
        with self._tensor.added.reader() as reader:
            reader.read_numbers(begin, end, change)
        np.add(out, (change * self._tensor.scale).astype(out.dtype), out=out)


@dataclass(frozen=True)
class ConvertedTensor(ComputedTensor):
    """The adapter's own tensor in its base's format (``modules_to_save`` saved in float32)."""

    def reader(self) -> ConvertedReader:
        """Make a reader of its numbers."""
        return ConvertedReader(self.under)


class ConvertedReader(ComputedReader):
    """Reads numbers that are stored in another format than a copy has."""

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        self._under.read_numbers(begin, end, out)
