"""The reading seam: one way to a tensor's numbers, wherever they come from.

Profile, merge, operators, verification, candidates in memory and Gram matrices know a ``Tensor``
and ask it for a ``TensorReader``; only ``stored`` knows files and offsets. What is stored in
another way (an adapter, scaled fp8, rows in another order, ranges of a remote file) comes in as
another class with the same six methods:

>>> class Zeros:                                  # a tensor of zeros, with no file behind it
...     def __enter__(self): return self
...     def __exit__(self, *error): pass
...     def prefetch(self, begin, end): pass
...     def read_raw(self, begin, end, out): return False         # no stored bytes to copy
...     def copy_raw(self, begin, end, target, start, into): return False
...     def read_numbers(self, begin, end, out): out[:] = 0

A reader is made for one chunk of work by one thread and is a context manager: it holds its file
open between enter and exit.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.numerics import arithmetic_dtype, decode, encode
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS

Numbers = NDArray[Any]
"""float32 or float64, flat."""
Bytes = NDArray[np.uint8]


class TensorReader(Protocol):
    """Reads one tensor. Ranges are of elements, row-major, ``0 <= begin <= end <= elements``."""

    def __enter__(self) -> Self:
        """Open what it reads from."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, whatever happened."""
        ...

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """Fill ``out`` (float32 or float64, ``end - begin`` elements) with the tensor's numbers.

        Raises:
            CheckpointError: the source ends early, changed, or fails.
        """
        ...

    def read_raw(self, begin: int, end: int, out: Bytes) -> bool:
        """Fill ``out`` (uint8) with the stored bytes of a range, in the tensor's dtype.

        Returns:
            False where there are no such bytes (the numbers are computed); ``out`` is then as it
            was.

        Raises:
            CheckpointError: as ``read_numbers``.
        """
        ...

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        """Copy the stored bytes of a range into an open file, from its byte ``start`` on.

        Args:
            target: a descriptor; ``into`` names it in messages.

        Returns:
            False where there are no such bytes; nothing is written then.

        Raises:
            CheckpointError: as ``read_numbers``.
            OutputError: the target cannot take them.
        """
        ...

    def prefetch(self, begin: int, end: int) -> None:
        """Say which range comes next, so that a cold disk or a network reads ahead."""
        ...


class Tensor(Protocol):
    """What a tensor is, and who reads it.

    Attributes:
        name: in the checkpoint.
        shape: rows first.
        dtype: the format that a copy of it is stored in.
        where: the file (or whatever it comes from), for messages.
    """

    @property
    def name(self) -> str:
        """Name in the checkpoint."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes, rows first; empty for a scalar."""

    @property
    def dtype(self) -> Dtype:
        """The format that a copy of it is stored in."""

    @property
    def where(self) -> str:
        """The file, or whatever it comes from, for messages."""

    @property
    def elements(self) -> int:
        """Number of elements (1 for a scalar)."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of a copy in its dtype."""
        ...

    def reader(self) -> TensorReader:
        """Make a reader, for one thread and one chunk of work."""
        ...


class _Formatted(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Dtype: ...


class Sized:
    """What a shape and a format say of a tensor's size."""

    __slots__ = ()

    @property
    def elements(self: _Formatted) -> int:
        """Number of elements (1 for a scalar)."""
        return prod(self.shape)

    @property
    def nbytes(self: _Formatted) -> int:
        """Bytes of a copy in its dtype."""
        return prod(self.shape) * self.dtype.bits // 8


class WithoutBytes:
    """What readers of computed numbers have in common: there are no stored bytes to give."""

    __slots__ = ()

    def read_raw(self, begin: int, end: int, out: Bytes) -> bool:
        """See ``TensorReader.read_raw``; always False."""
        return False

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        """See ``TensorReader.copy_raw``; always False."""
        return False


def read_bytes(
    tensor: Tensor, reader: TensorReader, begin: int, end: int, raw: Bytes, values: Numbers
) -> bool:
    """Fill ``raw`` with the bytes that a copy of the range has: the stored ones, or else the
    numbers rounded to the tensor's dtype.

    Args:
        raw: uint8, ``end - begin`` elements of the dtype.
        values: float32 or float64, ``end - begin`` elements; filled only where nothing is stored.

    Returns:
        Whether the bytes are stored ones, so that ``values`` still has to be decoded from them.
    """
    if reader.read_raw(begin, end, raw):
        return True
    reader.read_numbers(begin, end, values)
    own = arithmetic_dtype(tensor.dtype)
    rounded = values
    if values.dtype != own:  # a copy's bytes do not depend on what else takes part in a run
        rounded = buffer("computed", end - begin, own)
        reader.read_numbers(begin, end, rounded)
    encode(rounded, tensor.dtype, raw)
    return False


def read_copied(tensor: Tensor, reader: TensorReader, begin: int, end: int, out: Numbers) -> None:
    """Fill ``out`` with the numbers that a copy of the range would hold: rounded to its dtype.

    Raises:
        CheckpointError: as ``TensorReader.read_numbers``.
    """
    raw = buffer("copied", (end - begin) * tensor.dtype.size, np.uint8)
    read_bytes(tensor, reader, begin, end, raw, out)
    decode(raw, tensor.dtype, out)


def announce(tensors: Iterable[Tensor], begin: int, end: int) -> None:
    """Say that a range of tensors will be read soon, so that what lies elsewhere is on its way."""
    for tensor in tensors:
        with tensor.reader() as reader:
            reader.prefetch(begin, end)


def same_bytes(one: Tensor, two: Tensor) -> bool:
    """Whether copies of two tensors are of one shape and format and have the same bytes.

    Raises:
        CheckpointError: a file ends early or the disk fails.
    """
    if (one.shape, one.dtype) != (two.shape, two.dtype):
        return False
    if one == two:
        return True
    size = one.dtype.size
    left, right = (np.empty(BLOCK_ELEMENTS * size, np.uint8) for _ in range(2))
    values = np.empty(BLOCK_ELEMENTS, np.float64)
    with one.reader() as first, two.reader() as second:
        for at in range(0, one.elements, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, one.elements - at)
            read_bytes(one, first, at, at + count, left[: count * size], values[:count])
            read_bytes(two, second, at, at + count, right[: count * size], values[:count])
            if not np.array_equal(left[: count * size], right[: count * size]):
                return False
    return True
