"""Weights that are quantized again: the merged numbers of a run, and its bytes in each part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint import digests
from safeswap.checkpoint.numerics import arithmetic_dtype
from safeswap.checkpoint.precisions import parts_of
from safeswap.checkpoint.precisions.packed import Source
from safeswap.checkpoint.reader import Numbers, Tensor, same_bytes
from safeswap.checkpoint.shard_writer import ShardWriter
from safeswap.checkpoint.stored import StoredTensor
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS, run_chunks
from safeswap.merge.chunks import combined, refuse_unfit
from safeswap.merge.pieces import meeting
from safeswap.merge.prepare import Chunk, MergeJob
from safeswap.merge.stream import merged_numbers

_HELD = 1 << 25
"""Numbers of a run that are held where an operator makes them (128 MB); of longer runs they are
made twice."""


def write_packed(job: MergeJob, chunk: Chunk, writer: ShardWriter) -> str:
    """Write all parts of a run; ``copy`` where they are an input's bytes, else their digest."""
    packing = job.packings[chunk.name]
    role = _copied_from(job, chunk)
    if role is not None:
        parts = parts_of(job.tensor(role, chunk.name))
        for span in packing.spans(chunk.begin, chunk.end):
            with parts[span.part].reader() as reader:
                writer.copy(packing.parts[span.part].name, span.begin, span.end, reader)
        return "copy"
    hashing = [blake3() for _ in packing.parts]
    for part, at, raw in packed_bytes(job, chunk):
        writer.write(packing.parts[part].name, at, raw)
        hashing[part].update(raw.data)
    return _joined(hashing)


def packed_bytes(job: MergeJob, chunk: Chunk) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
    """The bytes of a run: (part, its first element, bytes), in order within each part.

    Raises:
        CheckpointError: an input cannot be read, or the numbers are none.
    """
    packing = job.packings[chunk.name]
    role = _copied_from(job, chunk)
    if role is not None:
        parts = parts_of(job.tensor(role, chunk.name))
        for span in packing.spans(chunk.begin, chunk.end):
            with parts[span.part].reader() as reader:
                for at in range(span.begin, span.end, BLOCK_ELEMENTS):
                    stop = min(at + BLOCK_ELEMENTS, span.end)
                    raw = np.empty((stop - at) * parts[span.part].dtype.size, np.uint8)
                    reader.read_raw(at, stop, raw)
                    yield span.part, at, raw
        return
    with ExitStack() as stack:
        numbers = _numbers_of(job, chunk, stack)
        yield from packing.pack(numbers, chunk.begin, chunk.end)


def _copied_from(job: MergeJob, chunk: Chunk) -> str | None:
    """The role whose parts are a run's bytes; None where they are made."""
    name = chunk.name
    if name not in job.pieces:
        return job.ops[name].copied if job.is_copy(name) else None
    roles = {piece.op.copied for piece, _, _ in meeting(job.pieces[name], chunk.begin, chunk.end)}
    role = roles.pop() if len(roles) == 1 else None
    if role is None or not job.packings[name].holds(job.tensor(role, name)):
        return None
    return role


def _numbers_of(job: MergeJob, chunk: Chunk, stack: ExitStack) -> Source:
    """The merged numbers of a run, any range of it."""
    if chunk.name not in job.pieces:
        return _Merged(job, chunk, stack)
    made = [
        (piece, _Merged(job, Chunk(chunk.job, piece.name, begin, end), stack))
        for piece, begin, end in meeting(job.pieces[chunk.name], chunk.begin, chunk.end)
    ]

    def numbers(begin: int, end: int) -> Numbers:
        found = [
            own(max(begin, p.begin) - p.begin, min(end, p.end) - p.begin).copy()
            for p, own in made
            if p.begin < end and begin < p.end
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)

    return numbers


