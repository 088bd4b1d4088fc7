"""Operators at work on files: the passes that they need first, then the tensors in blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safeswap.checkpoint.numerics import arithmetic_dtype
from safeswap.checkpoint.reader import Tensor
from safeswap.io.buffers import buffer
from safeswap.io.workers import (
    BLOCK_ELEMENTS,
    chunks_of,
    default_workers,
    run_chunks,
)
from safeswap.merge.prepare import Chunk, MergeJob
from safeswap.operators import Numbers, OperatorStep, blocks
from safeswap.roles import BASE


def passes_bytes(jobs: Sequence[MergeJob]) -> int:
    """How many bytes :func:`run_passes` reads, for a progress display."""
    return sum(
        step.operator.n_passes(step.context) * sum(t.nbytes for t in _tensors(job, name))
        for job in jobs
        for name, step in _steps(job)
    )


def run_passes(
    jobs: Sequence[MergeJob],
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Make the passes that the operators need before they can merge, and keep what they found in
    the jobs' ``states``; jobs that need none cost nothing.

    Args:
        workers: threads; the result does not depend on it.
        advance: told how many bytes were read.

    Raises:
        CheckpointError: weights that are no numbers, a read that fails.
    """
    number = 0
    while tallies := _tallies(jobs, number):
        _pass(jobs, tallies, workers or default_workers(), advance)
        number += 1


def _tallies(jobs: Sequence[MergeJob], number: int) -> dict[tuple[int, str], _Tally]:
    """An empty tally for every tensor that needs a pass of this number."""
    return {
        (index, name): _Tally(job, name, step)
        for index, job in enumerate(jobs)
        for name, step in _steps(job)
        if step.operator.n_passes(step.context) > number
    }


def _pass(
    jobs: Sequence[MergeJob],
    tallies: Mapping[tuple[int, str], _Tally],
    workers: int,
    advance: Callable[[int], None],
) -> None:
    chunks = [
        Chunk(index, name, begin, end)
        for index, name in tallies
        for begin, end in chunks_of(jobs[index].elements(name))
    ]

    def act(chunk: Chunk) -> None:
        tallies[chunk.job, chunk.name].add(chunk, _observed(jobs[chunk.job], chunk))

    run_chunks(
        chunks,
        act,
        workers=workers,
        advance=advance,
        size=lambda chunk: _width(jobs[chunk.job], chunk.name) * (chunk.end - chunk.begin),
    )


def _steps(job: MergeJob) -> Iterator[tuple[str, OperatorStep]]:
    for name, op in job.ops.items():
        if op.step is not None:
            yield name, op.step


def _tensors(job: MergeJob, name: str) -> list[Tensor]:
    return [job.tensor(role, name) for role, _ in job.ops[name].terms]


def _width(job: MergeJob, name: str) -> int:
    return sum(tensor.dtype.size for tensor in _tensors(job, name))


@dataclass(slots=True)
class _Tally:
    """The total of one tensor in one pass, from its chunks in their order: sums of floats must not
    depend on who was first. The last one makes the tensor's state.

    Attributes:
        done: elements up to which chunks are in the total.
        waiting: first element of a chunk that came too early → its end and its part.
    """

    job: MergeJob
    name: str
    step: OperatorStep
    total: Numbers | None = None
    done: int = 0
    waiting: dict[int, tuple[int, Numbers]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, chunk: Chunk, part: Numbers) -> None:
        with self.lock:
            self.waiting[chunk.begin] = chunk.end, part
            while self.done in self.waiting:
                self.done, found = self.waiting.pop(self.done)
                self.total = found if self.total is None else np.add(self.total, found)
            if self.done < self.step.context.elements:
                return
        state = self.job.states.get(self.name)
        assert self.total is not None
        self.job.states[self.name] = self.step.operator.finish_pass(
            self.step.context, state, self.total
        )


def _observed(job: MergeJob, chunk: Chunk) -> Numbers:
    step = job.ops[chunk.name].step
    assert step is not None
    state = job.states.get(chunk.name)
    total = step.operator.init_state(step.context, state)
    with ExitStack() as stack:
        inputs = _Inputs(job, chunk, stack)
        for at, stop in blocks(chunk.begin, chunk.end, BLOCK_ELEMENTS):
            base, experts = inputs.read(at, min(stop, chunk.end))
            with np.errstate(over="ignore", invalid="ignore"):  # found in the counts
                step.operator.update(step.context, state, base, experts, total)
    return total


class _Inputs:
    """The base and the experts of one tensor, as numbers."""

    def __init__(self, job: MergeJob, chunk: Chunk, stack: ExitStack) -> None:
        tensors = _tensors(job, chunk.name)
        self._readers = [stack.enter_context(tensor.reader()) for tensor in tensors]
        self._kind = arithmetic_dtype(job.dtypes[chunk.name], *(t.dtype for t in tensors))
        self._with_base = job.ops[chunk.name].terms[0][0] == BASE
        for reader in self._readers:
            reader.prefetch(chunk.begin, chunk.end)

    def read(self, begin: int, end: int) -> tuple[Numbers, list[Numbers]]:
        """The base (empty where it is not read) and the experts, for this thread until it reads
        on.
        """
        found: list[Numbers] = []
        for reader in self._readers:
            values = buffer(f"input {len(found)}", end - begin, self._kind)
            reader.read_numbers(begin, end, values)
            found.append(values)
        return (found[0], found[1:]) if self._with_base else (np.empty(0, self._kind), found)


def merged_numbers(job: MergeJob, chunk: Chunk) -> Iterator[tuple[int, Numbers]]:
    """The merged numbers of a chunk that an operator joins: (first element, numbers)."""
    step = job.ops[chunk.name].step
    assert step is not None
    operator, context, state = step.operator, step.context, job.states.get(chunk.name)
    size = max(1, context.elements) if operator.whole(context) else BLOCK_ELEMENTS // 4
    with ExitStack() as stack:
        inputs = _Inputs(job, chunk, stack)
        for at, stop in blocks(chunk.begin, chunk.end, size, operator.grain(context)):
            base, experts = inputs.read(at, stop)
            merged: Any = operator.merge(context, state, base, experts, at)
            first, last = max(at, chunk.begin), min(stop, chunk.end)
            yield first, merged[first - at : last - at]
