"""Carry plans out: bytes are copied where a plan says one expert, computed where it blends.

A job is one plan and one output folder; several jobs that share base and safety expert run
together, so that each piece of an input is warm when the next output asks for it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap import digests
from safeswap.checkpoint.dtypes import Dtype, arithmetic_dtype, decode, encode, inner_product
from safeswap.checkpoint.family import BASE, SAFETY, Family
from safeswap.checkpoint.files import announce, copy_range, opened, read_into, write_at
from safeswap.checkpoint.header import StoredTensor
from safeswap.checkpoint.layout import Layout, OutputTensor, group_by_size, lay_out
from safeswap.checkpoint.staging import Staging
from safeswap.errors import CheckpointError, FamilyError, OutputError, PlanError
from safeswap.operators import Recipe, linear
from safeswap.plan import Plan, check_units
from safeswap.profile import Profile, TensorProfile
from safeswap.work import CHUNK_ELEMENTS, default_workers, pieces_of, run_pieces

_LARGEST_F16 = 65504.0


@dataclass(frozen=True)
class Job:
    """One plan, ready to be carried out.

    Attributes:
        folder: name of the output below the run's root ("" when it is the root itself).
        recipes: tensor → which inputs are read with which coefficients.
        layout: where every output byte will lie.
        dtypes: tensor → format it is written in.
    """

    plan: Plan
    folder: str
    recipes: Mapping[str, Recipe]
    layout: Layout
    dtypes: Mapping[str, Dtype]

    def is_copy(self, family: Family, name: str) -> bool:
        """Whether a tensor's bytes are one input's bytes."""
        role = self.recipes[name].copied
        return role is not None and family.members[role].tensors[name].dtype == self.dtypes[name]


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of elements of one output tensor."""

    job: int
    name: str
    begin: int
    end: int

    @property
    def key(self) -> str:
        """Its name in the journal."""
        return f"{self.job}:{self.name}:{self.begin}"


def prepare(
    family: Family,
    plan: Plan,
    *,
    folder: str = "",
    dtype: Dtype | None = None,
    shard_size: int | None = None,
) -> Job:
    """Check a plan against its family and fix every output byte's place; nothing is written.

    Args:
        dtype: format of all output weights; by default each tensor's format in the donor.
        shard_size: bytes of a shard; by default the base's sharding.

    Raises:
        PlanError: units that do not match the model, weights that would untie tied tensors.
    """
    check_units(plan, family.anatomy.units)
    donor = family.members[plan.donor]
    recipes, dtypes = {}, {}
    for name in family.names:
        placement = family.anatomy.placements[name]
        is_weight = family.base.tensors[name].dtype.mergeable and placement.role != "buffer"
        weights = plan.units[placement.unit].weights
        recipes[name] = linear(weights) if is_weight else Recipe(((plan.donor, 1.0),))
        dtypes[name] = dtype if dtype and is_weight else donor.tensors[name].dtype
    _check_tied(family, plan)
    tensors = {n: OutputTensor(n, dtypes[n], family.base.tensors[n].shape) for n in family.names}
    if shard_size is None:
        kept = set(family.names)
        files = [[t.name for t in f.tensors if t.name in kept] for f in family.base.files]
        groups = [[tensors[name] for name in names] for names in files if names]
    else:
        groups = group_by_size(list(tensors.values()), shard_size)
    return Job(plan, folder, recipes, lay_out(groups), dtypes)


def _check_tied(family: Family, plan: Plan) -> None:
    units = plan.units
    if not family.base.tied or "lm_head" not in units or "embeddings" not in units:
        return
    if units["lm_head"].weights != units["embeddings"].weights:
        raise PlanError(
            "plan: the model ties lm_head to its embeddings, so both units need the same weights. "
            "Give lm_head the weights of embeddings."
        )


