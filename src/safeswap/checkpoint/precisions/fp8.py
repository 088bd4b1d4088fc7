"""Eight-bit floats with scales: DeepSeek's blocks, compressed-tensors, FBGEMM, static per tensor.

A weight is its stored number times its scale. The scales are a grid over the weight: along every
dimension there is one of them for all, one for each row, or one for each block. DeepSeek calls them
``weight_scale_inv`` (the inverse of what the weight was multiplied by), the others
``weight_scale``; all multiply. Sources: DeepSeek-V3's ``inference/kernel.py`` (``weight_dequant``),
compressed-tensors (strategies ``tensor``, ``channel``, ``block``), transformers'
``integrations/finegrained_fp8.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.precisions.packed import PackedReader, PackedTensor, Part, Source, Span
from safeswap.checkpoint.reader import Bytes, Numbers, Tensor
from safeswap.checkpoint.stored import StoredTensor
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS, CHUNK_ELEMENTS

CODES: dict[str, Any] = {
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E5M2": ml_dtypes.float8_e5m2,
}
"""The formats of weights that are read, and numpy's types for them."""
SCALES = ("F32", "BF16", "F16", "F64", "F8_E8M0", "U8")
"""The formats of scales; the last two hold exponents: 2^(byte − 127)."""
_SAMPLE_RUN = 128


