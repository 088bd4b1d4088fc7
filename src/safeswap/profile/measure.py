"""The measuring: one pass over all checkpoints, in pieces, on several threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint import digests
from safeswap.checkpoint.dtypes import arithmetic_dtype, decode, inner_product
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import StoredTensor
from safeswap.checkpoint.source import known_sha256
from safeswap.errors import CheckpointError
from safeswap.io.files import opened, prefetch, read_into
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of, default_workers, run_chunks
from safeswap.profile.table import FileRecord, InputRecord, Profile, TensorProfile
from safeswap.roles import BASE, SAFETY


def measure_family(
    family: Family,
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Profile:
    """Measure all experts of a family in one pass.

    Args:
        workers: threads; the result does not depend on it.
        advance: told how many bytes were read, for a progress display.

    Raises:
        CheckpointError: a weight that is NaN or infinite, a read that fails.
    """
    pieces = [
        (name, begin, end)
        for name in family.names
        for begin, end in chunks_of(family.base.tensors[name].elements)
    ]
    width = {n: sum(m.tensors[n].dtype.size for m in family.members.values()) for n in family.names}
    sums = run_chunks(
        pieces,
        lambda piece, scratch: _measure_piece(family, piece, scratch),
        _Scratch,
        workers=workers or default_workers(),
        advance=advance,
        size=lambda piece: (piece[2] - piece[1]) * width[piece[0]],
    )
    by_tensor: dict[str, list[_Sums]] = {name: [] for name in family.names}
    for (name, _, _), piece_sums in zip(pieces, sums, strict=True):
        by_tensor[name].append(piece_sums)
    tensors = tuple(_join(family, name, parts) for name, parts in by_tensor.items())
    return Profile(
        inputs={role: _record(family, role, tensors) for role in family.members},
        units=family.anatomy.units,
        tensors=tensors,
        notes=family.notes,
    )


@dataclass(slots=True)
class _Sums:
    """Partial sums of one piece; the keys are (role, role): squares and inner products."""

    products: dict[tuple[str, str], float]
    digest: dict[str, bytes]


class _Scratch:
    """One worker's buffers, reused for every chunk: stored bytes, and the numbers of the base, the
    safety expert and one more. They fit a core's cache together, however many languages there are.
    """

    def __init__(self) -> None:
        self.raw = np.empty(BLOCK_ELEMENTS * 8, np.uint8)
        self._wide: dict[np.dtype[Any], tuple[NDArray[Any], ...]] = {}

    def wide(self, kind: np.dtype[Any]) -> tuple[NDArray[Any], ...]:
        """Three buffers of the arithmetic's own type, made when first needed."""
        if kind not in self._wide:
            self._wide[kind] = tuple(np.empty(BLOCK_ELEMENTS, kind) for _ in range(3))
        return self._wide[kind]


def _measure_piece(family: Family, piece: tuple[str, int, int], scratch: _Scratch) -> _Sums:
    name, begin, end = piece
    stored = {role: family.members[role].tensors[name] for role in (BASE, *family.experts)}
    weights = stored[BASE].dtype.mergeable
    kind = arithmetic_dtype(*(tensor.dtype for tensor in stored.values()))
    hashes = {role: blake3() for role in stored}
    parts: dict[tuple[str, str], list[float]] = {pair: [] for pair in _pairs(family)}
    # a product that is not finite is looked into, so numpy need not say it
    with ExitStack() as stack, np.errstate(over="ignore", invalid="ignore"):
        descriptors = {r: stack.enter_context(opened(tensor.file)) for r, tensor in stored.items()}
        for role, tensor in stored.items():
            size = tensor.dtype.size
            prefetch(descriptors[role], tensor.start + begin * size, (end - begin) * size)
        for at in range(begin, end, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, end - at)
            base, safety, other = (buffer[:count] for buffer in scratch.wide(kind))
            for role, tensor in stored.items():
                raw = _read_chunk(descriptors[role], tensor, at, count, scratch.raw)
                hashes[role].update(raw.data)
                if not weights:
                    continue
                values = {BASE: base, SAFETY: safety}.get(role, other)
                decode(raw, tensor.dtype, values)
                if role != BASE:
                    np.subtract(values, base, out=values)
                for pair in {(role, role), (SAFETY, role)} & parts.keys():
                    product = inner_product(values if pair[0] == role else safety, values)
                    if not math.isfinite(product):
                        product = _exact_product(stored, descriptors, pair, at, count)
                    parts[pair].append(product)
    products = {pair: math.fsum(values) for pair, values in parts.items()}
    return _Sums(products, {role: hashing.digest() for role, hashing in hashes.items()})