def identity(jobs: Sequence[Job], profile: Profile) -> str:
    """What a resumed run must have in common with the first one (SHA-256, hex)."""
    content = {
        "inputs": {role: record.digest for role, record in profile.inputs.items()},
        "plans": [
            {unit: dict(row.weights) for unit, row in job.plan.units.items()} for job in jobs
        ],
        "headers": [[shard.header.hex() for shard in job.layout.shards] for job in jobs],
        "donors": [job.plan.donor for job in jobs],
        "folders": [job.folder for job in jobs],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_scratch() -> Scratch:
    """One worker's buffers."""
    return Scratch()


class Scratch:
    """Buffers of one worker: stored bytes in and out, and two of numbers per arithmetic."""

    def __init__(self) -> None:
        self.raw = np.empty(CHUNK_ELEMENTS * 8, np.uint8)
        self.out = np.empty(CHUNK_ELEMENTS * 8, np.uint8)
        self.other = np.empty(CHUNK_ELEMENTS * 8, np.uint8)
        self._wide: dict[np.dtype[Any], tuple[NDArray[Any], NDArray[Any]]] = {}

    def wide(self, kind: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """An accumulator and a term, CHUNK_ELEMENTS numbers each."""
        if kind not in self._wide:
            self._wide[kind] = np.empty(CHUNK_ELEMENTS, kind), np.empty(CHUNK_ELEMENTS, kind)
        return self._wide[kind]


def piece_bytes(
    family: Family, job: Job, piece: Piece, scratch: Scratch
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The output bytes of a piece, chunk by chunk: (first element, uint8 view of a buffer).

    The arithmetic is float32 with one rounding to the output format; float64 when a stored or
    written format is F32 or F64.
    """
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
            announce(descriptor, start, (piece.end - piece.begin) * size)
        for at in range(piece.begin, piece.end, CHUNK_ELEMENTS):
            count = min(CHUNK_ELEMENTS, piece.end - at)
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


@dataclass(frozen=True, slots=True)
class Written:
    """What a run wrote: per job, tensor → digest (hex); and how much of it was already there."""

    digests: tuple[Mapping[str, str], ...]
    resumed_bytes: int


def write_weights(
    family: Family,
    profile: Profile,
    jobs: Sequence[Job],
    staging: Staging,
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Written:
    """Write all shards of all jobs into the staging folder, or what is missing of them.

    Args:
        workers: threads; the bytes do not depend on it.
        advance: told how many output bytes are done.

    Raises:
        CheckpointError, OutputError: an input or the output cannot be read or written.
    """
    targets = _create_shards(jobs, staging)
    staging.check_room(sum(job.layout.nbytes for job in jobs))
    pieces = [
        Piece(number, name, begin, end)
        for name in family.names
        for begin, end in pieces_of(family.base.tensors[name].elements)
        for number in range(len(jobs))
    ]
    resumed = [0]

    def act(piece: Piece, scratch: Scratch) -> str:
        job = jobs[piece.job]
        shard, start = job.layout.place[piece.name]
        target, path = targets[piece.job, shard.name]
        start += piece.begin * job.dtypes[piece.name].size
        earlier = staging.finished.get(piece.key)
        if earlier and _still_there(family, job, piece, scratch, target, path, start, earlier):
            resumed[0] += _size(jobs, piece)
            return earlier
        digest = _write_piece(family, job, piece, scratch, target, path, start)
        staging.note(piece.key, digest)
        return digest

    try:
        results = run_pieces(
            pieces,
            act,
            make_scratch,
            workers=workers or default_workers(),
            advance=advance,
            size=lambda piece: _size(jobs, piece),
        )
    finally:
        for descriptor, _ in targets.values():
            os.close(descriptor)
    return Written(_tensor_digests(family, profile, jobs, pieces, results), resumed[0])


def _size(jobs: Sequence[Job], piece: Piece) -> int:
    return (piece.end - piece.begin) * jobs[piece.job].dtypes[piece.name].size


def _create_shards(
    jobs: Sequence[Job], staging: Staging
) -> dict[tuple[int, str], tuple[int, Path]]:
    targets = {}
    for number, job in enumerate(jobs):
        folder = staging.folder / job.folder
        folder.mkdir(parents=True, exist_ok=True)
        for shard in job.layout.shards:
            path = folder / shard.name
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            os.ftruncate(descriptor, shard.size)
            write_at(descriptor, 0, shard.header, path)
            targets[number, shard.name] = descriptor, path
    return targets


def _write_piece(
    family: Family,
    job: Job,
    piece: Piece,
    scratch: Scratch,
    target: int,
    path: Path,
    start: int,
) -> str:
    size = job.dtypes[piece.name].size
    if job.is_copy(family, piece.name):
        role = job.recipes[piece.name].terms[0][0]
        tensor = family.members[role].tensors[piece.name]
        nbytes = (piece.end - piece.begin) * size
        with opened(tensor.file) as source:
            begin = tensor.start + piece.begin * size
            copy_range(source, begin, target, start, nbytes, tensor.file, path)
        return "copy"
    hashing = blake3()
    for at, raw in piece_bytes(family, job, piece, scratch):
        write_at(target, start + (at - piece.begin) * size, raw.data, path)
        hashing.update(raw.data)
    return hashing.hexdigest()


def _still_there(
    family: Family,
    job: Job,
    piece: Piece,
    scratch: Scratch,
    target: int,
    path: Path,
    start: int,
    earlier: str,
) -> bool:
    """Whether a piece that the journal claims really lies in the file: copies are compared with
    their source, computed ones with their digest."""
    size = job.dtypes[piece.name].size
    if earlier == "copy":
        return all(
            np.array_equal(
                raw, _read_back(target, start + (at - piece.begin) * size, len(raw), scratch, path)
            )
            for at, raw in piece_bytes(family, job, piece, scratch)
        )
    hashing = blake3()
    for at in range(piece.begin, piece.end, CHUNK_ELEMENTS):
        count = min(CHUNK_ELEMENTS, piece.end - at)
        begin = start + (at - piece.begin) * size
        hashing.update(_read_back(target, begin, count * size, scratch, path).data)
    return hashing.hexdigest() == earlier


def _read_back(
    target: int, start: int, nbytes: int, scratch: Scratch, path: Path
) -> NDArray[np.uint8]:
    buffer = scratch.other[:nbytes]
    read_into(target, start, buffer, path)
    return buffer


def _tensor_digests(
    family: Family,
    profile: Profile,
    jobs: Sequence[Job],
    pieces: Sequence[Piece],
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
        computed_digests = {name: digests.of_pieces(values) for name, values in computed.items()}
        found.append({name: (copied | computed_digests)[name] for name in family.names})
    return tuple(found)


def refuse_overlap(family: Family, out: Path) -> None:
    """An output may not be, hold or lie in an input.

    Raises:
        OutputError: names the input.
    """
    target = out.expanduser().resolve()
    for role, member in family.members.items():
        if target == member.folder or member.folder in target.parents:
            raise OutputError(f"{out}: is (in) the {role} checkpoint. Choose another --out.")
        if target in member.folder.parents and out.exists():
            raise OutputError(f"{out}: holds the {role} checkpoint. Choose another --out.")


def check_inputs(family: Family, plans: Sequence[Plan], profile: Profile) -> None:
    """A plan is for the weights that it was made from.

    Raises:
        FamilyError: an input's digest is not the one that the plan records.
    """
    for plan in plans:
        for role in (BASE, SAFETY, plan.language):
            wanted, found = plan.inputs[role].digest, profile.inputs[role].digest
            if wanted and wanted != found:
                raise FamilyError(
                    f"{role} checkpoint {family.members[role].folder}: its weights are not those "
                    f"that the plan was made from (digest {found[:12]}…, plan {wanted[:12]}…). "
                    "Profile and plan again, or give the original checkpoint."
                )
