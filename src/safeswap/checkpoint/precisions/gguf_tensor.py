"""Tensors of GGUF files as the model has them: blocks made numbers, rows in their own order again.

The blocks of Q4_0 to Q6_K are made numbers by the ``gguf`` package (the extra of that name). What
llama.cpp's converter did to a tensor is undone while it is read: rows of q and k that lie in
another order (Llama), norms that are stored with 1 added (Gemma), experts that lie in one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.precisions.gguf_header import BlockType
from safeswap.checkpoint.precisions.packed import PackedReader, PackedTensor, Packing
from safeswap.checkpoint.reader import Bytes, Numbers
from safeswap.checkpoint.stored import StoredTensor
from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS

_PLAIN: dict[str, Any] = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
_LEVELS = {
    "Q4_0": (4, 32, True),
    "Q4_1": (4, 32, False),
    "Q5_0": (5, 32, True),
    "Q5_1": (5, 32, False),
    "Q8_0": (8, 32, True),
    "Q2_K": (2, 16, False),
    "Q3_K": (3, 16, True),
    "Q4_K": (4, 32, False),
    "Q5_K": (5, 32, False),
    "Q6_K": (6, 16, True),
}
"""Type → bits of a number, numbers that share a scale, and whether zero is the middle."""


@dataclass(frozen=True, slots=True)
class GgufTensor(PackedTensor):
    """A tensor, or an expert's part of one.

    Attributes:
        name: the parameter's in transformers.
        stored: its bytes in the file, under its name there.
        kind: how its numbers lie.
        shape: rows first.
        begin: the first element, where several tensors lie in one.
        heads: of how many heads rows lie in another order; 0 where they lie in their own.
        added: what is to be taken off every number again.
    """

    name: str
    stored: StoredTensor
    kind: BlockType
    shape: tuple[int, ...]
    begin: int = 0
    heads: int = 0
    added: float = 0.0

    @property
    def dtype(self) -> Dtype:
        """Its own format where it has one, else BF16."""
        return DTYPES[self.kind.name if self.kind.name in _PLAIN else "BF16"]

    @property
    def where(self) -> str:
        """The file."""
        return self.stored.where

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The bytes in the file."""
        return (self.stored,)

    @property
    def held(self) -> int:
        """Elements of the stored tensor, of all experts in it."""
        return self.stored.nbytes // self.kind.nbytes * self.kind.elements

    @property
    def precision(self) -> str:
        """The type's name in GGUF."""
        return f"GGUF's {self.kind.name}"

    @property
    def narrow(self) -> bool:
        """Not for F32, F16 and BF16."""
        return self.kind.name not in _PLAIN

    def reader(self) -> GgufReader:
        """Make a reader of the numbers.

        Raises:
            CheckpointError: the package ``gguf`` is not installed.
        """
        return GgufReader(self)

    def packing(self, name: str) -> Packing | None:
        """None: GGUF is not written."""
        return None

    def rounded(self, values: Numbers) -> Numbers:
        """As the type's bits allow, with the best plain scale for each run: llama.cpp searches
        better ones for its K types, and stores their scales in six bits.
        """
        if not self.narrow:
            return values.astype(_PLAIN[self.kind.name]).astype(np.float64)
        bits, length, middle = _LEVELS[self.kind.name]
        runs = np.resize(values, (-(-len(values) // length), length))
        if middle:
            at = np.abs(runs).argmax(1)
            scale = np.take_along_axis(runs, at[:, None], 1) / -(1 << bits - 1)
            least = np.zeros_like(scale)
            low, high = -(1 << bits - 1), (1 << bits - 1) - 1
        else:
            least = runs.min(1, keepdims=True)
            scale = (runs.max(1, keepdims=True) - least) / ((1 << bits) - 1)
            low, high = 0, (1 << bits) - 1
        steps = np.where(scale == 0, 1.0, scale)
        kept: Numbers = np.clip(np.rint((runs - least) / steps), low, high) * scale + least
        return kept.ravel()[: len(values)]


class GgufReader(PackedReader):
    """Reads numbers out of blocks."""

    def __init__(self, tensor: GgufTensor) -> None:
        super().__init__(tensor.parts)
        self._tensor = tensor

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``."""
        tensor, size = self._tensor, self._tensor.kind
        first, last = (
            (tensor.begin + begin) // size.elements,
            -(-(tensor.begin + end) // size.elements),
        )
        self._parts[0].prefetch(first * size.nbytes, last * size.nbytes)

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``: as the ``gguf`` package makes them, in float32."""
        at = begin
        while at < end:
            stop = min(at + BLOCK_ELEMENTS, end)
            values = self._in_order(at, stop) if self._tensor.heads else self._stored(at, stop)
            part = out[at - begin : stop - begin]
            part[:] = values
            if self._tensor.added:
                part -= self._tensor.added
            at = stop

    def _stored(self, begin: int, end: int) -> NDArray[Any]:
        """Elements in the order of the file."""
        kind, offset = self._tensor.kind, self._tensor.begin
        first, last = (offset + begin) // kind.elements, -(-(offset + end) // kind.elements)
        raw = buffer("blocks", (last - first) * kind.nbytes, np.uint8)
        self._parts[0].read_raw(first * kind.nbytes, last * kind.nbytes, raw)
        skipped = offset + begin - first * kind.elements
        return _numbers(raw, kind)[skipped : skipped + end - begin]

    def _in_order(self, begin: int, end: int) -> NDArray[Any]:
        """Elements in the model's order: the file has the two halves of a head's rows in turns."""
        shape = self._tensor.shape
        columns = self._tensor.elements // shape[0]
        size = shape[0] // self._tensor.heads
        first, last = begin // columns, -(-end // columns)
        head, inside = np.divmod(np.arange(first, last), size)
        half, place = np.divmod(inside, size // 2)
        rows = head * size + 2 * place + half
        low, high = int(rows.min()), int(rows.max()) + 1
        values = self._stored(low * columns, high * columns).reshape(-1, columns)[rows - low]
        found: NDArray[Any] = values.ravel()[begin - first * columns : end - first * columns]
        return found


def require_gguf(path: object, kinds: set[str]) -> None:
    """Refuse files whose blocks only the ``gguf`` package reads, where it is not installed.

    Raises:
        CheckpointError: says what to install.
    """
    if kinds <= set(_PLAIN):
        return
    try:
        import gguf.quants  # noqa: F401
    except ImportError:
        raise CheckpointError(
            f"{path}: reading {', '.join(sorted(kinds - set(_PLAIN)))} needs the package gguf. "
            "Install safeswap[gguf], or use the transformers checkpoint that it was made from."
        ) from None


def _numbers(raw: Bytes, kind: BlockType) -> NDArray[Any]:
    """Whole blocks as float32 (or their own plain type), flat."""
    if kind.name in _PLAIN:
        plain: NDArray[Any] = raw.view(_PLAIN[kind.name])
        return plain
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):  # what is no number is refused by name, by who asks for it
        found: NDArray[Any] = dequantize(raw, GGMLQuantizationType(kind.id))
    return found.ravel()
