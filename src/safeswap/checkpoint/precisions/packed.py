"""Tensors that are stored in parts: what all of them have, and how their parts are written anew.

A packed tensor is a ``Tensor`` of the reading seam whose numbers are computed: from narrow numbers
and their scales, or from blocks of a GGUF file. It has no bytes of its own to copy. Its `Packing`
(where there is one) turns merged numbers into such parts again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.reader import Bytes, Numbers, Sized, Tensor, WithoutBytes
from safeswap.checkpoint.stored import StoredReader, StoredTensor

Source = Callable[[int, int], Numbers]
"""The merged numbers of a range of elements, float32 or float64; good until it is called again."""


@dataclass(frozen=True, slots=True)
class Part(Sized):
    """One stored tensor of several: its name, format and shape."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A run of elements of one part (its number among the parts): first, and one past the last."""

    part: int
    begin: int
    end: int


class Packing(Protocol):
    """How one tensor is written in parts.

    Attributes:
        parts: what is written, the weights first.
    """

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is written, the weights first."""
        ...

    def runs(self) -> list[tuple[int, int]]:
        """The ranges of elements that are packed each on its own, in order; together all."""
        ...

    def spans(self, begin: int, end: int) -> list[Span]:
        """Where the parts of a run lie, one span for each part."""
        ...

    def pack(self, numbers: Source, begin: int, end: int) -> Iterator[tuple[int, int, Bytes]]:
        """The bytes of a run: (part, its first element, bytes), good until the next is asked for.

        The order does not depend on anything but the run.
        """
        ...

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is stored in just these formats and shapes, so that its parts' bytes are
        what would be written.
        """
        ...


class PackedTensor(Sized, ABC):
    """What a tensor in parts has besides what every ``Tensor`` has.

    Attributes:
        parts: the stored tensors that its numbers come from, the weights first.
        precision: what it is stored in, in words.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def parts(self) -> tuple[StoredTensor, ...]:
        """The stored tensors that its numbers come from, the weights first."""
        ...

    @property
    @abstractmethod
    def precision(self) -> str:
        """What it is stored in, in words."""
        ...

    @property
    def narrow(self) -> bool:
        """Whether numbers were rounded to fewer digits than 16-bit formats have."""
        return True

    @property
    @abstractmethod
    def held(self) -> int:
        """Elements that its parts hold, its own among them."""
        ...

    @abstractmethod
    def packing(self, name: str) -> Packing | None:
        """How it would be written again under a name; None where safeswap does not write its
        precision.
        """
        ...

    @abstractmethod
    def rounded(self, values: Numbers) -> Numbers:
        """Numbers (float64) as this precision would hold them, at the least: with scales for runs
        of them as long as the precision has, and no better.
        """
        ...


def parts_of(tensor: Tensor) -> tuple[StoredTensor, ...]:
    """The stored tensors behind a tensor; none where it is neither stored nor packed."""
    if isinstance(tensor, StoredTensor):
        return (tensor,)
    return tensor.parts if isinstance(tensor, PackedTensor) else ()


def stored_bytes(tensor: Tensor) -> int:
    """Bytes that a tensor takes where it is stored; several that lie in one share them."""
    parts = parts_of(tensor)
    whole = sum(part.nbytes for part in parts) if parts else tensor.nbytes
    if not isinstance(tensor, PackedTensor):
        return whole
    return min(whole, -(-whole * tensor.elements // max(1, tensor.held)))


class PackedReader(WithoutBytes):
    """What readers of packed tensors share: open parts."""

    def __init__(self, parts: tuple[StoredTensor, ...]) -> None:
        """``parts``: of the tensor, as many as are read."""
        self._parts: tuple[StoredReader, ...] = tuple(part.reader() for part in parts)

    def __enter__(self) -> Self:
        """Open the files.

        Raises:
            CheckpointError: one is gone or may not be read.
        """
        opened: list[StoredReader] = []
        try:
            for part in self._parts:
                opened.append(part.__enter__())
        except BaseException:
            for part in opened:
                part.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        for part in self._parts:
            part.__exit__(kind, error, trace)

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``; nothing is known of which bytes an element needs."""