@dataclass(frozen=True, slots=True)
class ScaledTensor(PackedTensor):
    """A tensor of eight-bit floats with its grid of scales.

    Attributes:
        weight, scale: as stored.
        block: elements that share a scale, along each dimension.
        dtype: the format that a decoded copy is stored in.
        powers: whether all scales are powers of two, whatever their format (``scale_fmt: ue8m0``).
    """

    weight: StoredTensor
    scale: StoredTensor
    block: tuple[int, ...]
    dtype: Dtype = DTYPES["BF16"]
    powers: bool = False

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.weight.name

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, rows first."""
        return self.weight.shape

    @property
    def where(self) -> str:
        """The weight's file."""
        return self.weight.where

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The weight and its scale."""
        return self.weight, self.scale

    @property
    def held(self) -> int:
        """All of them are its own."""
        return self.elements

    @property
    def precision(self) -> str:
        """Format, and what a scale is for."""
        whole = self.block == self.shape
        run = "tensor" if whole else " × ".join(str(size) for size in self.block)
        return f"fp8 {self.weight.dtype.name.removeprefix('F8_')}, a scale per {run}"

    def reader(self) -> ScaledReader:
        """Make a reader of the products."""
        return ScaledReader(self)

    def packing(self, name: str) -> ScaledPacking:
        """The same formats and grid."""
        names = (name + part.name.removeprefix(self.name) for part in self.parts)
        weight, scale = (
            Part(own, part.dtype, part.shape) for own, part in zip(names, self.parts, strict=True)
        )
        return ScaledPacking(weight, scale, self.block, self.powers)

    def rounded(self, values: Numbers) -> Numbers:
        """As fp8 holds them, with a scale for each run of 128."""
        runs = np.resize(values, (-(-len(values) // _SAMPLE_RUN), _SAMPLE_RUN))
        largest = _largest(self.weight.dtype)
        scale = np.maximum(np.abs(runs).max(1, keepdims=True), 1e-300) / largest
        codes = np.clip(runs / scale, -largest, largest).astype(CODES[self.weight.dtype.name])
        kept: Numbers = (codes.astype(np.float64) * scale).ravel()[: len(values)]
        return kept


def block_of(
    shape: Sequence[int], grid: Sequence[int], said: Sequence[int]
) -> tuple[int, ...] | None:
    """How many elements share a scale along each dimension; None where the grid does not fit.

    Args:
        shape: of the weight.
        grid: of its scale; a single number may have any shape, a vector stands for the rows.
        said: the block of the last dimensions that the configuration gives, empty where none.

    >>> block_of([256, 300], [2, 3], [128, 128]), block_of([256, 300], [256, 1], [])
    ((128, 128), (1, 300))
    """
    if not shape or any(size < 1 for size in (*shape, *grid)):
        return None
    if prod(grid) == 1:
        return tuple(shape)
    if len(grid) == 1 and len(shape) > 1 and grid[0] == shape[0]:
        grid = (shape[0], *(1 for _ in shape[1:]))
    if len(grid) != len(shape):
        return None
    sizes = [0] * (len(shape) - len(said)) + list(said)
    block = [_side(*sides) for sides in zip(shape, grid, sizes[-len(shape) :], strict=True)]
    if 0 in block:
        return None
    leading = [(size, side) for size, side in zip(shape[:-1], block[:-1], strict=True) if size > 1]
    cut = next((at for at, (_, side) in enumerate(leading) if side > 1), len(leading))
    if any(size != side for size, side in leading[cut + 1 :]):
        return None  # rows of one scale would not lie together
    return tuple(block)


def _side(size: int, count: int, said: int) -> int:
    """Elements per scale along one dimension, 0 where they do not fit."""
    if count == 1:
        return size
    if count == size:
        return 1
    if said and -(-size // said) == count:
        return said
    return size // count if size % count == 0 else 0


@dataclass(frozen=True, slots=True)
class _Grid:
    """The scales as a table: rows of them, each for a band of the weight's rows."""

    shape: tuple[int, ...]
    block: tuple[int, ...]

    @property
    def columns(self) -> int:
        """Length of the weight's rows."""
        return self.shape[-1]

    @property
    def rows(self) -> int:
        """How many rows the weight has, all leading dimensions together."""
        return prod(self.shape[:-1])

    @property
    def width(self) -> int:
        """Scales in a row of the table."""
        return -(-self.columns // self.block[-1])

    def scale_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row of scales that each of some rows of the weight has."""
        found = np.zeros(len(rows), np.int64)
        stride, rest = 1, rows
        for size, side in zip(self.shape[-2::-1], self.block[-2::-1], strict=True):
            rest, place = np.divmod(rest, size)
            found += place // side * stride
            stride *= -(-size // side)
        return found

    def bands(self, first: int, last: int) -> list[tuple[int, int]]:
        """Runs of rows that share a row of scales, in order, from one row to another; both must be
        borders of such runs.
        """
        found = self.scale_rows(np.arange(first, last))
        cuts = [first, *(np.flatnonzero(np.diff(found)) + 1 + first).tolist(), last]
        return list(pairwise(cuts))


class ScaledReader(PackedReader):
    """Reads eight-bit floats times their scales."""

    def __init__(self, tensor: ScaledTensor) -> None:
        super().__init__(tensor.parts)
        self._tensor = tensor
        self._grid = _Grid(tensor.shape, tensor.block)
        self._scales: NDArray[np.float64] | None = None

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``."""
        self._parts[0].prefetch(begin, end)

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``: one product, rounded once to ``out``'s type."""
        codes = _numbers_of(self._tensor.weight.dtype.name, out.dtype.str)
        for at in range(begin, end, BLOCK_ELEMENTS):
            stop = min(at + BLOCK_ELEMENTS, end)
            raw = buffer("eight bits", stop - at, np.uint8)
            self._parts[0].read_raw(at, stop, raw)
            np.take(codes, raw, out=out[at - begin : stop - begin], mode="wrap")
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found later
            self._multiply(begin, end, out)

    def _multiply(self, begin: int, end: int, out: Numbers) -> None:
        columns = self._grid.columns
        at = begin
        while at < end:
            row, offset = divmod(at, columns)
            if offset or end - at < columns:  # part of a row
                stop = min(end, at + columns - offset)
                factors = self._factors(np.array([row]), out.dtype)[0]
                place = slice(offset, offset + stop - at) if len(factors) > 1 else slice(None)
                out[at - begin : stop - begin] *= factors[place]
            else:
                rows = (end - at) // columns
                stop = at + rows * columns
                whole = out[at - begin : stop - begin].reshape(rows, columns)
                whole *= self._factors(np.arange(row, row + rows), out.dtype)
            at = stop

    def _factors(self, rows: NDArray[np.int64], kind: np.dtype[Any]) -> NDArray[Any]:
        """The scales of rows, one for all of a row or one for each of its elements."""
        if self._scales is None:
            stored = self._tensor.scale
            raw = np.empty(stored.nbytes, np.uint8)
            self._parts[1].read_raw(0, stored.elements, raw)
            self._scales = scale_numbers(raw, stored.dtype).reshape(-1, self._grid.width)
        found, inverse = np.unique(self._grid.scale_rows(rows), return_inverse=True)
        table = self._scales[found].astype(kind)
        if self._grid.width > 1:
            table = np.repeat(table, self._tensor.block[-1], axis=1)[:, : self._grid.columns]
        return table[inverse] if len(found) > 1 else table


def scale_numbers(raw: Bytes, dtype: Dtype) -> NDArray[np.float64]:
    """Stored scales as numbers. ``raw``: whole elements of one of `SCALES`."""
    if dtype.name in ("F8_E8M0", "U8"):
        powers = np.ldexp(1.0, raw.astype(np.int32) - 127)
        return np.where(raw == 255, np.nan, powers)
    assert dtype.numpy is not None
    return raw.view(dtype.numpy).astype(np.float64)


def _limits(kind: Any) -> Any:
    """What numpy's and ml_dtypes' types can hold."""
    return ml_dtypes.finfo(kind)  # type: ignore[no-untyped-call]


def _largest(dtype: Dtype) -> float:
    """The largest number of an eight-bit format."""
    return float(_limits(CODES[dtype.name]).max)


@cache
def _numbers_of(name: str, kind: str) -> NDArray[Any]:
    """All 256 numbers of a format."""
    found: NDArray[Any] = np.arange(256, dtype=np.uint8).view(CODES[name]).astype(kind)
    return found


@dataclass(frozen=True, slots=True)
class ScaledPacking:
    """Eight-bit floats again: each scale is the largest number of its block over the format's
    largest (448 for E4M3), rounded up to a power of two where scales are exponents.
    """

    weight: Part
    scale: Part
    block: tuple[int, ...]
    powers: bool = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """The weight and its scale."""
        return self.weight, self.scale

    @property
    def _grid(self) -> _Grid:
        return _Grid(self.weight.shape, self.block)

    def runs(self) -> list[tuple[int, int]]:
        """Whole bands of rows that share scales, about a chunk together."""
        columns = self._grid.columns
        found: list[tuple[int, int]] = []
        for first, last in self._grid.bands(0, self._grid.rows):
            begin, end = first * columns, last * columns
            if found and end - found[-1][0] <= CHUNK_ELEMENTS:
                found[-1] = found[-1][0], end
            else:
                found.append((begin, end))
        return found

    def spans(self, begin: int, end: int) -> list[Span]:
        """Where a run's weights and scales lie."""
        grid = self._grid
        ends = np.array([begin // grid.columns, end // grid.columns - 1])
        first, last = grid.scale_rows(ends).tolist()
        return [Span(0, begin, end), Span(1, first * grid.width, (last + 1) * grid.width)]

    def pack(self, numbers: Source, begin: int, end: int) -> Iterator[tuple[int, int, Bytes]]:
        """See ``Packing.pack``: per band its scales, then its weights."""
        grid = self._grid
        columns = grid.columns
        step = max(1, BLOCK_ELEMENTS // columns)
        for first, last in grid.bands(begin // columns, end // columns):
            largest = np.zeros(columns)
            for row in range(first, last, step):
                values = numbers(row * columns, min(row + step, last) * columns)
                np.maximum(largest, np.abs(values.reshape(-1, columns)).max(0), out=largest)
            edges = np.arange(0, columns, self.block[-1])
            raw, scales = self._scales(np.maximum.reduceat(largest, edges))
            place = int(grid.scale_rows(np.array([first]))[0]) * grid.width
            yield 1, place, raw
            factors = np.repeat(scales, self.block[-1])[:columns]
            for row in range(first, last, step):
                values = numbers(row * columns, min(row + step, last) * columns)
                yield 0, row * columns, self._codes(values.reshape(-1, columns), factors)

    def holds(self, tensor: Tensor) -> bool:
        """See ``Packing.holds``."""
        if not isinstance(tensor, ScaledTensor) or tensor.block != self.block:
            return False
        if self.powers and not tensor.powers:
            return False
        stored = [(part.dtype, part.shape) for part in tensor.parts]
        return stored == [(part.dtype, part.shape) for part in self.parts]

    def _scales(self, largest: NDArray[np.float64]) -> tuple[Bytes, NDArray[np.float64]]:
        """The scales of a band from the largest number of each block: as stored, and as read."""
        most = _largest(self.weight.dtype)
        wanted = np.where(largest > 0, largest / most, 1.0)
        name = self.scale.dtype.name
        if name in ("F8_E8M0", "U8"):
            raw = np.clip(np.ceil(np.log2(wanted)) + 127, 0, 254).astype(np.uint8)
        else:
            if self.powers:
                wanted = np.exp2(np.ceil(np.log2(wanted)))
            stored = wanted.astype(self.scale.dtype.numpy)
            tiny: Any = _limits(stored.dtype).smallest_normal
            raw = np.maximum(stored, tiny).view(np.uint8)
        return raw, scale_numbers(raw, self.scale.dtype)

    def _codes(self, values: Numbers, factors: NDArray[np.float64]) -> Bytes:
        kind = CODES[self.weight.dtype.name]
        most = _largest(self.weight.dtype)
        codes: Bytes = np.clip(values / factors, -most, most).astype(kind).view(np.uint8).ravel()
        return codes