def _pairs(family: Family) -> list[tuple[str, str]]:
    squares = [(role, role) for role in family.members]
    if SAFETY not in family.members:
        return squares
    return squares + [(SAFETY, language) for language in family.languages]


def _read_chunk(
    descriptor: int, tensor: StoredTensor, at: int, count: int, buffer: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    raw = buffer[: count * tensor.dtype.size]
    read_into(descriptor, tensor.start + at * tensor.dtype.size, raw, tensor.file)
    return raw


def _exact_product(
    stored: Mapping[str, StoredTensor],
    descriptors: Mapping[str, int],
    pair: tuple[str, str],
    at: int,
    count: int,
) -> float:
    """The product again in float64, after showing that every weight of the chunk is finite."""
    exact: dict[str, NDArray[np.float64]] = {}
    for role in dict.fromkeys((BASE, *pair)):
        tensor, values = stored[role], np.empty(count, np.float64)
        buffer = np.empty(count * tensor.dtype.size, np.uint8)
        decode(_read_chunk(descriptors[role], tensor, at, count, buffer), tensor.dtype, values)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise not_finite(role, tensor, at + int(bad[0]), float(values[bad[0]]))
        exact[role] = values
    left, right = (exact[r] if r == BASE else exact[r] - exact[BASE] for r in pair)
    product = inner_product(left, right)
    if not math.isfinite(product):
        tensor = stored[pair[0]]
        raise CheckpointError(
            f"{tensor.file}: tensor {tensor.name!r} has weights too large to measure. "
            "The checkpoint is damaged; fetch it again."
        )
    return product


def not_finite(role: str, tensor: StoredTensor, element: int, value: float) -> CheckpointError:
    """The error for a NaN or infinite weight."""
    return CheckpointError(
        f"{tensor.file}: tensor {tensor.name!r} of the {role} checkpoint has {value} at element "
        f"{element} of {tensor.elements}. The training diverged or the file is damaged; use "
        "another step of the run or fetch it again."
    )


def _join(family: Family, name: str, parts: list[_Sums]) -> TensorProfile:
    stored = family.base.tensors[name]
    placement = family.anatomy.placements[name]

    def total(pair: tuple[str, str]) -> float:
        return math.fsum(part.products[pair] for part in parts)

    is_weight = stored.dtype.mergeable and placement.role != "buffer"
    experts = family.experts if is_weight else ()
    languages = family.languages if is_weight and SAFETY in family.members else ()
    return TensorProfile(
        name=name,
        unit=placement.unit,
        role=placement.role,
        shape=stored.shape,
        dtype=stored.dtype.name,
        base_norm=math.sqrt(total((BASE, BASE))) if is_weight else None,
        update_norm={role: math.sqrt(total((role, role))) for role in experts},
        inner={language: total((SAFETY, language)) for language in languages},
        digests={
            role: digests.of_chunks(part.digest[role] for part in parts) for role in family.members
        },
    )


def _record(family: Family, role: str, tensors: tuple[TensorProfile, ...]) -> InputRecord:
    member = family.members[role]
    by_name = {tensor.name: tensor.digests[role] for tensor in tensors}
    for (alias_role, alias), original in family.aliases.items():
        if alias_role == role:  # the same bytes, as was checked when the family was joined
            by_name[alias] = by_name[original]
    files = tuple(
        FileRecord(
            name=file.path.name,
            size=file.size,
            mtime_ns=file.mtime_ns,
            digest=digests.of_weight_file(file.header, file.tensors, by_name),
            sha256=known_sha256(file.path),
        )
        for file in member.files
    )
    return InputRecord(
        source=member.source.text if member.source.hub_id else str(member.folder),
        path=str(member.folder),
        name=member.source.name,
        revision=member.source.revision,
        digest=digests.of_checkpoint(
            {name: member.tensors[name] for name in family.names}, by_name
        ),
        files=files,
    )


def unchanged(record: InputRecord, family: Family, role: str) -> bool:
    """Whether a checkpoint is where it was when measured, its files with their sizes and times.

    Sizes and times alone do not tell experts apart: all have one shape, and copies and archives
    may give all files one time.
    """
    if record.path != str(family.members[role].folder):
        return False
    now = {(file.path.name, file.size, file.mtime_ns) for file in family.members[role].files}
    return now == {(file.name, file.size, file.mtime_ns) for file in record.files}
