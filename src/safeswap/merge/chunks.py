"""The output bytes of a chunk: copied where one expert is taken, computed where it is blended."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.numerics import arithmetic_dtype, decode, encode, inner_product
from safeswap.checkpoint.reader import Tensor, TensorReader, announce, read_bytes
from safeswap.checkpoint.vocabularies.rows import MappedTensor
from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS, CHUNK_ELEMENTS
from safeswap.merge.pieces import meeting
from safeswap.merge.prepare import Chunk, MergeJob
from safeswap.merge.stream import merged_numbers

_LARGEST_F16 = 65504.0


class ChunkHash:
    """The digests of a run that begins at a chunk's start: one for each chunk of 4 Mi elements."""

    def __init__(self, size: int) -> None:
        """``size``: bytes of an element."""
        self._left = self._chunk = CHUNK_ELEMENTS * size
        self._hash, self._done = blake3(), b""

    def update(self, raw: NDArray[np.uint8]) -> None:
        """Hash some more bytes of the run."""
        while len(raw):
            if not self._left:
                self._done += self._hash.digest()
                self._hash, self._left = blake3(), self._chunk
            here, raw = raw[: self._left], raw[self._left :]
            self._hash.update(here.data)
            self._left -= len(here)

    def digest(self) -> bytes:
        """All digests, one after another."""
        return self._done + self._hash.digest()


def announce_chunks(jobs: Sequence[MergeJob]) -> Callable[[Chunk], None] | None:
    """What says that a chunk's inputs will be read soon; None where all of them lie here."""
    if not any(job.family.is_remote for job in jobs):
        return None

    def ahead(chunk: Chunk) -> None:
        job = jobs[chunk.job]
        tensors = (job.family.members[r].tensors[chunk.name] for r, _ in job.ops[chunk.name].terms)
        announce(tensors, chunk.begin, chunk.end)

    return ahead


def chunk_bytes(job: MergeJob, chunk: Chunk) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The output bytes of a chunk, block by block: (first element, uint8 view of a buffer).

    The arithmetic is float32 with one rounding to the output format; float64 when a stored or
    written format is F32 or F64.

    Raises:
        CheckpointError: an input cannot be read, or the numbers do not fit the output format.
    """
    if chunk.name in job.pieces:
        yield from _pieces_bytes(job, chunk)
        return
    op, target = job.ops[chunk.name], job.dtypes[chunk.name]
    if op.step is not None:
        yield from _merged_bytes(job, chunk)
        return
    tensors = [job.tensor(role, chunk.name) for role, _ in op.terms]
    coefficients = [coefficient for _, coefficient in op.terms]
    kind = arithmetic_dtype(target, *(tensor.dtype for tensor in tensors))
    copied = job.is_copy(chunk.name)
    with ExitStack() as stack:
        keep = _keeping_donor_rows(job, chunk.name, stack)
        readers = [stack.enter_context(tensor.reader()) for tensor in tensors]
        for reader in readers:
            reader.prefetch(chunk.begin, chunk.end)
        for at in range(chunk.begin, chunk.end, BLOCK_ELEMENTS):
            end = min(at + BLOCK_ELEMENTS, chunk.end)
            if copied:
                yield at, _copied(tensors[0], readers[0], at, end)
            else:
                total = combined(readers, coefficients, kind, at, end)
                keep(at, total)
                yield at, _encoded(tensors[0].name, total, target)


def _pieces_bytes(job: MergeJob, chunk: Chunk) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The same of a tensor in pieces, one piece after another."""
    for piece, begin, end in meeting(job.pieces[chunk.name], chunk.begin, chunk.end):
        for at, raw in chunk_bytes(job, Chunk(chunk.job, piece.name, begin, end)):
            yield piece.begin + at, raw


