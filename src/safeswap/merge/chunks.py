"""The output bytes of one piece: copied where one expert is taken, computed where it is blended."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import Dtype, arithmetic_dtype, decode, encode, inner_product
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import StoredTensor
from safeswap.errors import CheckpointError
from safeswap.io.files import opened, prefetch, read_into
from safeswap.io.workers import BLOCK_ELEMENTS, CHUNK_ELEMENTS
from safeswap.merge.prepare import MergeJob
from safeswap.merge.stream import joined_chunks

_LARGEST_F16 = 65504.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of elements of one output tensor: a piece of its grid, or all of it."""

    job: int
    name: str
    begin: int
    end: int

    @property
    def key(self) -> str:
        """Its name in the journal."""
        return f"{self.job}:{self.name}:{self.begin}"


class RunHash:
    """The digests of a run that begins at a piece's start: one for each piece of 4 Mi elements.

    What is added may not reach across the pieces' borders.
    """

    def __init__(self, size: int) -> None:
        """``size``: bytes of an element."""
        self._left = self._piece = CHUNK_ELEMENTS * size
        self._hash, self._done = blake3(), b""

    def update(self, raw: NDArray[np.uint8]) -> None:
        """Add bytes."""
        if not self._left:
            self._done += self._hash.digest()
            self._hash, self._left = blake3(), self._piece
        self._hash.update(raw.data)
        self._left -= len(raw)

    def digest(self) -> bytes:
        """All digests, one after another."""
        return self._done + self._hash.digest()


def make_scratch() -> Scratch:
    """One worker's buffers."""
    return Scratch()


class Scratch:
    """Buffers of one worker: stored bytes in and out, and two of numbers per arithmetic."""

    def __init__(self) -> None:
        self.raw = np.empty(BLOCK_ELEMENTS * 8, np.uint8)
        self.out = np.empty(BLOCK_ELEMENTS * 8, np.uint8)
        self.other = np.empty(BLOCK_ELEMENTS * 8, np.uint8)
        self._wide: dict[np.dtype[Any], tuple[NDArray[Any], NDArray[Any]]] = {}

    def wide(self, kind: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """An accumulator and a term, BLOCK_ELEMENTS numbers each."""
        if kind not in self._wide:
            self._wide[kind] = np.empty(BLOCK_ELEMENTS, kind), np.empty(BLOCK_ELEMENTS, kind)
        return self._wide[kind]


def chunk_bytes(
    family: Family, job: MergeJob, piece: Chunk, scratch: Scratch
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The output bytes of a piece, chunk by chunk: (first element, uint8 view of a buffer).

    The arithmetic is float32 with one rounding to the output format; float64 when a stored or
    written format is F32 or F64.
    """
    if job.recipes[piece.name].join is not None:
        yield from _joined_bytes(family, job, piece, scratch)
        return
    terms = job.recipes[piece.name].terms
    stored = [family.members[role].tensors[piece.name] for role, _ in terms]
    target = job.dtypes[piece.name]
    copied = job.is_copy(family, piece.name)
    managers = [opened(tensor.file) for tensor in stored]
    descriptors = [manager.__enter__() for manager in managers]
    try:
        for descriptor, tensor in zip(descriptors, stored, strict=True):
            size = tensor.dtype.size
            start = tensor.start + piece.begin * size
            prefetch(descriptor, start, (piece.end - piece.begin) * size)
        for at in range(piece.begin, piece.end, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, piece.end - at)
            if copied:
                raw = scratch.raw[: count * target.size]
                read_into(descriptors[0], stored[0].start + at * target.size, raw, stored[0].file)
                yield at, raw
            else:
                coefficients = [coefficient for _, coefficient in terms]
                yield (
                    at,
                    _combine(stored, descriptors, coefficients, target, at, count, scratch),
                )
    finally:
        for manager in managers:
            manager.__exit__(None, None, None)


def _joined_bytes(
    family: Family, job: MergeJob, piece: Chunk, scratch: Scratch
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    target = job.dtypes[piece.name]
    found = joined_chunks(family, job, piece.name, piece.begin, piece.end, scratch.raw)
    for first, numbers in found:
        for at in range(0, len(numbers), BLOCK_ELEMENTS):
            values = numbers[at : at + BLOCK_ELEMENTS]
            _check_range(piece.name, values, target)
            out = scratch.out[: len(values) * target.size]
            encode(values, target, out)
            yield first + at, out


def _combine(
    stored: Sequence[StoredTensor],
    descriptors: Sequence[int],
    coefficients: Sequence[float],
    target: Dtype,
    at: int,
    count: int,
    scratch: Scratch,
) -> NDArray[np.uint8]:
    kind = arithmetic_dtype(target, *(tensor.dtype for tensor in stored))
    total, term = (buffer[:count] for buffer in scratch.wide(kind))
    for index, (tensor, descriptor) in enumerate(zip(stored, descriptors, strict=True)):
        raw = scratch.raw[: count * tensor.dtype.size]
        read_into(descriptor, tensor.start + at * tensor.dtype.size, raw, tensor.file)
        values = term if index else total
        decode(raw, tensor.dtype, values)
        if coefficients[index] != 1.0:
            np.multiply(values, kind.type(coefficients[index]), out=values)
        if index:
            np.add(total, term, out=total)
    _check_range(stored[0].name, total, target)
    out = scratch.out[: count * target.size]
    encode(total, target, out)
    return out


def _check_range(name: str, values: NDArray[Any], target: Dtype) -> None:
    with np.errstate(over="ignore"):
        finite = math.isfinite(inner_product(values, values)) or bool(np.isfinite(values).all())
    if target.name == "F16" and finite and len(values):
        finite = float(np.abs(values).max()) <= _LARGEST_F16
    if not finite:
        raise CheckpointError(
            f"tensor {name!r}: the merged values do not fit {target}. Use --dtype bfloat16 or "
            "float32, or smaller weights in the plan."
        )