class _Merged:
    """The merged numbers of a run, any range of it; the inputs stay open meanwhile."""

    def __init__(self, job: MergeJob, chunk: Chunk, stack: ExitStack) -> None:
        self._job, self._chunk = job, chunk
        op = job.ops[chunk.name]
        tensors = [job.tensor(role, chunk.name) for role, _ in op.terms]
        self._kind = arithmetic_dtype(*(tensor.dtype for tensor in tensors))
        self._coefficients = [coefficient for _, coefficient in op.terms]
        self._made: Numbers | None = None
        self._readers = []
        if op.step is None:
            self._readers = [stack.enter_context(tensor.reader()) for tensor in tensors]
        elif op.whole or chunk.end - chunk.begin <= _HELD:
            self._made = self._joined(chunk.begin, chunk.end)

    def __call__(self, begin: int, end: int) -> Numbers:
        """The numbers from ``begin`` to ``end``, good until the next call."""
        first = self._chunk.begin
        if self._made is not None:
            values = self._made[begin - first : end - first]
        elif self._readers:
            values = combined(self._readers, self._coefficients, self._kind, begin, end)
        else:
            values = self._joined(begin, end)
        refuse_unfit(self._chunk.name, values)
        return values

    def _joined(self, begin: int, end: int) -> Numbers:
        """What the operator makes of a range."""
        whole = self._job.ops[self._chunk.name].whole
        elements = self._job.elements(self._chunk.name)
        asked = Chunk(0, self._chunk.name, *((0, elements) if whole else (begin, end)))
        found: NDArray[Any] = np.empty(asked.end - asked.begin, self._kind)
        for at, values in merged_numbers(self._job, asked):
            found[at - asked.begin : at - asked.begin + len(values)] = values
        return found[begin - asked.begin : end - asked.begin]


def still_packed(job: MergeJob, chunk: Chunk, writer: ShardWriter, earlier: str) -> bool:
    """Whether a run that the journal claims really lies in its files."""
    packing = job.packings[chunk.name]

    def written(part: int, at: int, end: int) -> NDArray[np.uint8]:
        raw = buffer("written", (end - at) * packing.parts[part].dtype.size, np.uint8)
        writer.read_back(packing.parts[part].name, at, raw)
        return raw

    if earlier == "copy":
        return all(
            np.array_equal(raw, written(part, at, at + len(raw) // packing.parts[part].dtype.size))
            for part, at, raw in packed_bytes(job, chunk)
        )
    hashing = [blake3() for _ in packing.parts]
    for span in packing.spans(chunk.begin, chunk.end):
        for at in range(span.begin, span.end, BLOCK_ELEMENTS):
            raw = written(span.part, at, min(at + BLOCK_ELEMENTS, span.end))
            hashing[span.part].update(raw.data)
    return _joined(hashing) == earlier


def write_extra(job: MergeJob, writer: ShardWriter) -> None:
    """Copy the scales of activations, a number each."""
    for name in job.packings:
        for output, tensor in job.extra(name).items():
            with tensor.reader() as reader:
                writer.copy(output, 0, tensor.elements, reader)


def part_digests(job: MergeJob, folder: Path, workers: int) -> dict[str, str]:
    """Output name → digest of what is written in parts, read again: runs are no chunks of it."""
    written = []
    for name in job.packings:
        for output in job.outputs(name):
            shard, start = job.layout.place[output.name]
            file = folder / shard.name
            written.append(StoredTensor(output.name, file, output.dtype, output.shape, start))
    found = run_chunks(
        written,
        digests.of_tensor,
        workers=workers,
        advance=lambda count: None,
        size=lambda tensor: 0,
    )
    return {tensor.name: digest for tensor, digest in zip(written, found, strict=True)}


def differing_parts(job: MergeJob, written: Mapping[str, Tensor], workers: int) -> list[str]:
    """The parts and scales whose written bytes are not those that plan and inputs give.

    Args:
        written: output name → what was written.
    """
    runs = [run for name in job.packings for run in job.chunks(name, job.elements(name))]

    def differing(run: Chunk) -> str | None:
        parts = [written[part.name] for part in job.packings[run.name].parts]
        for part, at, wanted in packed_bytes(job, run):
            found = buffer("written", len(wanted), np.uint8)
            with parts[part].reader() as reader:
                reader.read_raw(at, at + len(wanted) // parts[part].dtype.size, found)
            if not np.array_equal(found, wanted):
                return parts[part].name
        return None

    wrong = run_chunks(
        runs, differing, workers=workers, advance=lambda count: None, size=lambda run: 0
    )
    extra = ((n, t) for name in job.packings for n, t in job.extra(name).items())
    wrong += [name for name, tensor in extra if not same_bytes(written[name], tensor)]
    return [name for name in wrong if name]


def _joined(hashing: list[Any]) -> str:
    return blake3(b"".join(one.digest() for one in hashing)).hexdigest()