def _merged_bytes(job: MergeJob, chunk: Chunk) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    target = job.dtypes[chunk.name]
    with ExitStack() as stack:
        keep = _keeping_donor_rows(job, chunk.name, stack)
        for first, numbers in merged_numbers(job, chunk):
            keep(first, numbers)
            for at in range(0, len(numbers), BLOCK_ELEMENTS):
                values = numbers[at : at + BLOCK_ELEMENTS]
                yield first + at, _encoded(chunk.name, values, target)


def _keeping_donor_rows(job: MergeJob, name: str, stack: ExitStack) -> Callable[[int, Any], None]:
    """What puts the donor's own numbers into the rows of merged ones that not all members have:
    there is no task vector in them, but operators on weights (slerp) would still rescale them.

    Returns:
        A function of the first element and the numbers from there on, which it changes.
    """
    tables = (job.tensor(role, name) for role in job.family.members)
    mapped = next((table for table in tables if isinstance(table, MappedTensor)), None)
    if mapped is None:
        return lambda at, values: None
    table, reader = mapped, stack.enter_context(mapped.other.reader())

    def keep(at: int, values: Any) -> None:
        for run in table.runs(at, at + len(values)):
            if not run.own:
                part = values[run.begin - at : run.end - at]
                reader.read_numbers(run.start, run.start + len(part), part)

    return keep


def _copied(tensor: Tensor, reader: TensorReader, begin: int, end: int) -> NDArray[np.uint8]:
    raw = buffer("output", (end - begin) * tensor.dtype.size, np.uint8)
    values = buffer("total", end - begin, arithmetic_dtype(tensor.dtype))
    read_bytes(tensor, reader, begin, end, raw, values)
    return raw


def combined(
    readers: Sequence[TensorReader],
    coefficients: Sequence[float],
    kind: np.dtype[Any],
    begin: int,
    end: int,
) -> NDArray[Any]:
    """Σ coefficient · numbers of a range, in a buffer of this thread (float32 or float64)."""
    total, term = (buffer(slot, end - begin, kind) for slot in ("total", "term"))
    for index, reader in enumerate(readers):
        values = term if index else total
        reader.read_numbers(begin, end, values)
        if coefficients[index] != 1.0:
            np.multiply(values, kind.type(coefficients[index]), out=values)
        if index:
            np.add(total, term, out=total)
    return total


def _encoded(name: str, values: NDArray[Any], target: Dtype) -> NDArray[np.uint8]:
    _check_range(name, values, target)
    raw = buffer("output", len(values) * target.size, np.uint8)
    encode(values, target, raw)
    return raw


def _check_range(name: str, values: NDArray[Any], target: Dtype) -> None:
    finite = _is_finite(values)
    if target.name == "F16" and finite and len(values):
        finite = float(np.abs(values).max()) <= _LARGEST_F16
    if not finite:
        raise CheckpointError(
            f"tensor {name!r}: the merged values do not fit {target}. Use --save-dtype bfloat16 or "
            "float32, or smaller weights in the plan."
        )


def refuse_unfit(name: str, values: NDArray[Any]) -> None:
    """Refuse merged numbers that no scale brings into a narrow format.

    Raises:
        CheckpointError: one of them is infinite, or no number.
    """
    if not _is_finite(values):
        raise CheckpointError(
            f"tensor {name!r}: the merged values are not finite, so they cannot be quantized. Use "
            "smaller weights in the plan, or --save-dtype float32."
        )


def _is_finite(values: NDArray[Any]) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(inner_product(values, values)) or bool(np.isfinite(values).all())


def all_finite(raw: NDArray[np.uint8], dtype: Dtype) -> bool:
    """Whether stored bytes hold no NaN and no infinity; True for formats that are no weights."""
    if not dtype.mergeable:
        return True
    values = buffer("total", len(raw) // dtype.size, np.float64)
    decode(raw, dtype, values)
    # not by a dot product: BLAS would start threads of its own, which then fight with ours
    return bool(np.isfinite(values).all())
