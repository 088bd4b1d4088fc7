"""Writing: all chunks of all jobs into the staging folder, or what an earlier run left of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, zip_longest

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint import digests
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.shard_writer import ShardWriter
from safeswap.checkpoint.staging import Staging
from safeswap.io.buffers import buffer
from safeswap.io.descriptors import Descriptors
from safeswap.io.files import crowds_memory
from safeswap.io.workers import BLOCK_ELEMENTS, default_workers, run_chunks
from safeswap.merge.chunks import ChunkHash, announce_chunks, chunk_bytes
from safeswap.merge.packed import part_digests, still_packed, write_extra, write_packed
from safeswap.merge.prepare import Chunk, MergeJob
from safeswap.merge.shipping import Shipping, WholeShards
from safeswap.profile import Profile, TensorProfile


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
    shipping: Shipping | None = None,
) -> Written:
    """Write all shards of all jobs into the staging folder, or what is missing of them.

    Shards grow side by side, and what was written of them is forced to the disk meanwhile. Those
    that leave this machine grow one after the other, and are sent as soon as they are whole.

    Args:
        workers: threads; the bytes do not depend on it.
        advance: told how many output bytes are done.
        shipping: takes whole shards away.

    Raises:
        CheckpointError, OutputError: an input or the output cannot be read or written.
    """
    chunks = _in_turns(jobs, one_by_one=shipping is not None)
    # parts are read again at the end, so such shards stay here until then
    leaving = shipping and not any(job.packings for job in jobs)
    shards = WholeShards(jobs, chunks, staging, shipping) if shipping and leaving else None
    inputs = sum(member.nbytes for member in family.members.values())
    forget = crowds_memory(inputs + sum(job.layout.nbytes for job in jobs))
    resumed = [0]
    with ExitStack() as stack:
        files = Descriptors()
        stack.callback(files.close)
        writers = [
            stack.enter_context(
                ShardWriter(
                    staging.folder / job.folder, job.layout, job.dtypes, files, forget=forget
                )
            )
            for job in jobs
        ]

        def act(chunk: Chunk) -> str:
            job, writer = jobs[chunk.job], writers[chunk.job]
            packed = job.packings.get(chunk.name)
            there, write = (still_packed, write_packed) if packed else (_still_there, _write_chunk)
            earlier = staging.finished.get(chunk.key)
            if earlier and (shards and shards.is_sent(chunk)):
                resumed[0] += _size(jobs, chunk)
                return earlier
            if shards:
                shards.begin(chunk)
            if earlier and there(job, chunk, writer, earlier):
                resumed[0] += _size(jobs, chunk)
                digest = earlier
            else:
                digest = write(job, chunk, writer)
                staging.note(chunk.key, digest)
                if not shards:
                    writer.done(packed.parts[0].name if packed else chunk.name, _size(jobs, chunk))
            if shards:
                shards.done(chunk)
            return digest

        results = run_chunks(
            chunks,
            act,
            workers=workers or default_workers(),
            advance=advance,
            size=lambda chunk: _size(jobs, chunk),
            stopped=shards.stop if shards else lambda: None,
            ahead=announce_chunks(jobs),
        )
        for job, writer in zip(jobs, writers, strict=True):
            write_extra(job, writer)
            if not shards:
                writer.finish()
        if shards:
            shards.finish()
    made = _tensor_digests(profile, jobs, chunks, results)
    parts = [
        part_digests(job, staging.folder / job.folder, workers or default_workers()) for job in jobs
    ]
    return Written(tuple({**m, **p} for m, p in zip(made, parts, strict=True)), resumed[0])


def _size(jobs: Sequence[MergeJob], chunk: Chunk) -> int:
    return (chunk.end - chunk.begin) * jobs[chunk.job].dtypes[chunk.name].size


def _in_turns(jobs: Sequence[MergeJob], *, one_by_one: bool = False) -> list[Chunk]:
    """All chunks, one shard after the other in turns: two threads in one file wait for each other
    (the kernel lets in one writer at a time). The outputs of a chunk of the inputs stay together.

    Args:
        one_by_one: all of a shard before the next, so that it is whole early.
    """
    rows: dict[str, list[list[Chunk]]] = {}
    for name in dict.fromkeys(name for job in jobs for name in job.family.names):
        having = [(n, job) for n, job in enumerate(jobs) if name in job.ops or name in job.pieces]
        first = having[0][1]
        row = rows.setdefault(first.layout.place[first.outputs(name)[0].name][0].name, [])
        runs = [c for n, job in having for c in job.chunks(name, job.elements(name), n)]
        runs.sort(key=lambda chunk: (chunk.begin, chunk.end, chunk.job))
        for _, group in groupby(runs, key=lambda chunk: chunk.begin):
            row.append(list(group))
    turns: Iterable[Sequence[Sequence[Chunk]]] = zip_longest(*rows.values(), fillvalue=())
    if one_by_one:
        turns = rows.values()
    return [chunk for turn in turns for together in turn for chunk in together]


def _write_chunk(job: MergeJob, chunk: Chunk, writer: ShardWriter) -> str:
    """Write a chunk; its digests (hex), or ``copy`` for bytes that are an input's."""
    if job.is_copy(chunk.name):
        role = job.ops[chunk.name].terms[0][0]
        with job.family.members[role].tensors[chunk.name].reader() as reader:
            if writer.copy(chunk.name, chunk.begin, chunk.end, reader):
                return "copy"
    hashing = ChunkHash(job.dtypes[chunk.name].size)
    for at, raw in chunk_bytes(job, chunk):
        writer.write(chunk.name, at, raw)
        hashing.update(raw)
    return hashing.digest().hex()


def _still_there(job: MergeJob, chunk: Chunk, writer: ShardWriter, earlier: str) -> bool:
    """Whether a chunk that the journal claims really lies in the file: copies are compared with
    their source, computed ones with their digest.
    """
    size = job.dtypes[chunk.name].size

    def written(at: int, nbytes: int) -> NDArray[np.uint8]:
        raw = buffer("written", nbytes, np.uint8)
        writer.read_back(chunk.name, at, raw)
        return raw

    if earlier == "copy":
        return all(
            np.array_equal(raw, written(at, len(raw))) for at, raw in chunk_bytes(job, chunk)
        )
    hashing = ChunkHash(size)
    for at in range(chunk.begin, chunk.end, BLOCK_ELEMENTS):
        hashing.update(written(at, min(BLOCK_ELEMENTS, chunk.end - at) * size))
    return hashing.digest().hex() == earlier


def _tensor_digests(
    profile: Profile,
    jobs: Sequence[MergeJob],
    chunks: Sequence[Chunk],
    results: Sequence[str],
) -> tuple[Mapping[str, str], ...]:
    """Per job, tensor → digest: the measured one of what was copied, else that of its chunks."""
    measured: dict[str, TensorProfile] = {tensor.name: tensor for tensor in profile.tensors}
    parts: list[dict[str, list[bytes]]] = [{} for _ in jobs]
    for chunk, result in zip(chunks, results, strict=True):
        if result != "copy":
            parts[chunk.job].setdefault(chunk.name, []).append(bytes.fromhex(result))

    def digest(job: MergeJob, computed: Mapping[str, list[bytes]], name: str) -> str:
        if name in computed:
            return digests.of_chunks(computed[name])
        role = job.ops[name].terms[0][0]
        if name in measured:
            return measured[name].digests[role]
        return digests.of_tensor(job.tensor(role, name))  # measured in another layout

    return tuple(
        {name: digest(job, computed, name) for name in job.family.names if name not in job.packings}
        for job, computed in zip(jobs, parts, strict=True)
    )
