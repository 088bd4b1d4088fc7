"""MXFP4, as gpt-oss stores its experts: four-bit floats with an exponent for every 32 of them.

``*_blocks`` (uint8 ``[experts, rows, groups, 16]``) hold two numbers a byte, the low half first;
``*_scales`` (uint8 ``[experts, rows, groups]``) hold 2^(byte − 127). The model's parameter is the
transpose, ``[experts, groups · 32, rows]``, as transformers' ``convert_moe_packed_tensors`` gives
it. The format: OCP Microscaling Formats (MX) 1.0, E2M1 elements and E8M0 scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.precisions.packed import PackedReader, PackedTensor, Part, Source, Span
from safeswap.checkpoint.reader import Bytes, Numbers, Tensor
from safeswap.checkpoint.stored import StoredTensor
from safeswap.io.workers import BLOCK_ELEMENTS

GROUP = 32
"""Numbers that share an exponent."""
_LARGEST = 6.0
_BIAS = 127


@dataclass(frozen=True, slots=True)
class Mxfp4Tensor(PackedTensor):
    """The matrices of all experts of a layer.

    Attributes:
        name: the parameter's, which no file holds: that of the blocks without ``_blocks``.
        blocks, scales: as stored.
        dtype: the format that a decoded copy is stored in.
    """

    name: str
    blocks: StoredTensor
    scales: StoredTensor
    dtype: Dtype = DTYPES["BF16"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Experts, inputs, outputs."""
        experts, rows, groups, _ = self.blocks.shape
        return experts, groups * GROUP, rows

    @property
    def where(self) -> str:
        """The blocks' file."""
        return self.blocks.where

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """Blocks and scales."""
        return self.blocks, self.scales

    @property
    def held(self) -> int:
        """All of them are its own."""
        return self.elements

    @property
    def precision(self) -> str:
        """The format."""
        return f"MXFP4, a scale per {GROUP}"

    def reader(self) -> Mxfp4Reader:
        """Make a reader of the numbers."""
        return Mxfp4Reader(self)

    def packing(self, name: str) -> Mxfp4Packing:
        """The same layout."""
        names = (name + part.name.removeprefix(self.name) for part in self.parts)
        blocks, scales = (
            Part(own, part.dtype, part.shape) for own, part in zip(names, self.parts, strict=True)
        )
        return Mxfp4Packing(blocks, scales)

    def rounded(self, values: Numbers) -> Numbers:
        """As MXFP4 holds them, in groups of neighbours."""
        groups = np.resize(values, (-(-len(values) // GROUP), GROUP))
        codes, exponents = quantize(groups)
        numbers = _fours()[codes] * np.ldexp(1.0, exponents.astype(np.int32) - _BIAS)[:, None]
        kept: Numbers = numbers.ravel()[: len(values)]
        return kept


@cache
def _fours() -> NDArray[np.float64]:
    """The sixteen numbers."""
    fours: NDArray[Any] = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn)
    return fours.astype(np.float64)


@cache
def _pairs(kind: str) -> NDArray[Any]:
    """The two numbers of each byte, low half first."""
    byte = np.arange(256)
    return np.stack([_fours()[byte & 15], _fours()[byte >> 4]], axis=1).astype(np.dtype(kind))


def quantize(groups: Numbers) -> tuple[Bytes, Bytes]:
    """Codes (uint8, one number each) and exponents of groups of numbers ``[n, 32]``.

    The exponent is the smallest with which the largest number does not overflow. Numbers that came
    from MXFP4 are met exactly.
    """
    largest = np.abs(groups).max(axis=1).astype(np.float64)
    mantissa, exponent = np.frexp(largest / _LARGEST)
    power = np.where(mantissa == 0.5, exponent - 1, exponent)  # ceil(log2), without its rounding
    stored = np.where(largest > 0, np.clip(power + _BIAS, 0, 254), _BIAS).astype(np.uint8)
    scaled = groups / np.ldexp(1.0, stored.astype(np.int32) - _BIAS)[:, None]
    fours = np.clip(scaled, -_LARGEST, _LARGEST).astype(ml_dtypes.float4_e2m1fn)
    return fours.view(np.uint8) & np.uint8(15), stored


class Mxfp4Reader(PackedReader):
    """Reads the matrices, transposed; holds the stored bytes of one expert."""

    def __init__(self, tensor: Mxfp4Tensor) -> None:
        super().__init__(tensor.parts)
        self._tensor = tensor
        self._expert = -1
        self._blocks: NDArray[Any] = np.empty(0, np.uint8)
        self._scales: NDArray[Any] = np.empty(0)

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``; exact wherever ``out`` can hold a number."""
        _, inputs, rows = self._tensor.shape
        at = begin
        while at < end:
            expert, inside = divmod(at, inputs * rows)
            # bounded, so that what is unpacked stays small
            stop = min(end, at + inputs * rows - inside, at + max(BLOCK_ELEMENTS, rows))
            self._load(expert)
            first, last = inside // rows, -(-(inside + stop - at) // rows)
            values = self._unpacked(first, last, out.dtype).ravel()
            skipped = inside - first * rows
            out[at - begin : stop - begin] = values[skipped : skipped + stop - at]
            at = stop

    def _load(self, expert: int) -> None:
        if expert == self._expert:
            return
        _, rows, groups, width = self._tensor.blocks.shape
        size = rows * groups
        blocks, scales = np.empty(size * width, np.uint8), np.empty(size, np.uint8)
        self._parts[0].read_raw(expert * size * width, (expert + 1) * size * width, blocks)
        self._parts[1].read_raw(expert * size, (expert + 1) * size, scales)
        self._expert, self._blocks = expert, blocks.reshape(rows, groups, width)
        powers = np.ldexp(1.0, scales.astype(np.int32) - _BIAS)
        self._scales = np.where(scales == 255, np.nan, powers).reshape(rows, groups)

    def _unpacked(self, first: int, last: int, kind: np.dtype[Any]) -> NDArray[Any]:
        """Inputs ``first`` to ``last`` of all rows, inputs first."""
        begin, end = first // GROUP, -(-last // GROUP)
        rows = len(self._blocks)
        with np.errstate(over="ignore", invalid="ignore"):  # found where finite ones are asked for
            values = _pairs(kind.str)[self._blocks[:, begin:end]].reshape(rows, -1, GROUP)
            values *= self._scales[:, begin:end, None].astype(kind)
        flat = values.reshape(rows, -1)[:, first - begin * GROUP : last - begin * GROUP]
        return np.ascontiguousarray(flat.T)


@dataclass(frozen=True, slots=True)
class Mxfp4Packing:
    """MXFP4 again, an expert at a time (its numbers are held: 66 MB for gpt-oss)."""

    blocks: Part
    scales: Part

    @property
    def parts(self) -> tuple[Part, ...]:
        """Blocks and scales."""
        return self.blocks, self.scales

    @property
    def _size(self) -> int:
        """Numbers of an expert."""
        _, rows, groups, _ = self.blocks.shape
        return rows * groups * GROUP

    def runs(self) -> list[tuple[int, int]]:
        """One for each expert."""
        return [(n * self._size, (n + 1) * self._size) for n in range(self.blocks.shape[0])]

    def spans(self, begin: int, end: int) -> list[Span]:
        """Where an expert's blocks and scales lie."""
        return [Span(0, begin // 2, end // 2), Span(1, begin // GROUP, end // GROUP)]

    def pack(self, numbers: Source, begin: int, end: int) -> Iterator[tuple[int, int, Bytes]]:
        """See ``Packing.pack``."""
        _, rows, groups, _ = self.blocks.shape
        inputs = groups * GROUP
        held = np.empty((inputs, rows), numbers(begin, begin + 1).dtype)
        flat = held.reshape(-1)
        for at in range(0, end - begin, BLOCK_ELEMENTS):
            stop = min(at + BLOCK_ELEMENTS, end - begin)
            flat[at:stop] = numbers(begin + at, begin + stop)
        step = max(1, BLOCK_ELEMENTS // inputs)
        for row in range(0, rows, step):
            last = min(row + step, rows)
            turned = np.ascontiguousarray(held[:, row:last].T)
            codes, exponents = quantize(turned.reshape(-1, GROUP))
            halves = np.bitwise_or(codes[:, 0::2], np.left_shift(codes[:, 1::2], np.uint8(4)))
            yield 0, begin // 2 + row * inputs // 2, halves.ravel()
            yield 1, begin // GROUP + row * groups, exponents

    def holds(self, tensor: Tensor) -> bool:
        """See ``Packing.holds``."""
        return isinstance(tensor, Mxfp4Tensor) and tensor.blocks.shape == self.blocks.shape
