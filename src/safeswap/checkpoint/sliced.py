"""A run of a tensor's elements as a tensor: an expert's matrix in one that holds all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.reader import Bytes, Numbers, Sized, Tensor


@dataclass(frozen=True, slots=True)
class SlicedTensor(Sized):
    """So many elements of another tensor, from ``begin`` on."""

    name: str
    under: Tensor
    begin: int
    shape: tuple[int, ...]

    @property
    def dtype(self) -> Dtype:
        """The other tensor's."""
        return self.under.dtype

    @property
    def where(self) -> str:
        """Where the other tensor comes from."""
        return self.under.where

    def reader(self) -> SlicedReader:
        """Make a reader of the run."""
        return SlicedReader(self)


class SlicedReader:
    """Reads a run of another tensor: by its reader, some elements farther on."""

    __slots__ = ("_begin", "_under")

    def __init__(self, tensor: SlicedTensor) -> None:
        self._begin, self._under = tensor.begin, tensor.under.reader()

    def __enter__(self) -> Self:
        """Open what lies below."""
        self._under.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close what lies below."""
        self._under.__exit__(kind, error, trace)

    def read_numbers(self, begin: int, end: int, out: Numbers) -> None:
        """See ``TensorReader.read_numbers``."""
        self._under.read_numbers(self._begin + begin, self._begin + end, out)

    def read_raw(self, begin: int, end: int, out: Bytes) -> bool:
        """See ``TensorReader.read_raw``."""
        return self._under.read_raw(self._begin + begin, self._begin + end, out)

    def copy_raw(self, begin: int, end: int, target: int, start: int, into: Path) -> bool:
        """See ``TensorReader.copy_raw``."""
        return self._under.copy_raw(self._begin + begin, self._begin + end, target, start, into)

    def prefetch(self, begin: int, end: int) -> None:
        """See ``TensorReader.prefetch``."""
        self._under.prefetch(self._begin + begin, self._begin + end)
