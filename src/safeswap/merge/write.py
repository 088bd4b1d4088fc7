"""Writing: all pieces of all jobs into the staging folder, or what an earlier run left of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint import digests
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.staging import Staging
from safeswap.io.files import (
    copy_range,
    crowds_memory,
    fsync,
    opened,
    read_into,
    write_at,
)
from safeswap.io.workers import BLOCK_ELEMENTS, default_workers, run_chunks
from safeswap.merge.chunks import Chunk, RunHash, Scratch, chunk_bytes, make_scratch
from safeswap.merge.prepare import MergeJob
from safeswap.merge.stream import single_threaded
from safeswap.profile import Profile, TensorProfile

_SETTLED_AT_ONCE = 1 << 28


@dataclass(frozen=True, slots=True)
class Written:
    """What a run wrote: per job, tensor → digest (hex); and how much of it was already there."""

    digests: tuple[Mapping[str, str], ...]
    resumed_bytes: int


def write_weights(
    family: Family,
    profile: Profile,
    jobs: Sequence[MergeJob],
    staging: Staging,
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Written:
    """Write all shards of all jobs into the staging folder, or what is missing of them.

    Shards grow side by side, and what was written of them is forced to the disk meanwhile.

    Args:
        workers: threads; the bytes do not depend on it.
        advance: told how many output bytes are done.

    Raises:
        CheckpointError, OutputError: an input or the output cannot be read or written.
    """
    targets = _create_shards(jobs, staging)
    pieces = _in_turns(family, jobs)
    inputs = sum(member.nbytes for member in family.members.values())
    forget = crowds_memory(inputs + sum(job.layout.nbytes for job in jobs))
    resumed = [0]
    pool = ThreadPoolExecutor(max_workers=1)
    settling: list[Future[None]] = []

    def force(target: _Target) -> None:
        settling.append(pool.submit(fsync, target.descriptor, target.path, forget=forget))

    def act(piece: Chunk, scratch: Scratch) -> str:
        job = jobs[piece.job]
        shard, start = job.layout.place[piece.name]
        target = targets[piece.job, shard.name]
        start += piece.begin * job.dtypes[piece.name].size
        earlier = staging.finished.get(piece.key)
        if earlier and _still_there(family, job, piece, scratch, target, start, earlier):
            resumed[0] += _size(jobs, piece)
            return earlier
        digest = _write_piece(family, job, piece, scratch, target, start)
        staging.note(piece.key, digest)
        with target.lock:
            target.unsettled += _size(jobs, piece)
            if target.unsettled >= _SETTLED_AT_ONCE:
                target.unsettled = 0
                force(target)
        return digest

    try:
        with single_threaded(jobs):
            results = run_chunks(
                pieces,
                act,
                make_scratch,
                workers=workers or default_workers(),
                advance=advance,
                size=lambda piece: _size(jobs, piece),
            )
        for target in targets.values():
            force(target)
        for settled in settling:
            settled.result()
    finally:
        pool.shutdown(cancel_futures=True)
        for target in targets.values():
            os.close(target.descriptor)
    return Written(_tensor_digests(family, profile, jobs, pieces, results), resumed[0])


def _size(jobs: Sequence[MergeJob], piece: Chunk) -> int:
    return (piece.end - piece.begin) * jobs[piece.job].dtypes[piece.name].size


def _in_turns(family: Family, jobs: Sequence[MergeJob]) -> list[Chunk]:
    """All pieces, one shard after the other in turns: two threads in one file wait for each other
    (the kernel lets in one writer at a time). The outputs of a piece of the inputs stay together.
    """
    rows: dict[str, list[list[Chunk]]] = {}
    for name in family.names:
        row = rows.setdefault(jobs[0].layout.place[name][0].name, [])
        elements = family.base.tensors[name].elements
        runs = [(b, e, n) for n, job in enumerate(jobs) for b, e in job.runs(name, elements)]
        for _, group in groupby(sorted(runs), key=lambda run: run[0]):
            row.append([Chunk(number, name, begin, end) for begin, end, number in group])
    turns = zip_longest(*rows.values(), fillvalue=())
    return [piece for turn in turns for together in turn for piece in together]


@dataclass(slots=True)
class _Target:
    """A shard that is being written.

    Attributes:
        unsettled: bytes written since the shard was last forced to the disk.
        lock: held by who writes: a thread that waits for it sleeps, one that waits in the kernel
            burns its core (copies took twice the CPU time).
    """

    descriptor: int
    path: Path
    unsettled: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _create_shards(jobs: Sequence[MergeJob], staging: Staging) -> dict[tuple[int, str], _Target]:
    targets = {}
    for number, job in enumerate(jobs):
        folder = staging.folder / job.folder
        folder.mkdir(parents=True, exist_ok=True)
        for shard in job.layout.shards:
            path = folder / shard.name
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(descriptor, shard.size)
            write_at(descriptor, 0, shard.header, path)
            targets[number, shard.name] = _Target(descriptor, path)
    return targets


def _write_piece(
    family: Family,
    job: MergeJob,
    piece: Chunk,
    scratch: Scratch,
    target: _Target,
    start: int,
) -> str:
    size = job.dtypes[piece.name].size
    if job.is_copy(family, piece.name):
        role = job.recipes[piece.name].terms[0][0]
        tensor = family.members[role].tensors[piece.name]
        nbytes = (piece.end - piece.begin) * size
        begin = tensor.start + piece.begin * size
        with opened(tensor.file) as source, target.lock:
            copy_range(source, begin, target.descriptor, start, nbytes, tensor.file, target.path)
        return "copy"
    hashing = RunHash(size)
    for at, raw in chunk_bytes(family, job, piece, scratch):
        with target.lock:
            write_at(target.descriptor, start + (at - piece.begin) * size, raw.data, target.path)
        hashing.update(raw)
    return hashing.digest().hex()


def _still_there(
    family: Family,
    job: MergeJob,
    piece: Chunk,
    scratch: Scratch,
    target: _Target,
    start: int,
    earlier: str,
) -> bool:
    """Whether a piece that the journal claims really lies in the file: copies are compared with
    their source, computed ones with their digest."""
    size = job.dtypes[piece.name].size
    if earlier == "copy":
        return all(
            np.array_equal(
                raw, _read_back(target, start + (at - piece.begin) * size, len(raw), scratch)
            )
            for at, raw in chunk_bytes(family, job, piece, scratch)
        )
    hashing = RunHash(size)
    for at in range(piece.begin, piece.end, BLOCK_ELEMENTS):
        count = min(BLOCK_ELEMENTS, piece.end - at)
        begin = start + (at - piece.begin) * size
        hashing.update(_read_back(target, begin, count * size, scratch))
    return hashing.digest().hex() == earlier


def _read_back(target: _Target, start: int, nbytes: int, scratch: Scratch) -> NDArray[np.uint8]:
    buffer = scratch.other[:nbytes]
    read_into(target.descriptor, start, buffer, target.path)
    return buffer


def _tensor_digests(
    family: Family,
    profile: Profile,
    jobs: Sequence[MergeJob],
    pieces: Sequence[Chunk],
    results: Sequence[str],
) -> tuple[Mapping[str, str], ...]:
    measured: dict[str, TensorProfile] = {tensor.name: tensor for tensor in profile.tensors}
    parts: list[dict[str, list[bytes]]] = [{} for _ in jobs]
    for piece, result in zip(pieces, results, strict=True):
        if result != "copy":
            parts[piece.job].setdefault(piece.name, []).append(bytes.fromhex(result))
    found = []
    for job, computed in zip(jobs, parts, strict=True):
        copied = {
            name: measured[name].digests[job.recipes[name].terms[0][0]]
            for name in family.names
            if name not in computed
        }
        computed_digests = {name: digests.of_chunks(values) for name, values in computed.items()}
        found.append({name: (copied | computed_digests)[name] for name in family.names})
    return tuple(found)
