"""Operators at work on files: the passes that they need first, then the tensors in chunks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import arithmetic_dtype, decode
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import StoredTensor
from safeswap.io.files import opened, prefetch, read_into
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of, default_workers, run_chunks
from safeswap.merge.prepare import MergeJob
from safeswap.operators import Numbers, OperatorStep, chunks, one_blas_thread
from safeswap.operators.kernels.buffers import spare
from safeswap.roles import BASE

Chunk = tuple[int, str, int, int, int]
"""Job, tensor, number of the chunk in it, first element, end."""


def single_threaded(jobs: Sequence[MergeJob]) -> AbstractContextManager[None]:
    """Around work that may factorize matrices: BLAS keeps to one thread (see `one_blas_thread`)."""
    whole = any(recipe.whole for job in jobs for recipe in job.recipes.values())
    return one_blas_thread() if whole else nullcontext()


def passes_bytes(family: Family, jobs: Sequence[MergeJob]) -> int:
    """How many bytes :func:`measure_joins` reads, for a progress display."""
    return sum(
        join.operator.n_passes(join.task) * sum(t.nbytes for t in _stored(family, job, name))
        for job in jobs
        for name, join in _joins(job)
    )


def measure_joins(
    family: Family,
    jobs: Sequence[MergeJob],
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Make the passes that the operators need before they can join, and keep what they found in
    the jobs' ``states``; jobs that need none cost nothing.

    Args:
        workers: threads; the result does not depend on it.
        advance: told how many bytes were read.

    Raises:
        CheckpointError: weights that are no numbers, a read that fails.
    """
    number = 0
    while tallies := _tallies(jobs, number):
        _pass(family, jobs, tallies, workers or default_workers(), advance)
        number += 1


def _tallies(jobs: Sequence[MergeJob], number: int) -> dict[tuple[int, str], _Tally]:
    """An empty tally for every tensor that needs a pass of this number."""
    return {
        (index, name): _Tally(job, name, join)
        for index, job in enumerate(jobs)
        for name, join in _joins(job)
        if join.operator.n_passes(join.task) > number
    }


def _pass(
    family: Family,
    jobs: Sequence[MergeJob],
    tallies: Mapping[tuple[int, str], _Tally],
    workers: int,
    advance: Callable[[int], None],
) -> None:
    pieces = [
        (index, name, place, begin, end)
        for index, name in tallies
        for place, (begin, end) in enumerate(chunks_of(family.base.tensors[name].elements))
    ]

    def act(piece: Chunk, raw: NDArray[np.uint8]) -> None:
        index, name, place, *_ = piece
        tallies[index, name].add(place, _observed(family, jobs[index], piece, raw))

    run_chunks(
        pieces,
        act,
        lambda: np.empty(BLOCK_ELEMENTS * 8, np.uint8),
        workers=workers,
        advance=advance,
        size=lambda piece: _width(family, jobs[piece[0]], piece[1]) * (piece[4] - piece[3]),
    )


def _joins(job: MergeJob) -> Iterator[tuple[str, OperatorStep]]:
    for name, recipe in job.recipes.items():
        if recipe.join is not None:
            yield name, recipe.join


def _stored(family: Family, job: MergeJob, name: str) -> list[StoredTensor]:
    return [family.members[role].tensors[name] for role, _ in job.recipes[name].terms]


def _width(family: Family, job: MergeJob, name: str) -> int:
    return sum(tensor.dtype.size for tensor in _stored(family, job, name))


@dataclass(slots=True)
class _Tally:
    """The total of one tensor in one pass, from its pieces in their order: sums of floats must not
    depend on who was first. The last one advances the tensor's state."""

    job: MergeJob
    name: str
    join: OperatorStep
    total: Numbers | None = None
    done: int = 0
    waiting: dict[int, Numbers] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, place: int, part: Numbers) -> None:
        with self.lock:
            self.waiting[place] = part
            while self.done in self.waiting:
                found = self.waiting.pop(self.done)
                self.total = found if self.total is None else np.add(self.total, found)
                self.done += 1
            if self.done < len(list(chunks_of(self.join.task.elements))):
                return
        state = self.job.states.get(self.name)
        assert self.total is not None
        self.job.states[self.name] = self.join.operator.finish_pass(
            self.join.task, state, self.total
        )


def _observed(family: Family, job: MergeJob, piece: Chunk, raw: NDArray[np.uint8]) -> Numbers:
    _, name, _, begin, end = piece
    join = job.recipes[name].join
    assert join is not None
    state = job.states.get(name)
    total = join.operator.init_state(join.task, state)
    with ExitStack() as stack:
        reader = _Reader(family, job, name, stack, raw)
        reader.prefetch(begin, end)
        for at, stop in chunks(begin, end, BLOCK_ELEMENTS):
            base, experts = reader.read(at, min(stop, end))
            with np.errstate(over="ignore", invalid="ignore"):  # found in the counts
                join.operator.update(join.task, state, base, experts, total)
    return total


class _Reader:
    """The base and the experts of one tensor, as numbers."""

    def __init__(
        self, family: Family, job: MergeJob, name: str, stack: ExitStack, raw: NDArray[np.uint8]
    ) -> None:
        self._raw = raw
        self._stored = _stored(family, job, name)
        self._files = [stack.enter_context(opened(tensor.file)) for tensor in self._stored]
        self._kind = arithmetic_dtype(job.dtypes[name], *(t.dtype for t in self._stored))
        self._with_base = job.recipes[name].terms[0][0] == BASE

    def prefetch(self, begin: int, end: int) -> None:
        """Tell the system what will be read."""
        for tensor, file in zip(self._stored, self._files, strict=True):
            size = tensor.dtype.size
            prefetch(file, tensor.start + begin * size, (end - begin) * size)

    def read(self, begin: int, end: int) -> tuple[Numbers, list[Numbers]]:
        """The base (empty where it is not read) and the experts, for this thread until it reads
        on."""
        found: list[Numbers] = []
        for tensor, file in zip(self._stored, self._files, strict=True):
            values = spare(f"read {len(found)}", end - begin, self._kind)
            for at in range(begin, end, BLOCK_ELEMENTS):
                count = min(BLOCK_ELEMENTS, end - at)
                raw = self._raw[: count * tensor.dtype.size]
                read_into(file, tensor.start + at * tensor.dtype.size, raw, tensor.file)
                decode(raw, tensor.dtype, values[at - begin : at - begin + count])
            found.append(values)
        return (found[0], found[1:]) if self._with_base else (np.empty(0, self._kind), found)


def joined_chunks(
    family: Family, job: MergeJob, name: str, begin: int, end: int, raw: NDArray[np.uint8]
) -> Iterator[tuple[int, Numbers]]:
    """The merged numbers of a run of elements: (first element, numbers).

    Args:
        raw: a buffer of BLOCK_ELEMENTS × 8 bytes.
    """
    join = job.recipes[name].join
    assert join is not None
    operator, task, state = join.operator, join.task, job.states.get(name)
    size = max(1, task.elements) if operator.whole(task) else BLOCK_ELEMENTS // 4
    with ExitStack() as stack:
        reader = _Reader(family, job, name, stack, raw)
        reader.prefetch(begin, end)
        for at, stop in chunks(begin, end, size, operator.grain(task)):
            base, experts = reader.read(at, stop)
            merged: Any = operator.merge(task, state, base, experts, at)
            first, last = max(at, begin), min(stop, end)
            yield first, merged[first - at : last - at]
