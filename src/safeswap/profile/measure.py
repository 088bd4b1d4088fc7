"""The measuring: one pass over all checkpoints, in chunks, on several threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint import digests
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.numerics import arithmetic_dtype, decode, inner_product
from safeswap.checkpoint.reader import Tensor, TensorReader, read_bytes
from safeswap.checkpoint.source import known_sha256
from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of, default_workers, run_chunks
from safeswap.profile.table import (
    ExpertProfile,
    FileRecord,
    InputRecord,
    Profile,
    TensorProfile,
)
from safeswap.roles import BASE, SAFETY

Pair = tuple[str, str]
"""Two roles; the same twice for a square."""


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
    chunks = [
        (name, begin, end)
        for name in family.names
        for begin, end in chunks_of(family.base.tensors[name].elements)
    ]
    width = {n: sum(t.dtype.size for t in family.tensors(n).values()) for n in family.names}
    sums = run_chunks(
        chunks,
        lambda chunk: _measure_chunk(family, *chunk),
        workers=workers or default_workers(),
        advance=advance,
        size=lambda chunk: (chunk[2] - chunk[1]) * width[chunk[0]],
    )
    by_tensor: dict[str, list[_Sums]] = {name: [] for name in family.names}
    for (name, _, _), chunk_sums in zip(chunks, sums, strict=True):
        by_tensor[name].append(chunk_sums)
    tensors = tuple(_profile_of(family, name, parts) for name, parts in by_tensor.items())
    return Profile(
        inputs={role: _record(family, role, tensors) for role in family.members},
        units=family.anatomy.units,
        tensors=tensors,
        notes=family.notes,
    )


@dataclass(slots=True)
class _Sums:
    """Partial sums of one chunk: squares and inner products, and each member's digest.

    Attributes:
        products: expert → pair → sum; one expert, 0, for tensors that are not all of a mixture's.
    """

    products: dict[int, dict[Pair, float]]
    digest: dict[str, bytes]


def _measure_chunk(family: Family, name: str, begin: int, end: int) -> _Sums:
    tensors = family.tensors(name)
    with ExitStack() as stack:
        readers = {role: stack.enter_context(t.reader()) for role, t in tensors.items()}
        for reader in readers.values():
            reader.prefetch(begin, end)
        measuring = _Measuring(tensors, readers, _pairs(family))
        products: dict[int, dict[Pair, float]] = {}
        # a product that is not finite is computed again, so numpy need not warn of it
        with np.errstate(over="ignore", invalid="ignore"):
            for expert, first, last in _spans(family, name, begin, end):
                for at in range(first, last, BLOCK_ELEMENTS):
                    measuring.add_block(at, min(BLOCK_ELEMENTS, last - at))
                products[expert] = measuring.take_products()
    return _Sums(products, measuring.digests())


def _spans(family: Family, name: str, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """A run of elements, cut where another expert begins: (expert, first, last)."""
    count = family.experts_in(name)
    size = family.base.tensors[name].elements // max(1, count)
    if count < 2 or not size:
        yield 0, begin, end
        return
    for expert in range(begin // size, -(-end // size)):
        yield expert, max(begin, expert * size), min(end, (expert + 1) * size)


def _pairs(family: Family) -> list[Pair]:
    squares = [(role, role) for role in family.members]
    if SAFETY not in family.members:
        return squares
    return squares + [(SAFETY, language) for language in family.languages]


@dataclass(slots=True)
class _Member:
    """One member's tensor while a chunk is measured, with its buffers of a block.

    Attributes:
        products: (left, right) → products of the blocks so far, of the pairs that end in this role.
    """

    role: str
    tensor: Tensor
    reader: TensorReader
    hashing: Any
    raw: NDArray[np.uint8]
    numbers: NDArray[Any]
    products: dict[Pair, list[float]]


class _Measuring:
    """One tensor in all members, block by block; base first, then the experts.

    A block is read, hashed and multiplied in as few calls as there can be: each lets go of the
    interpreter and must get it back, which costs two threads more than the smaller steps win that
    a core's cache would like better (64 Ki elements: one thread 15 % less CPU time, two 15 % more).
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        readers: Mapping[str, TensorReader],
        pairs: Sequence[Pair],
    ) -> None:
        kind = arithmetic_dtype(*(tensor.dtype for tensor in tensors.values()))
        self._is_weight = tensors[BASE].dtype.mergeable
        self._numbers = {role: _numbers_of(role, kind) for role in tensors}
        self._members = [
            _Member(
                role,
                tensor,
                readers[role],
                blake3(),
                buffer("bytes of a member", BLOCK_ELEMENTS * tensor.dtype.size, np.uint8),
                self._numbers[role],
                {pair: [] for pair in pairs if pair[1] == role},
            )
            for role, tensor in tensors.items()
        ]

    def add_block(self, begin: int, count: int) -> None:
        """Read a block of every member, hash it, and sum its products.

        Raises:
            CheckpointError: a weight that is NaN, infinite, or too large to measure.
        """
        for member in self._members:
            self._read(member, begin, count)
            for pair, products in member.products.items() if self._is_weight else ():
                found = inner_product(self._numbers[pair[0]][:count], member.numbers[:count])
                if not math.isfinite(found):
                    found = self._exact_product(pair, begin, count)
                products.append(found)

    def take_products(self) -> dict[Pair, float]:
        """What was found in all blocks since it was last asked."""
        products = {
            pair: math.fsum(found)
            for member in self._members
            for pair, found in member.products.items()
        }
        for member in self._members:
            for found in member.products.values():
                found.clear()
        return products

    def digests(self) -> dict[str, bytes]:
        """Each member's digest of all blocks."""
        return {member.role: member.hashing.digest() for member in self._members}

    def _read(self, member: _Member, begin: int, count: int) -> None:
        """The member's task vector (the base's own numbers) into its buffer."""
        dtype, values = member.tensor.dtype, member.numbers[:count]
        raw = member.raw[: count * dtype.size]
        stored = read_bytes(member.tensor, member.reader, begin, begin + count, raw, values)
        member.hashing.update(raw.data)
        if not self._is_weight:
            return
        if stored:
            decode(raw, dtype, values)
        if member.role != BASE:
            np.subtract(values, self._numbers[BASE][:count], out=values)

    def _exact_product(self, pair: Pair, begin: int, count: int) -> float:
        """The product again in float64, after showing that every weight of the block is finite.

        Raises:
            CheckpointError: a weight that is none, or too large to measure.
        """
        exact: dict[str, NDArray[np.float64]] = {}
        for member in self._members:
            if member.role not in (BASE, *pair):
                continue
            values = np.empty(count, np.float64)
            member.reader.read_numbers(begin, begin + count, values)
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                at = int(bad[0])
                raise not_finite(member.role, member.tensor, begin + at, float(values[at]))
            exact[member.role] = values
        left, right = (exact[r] if r == BASE else exact[r] - exact[BASE] for r in pair)
        product = inner_product(left, right)
        if not math.isfinite(product):
            tensor = next(m.tensor for m in self._members if m.role == pair[0])
            raise CheckpointError(
                f"{tensor.where}: tensor {tensor.name!r} has weights too large to measure. "
                "The checkpoint is damaged; fetch it again."
            )
        return product


def _numbers_of(role: str, kind: np.dtype[Any]) -> NDArray[Any]:
    """The languages share a buffer: however many there are, all fits a core's cache."""
    slot = role if role in (BASE, SAFETY) else "language"
    return buffer(f"numbers of {slot}", BLOCK_ELEMENTS, kind)


def not_finite(role: str, tensor: Tensor, element: int, value: float) -> CheckpointError:
    """The error for a NaN or infinite weight."""
    return CheckpointError(
        f"{tensor.where}: tensor {tensor.name!r} of the {role} checkpoint has {value} at element "
        f"{element} of {tensor.elements}. The training diverged or the file is damaged; use "
        "another step of the run or fetch it again."
    )


def _profile_of(family: Family, name: str, parts: list[_Sums]) -> TensorProfile:
    stored = family.base.tensors[name]
    placement = family.anatomy.placements[name]

    def total(pair: Pair, expert: int | None = None) -> float:
        return math.fsum(
            found[pair]
            for part in parts
            for number, found in part.products.items()
            if expert in (None, number)
        )

    def norms(expert: int | None = None) -> tuple[float, dict[str, float], dict[str, float]]:
        return (
            math.sqrt(total((BASE, BASE), expert)),
            {role: math.sqrt(total((role, role), expert)) for role in experts},
            {language: total((SAFETY, language), expert) for language in languages},
        )

    is_weight = family.is_weight(name)
    experts = family.experts if is_weight else ()
    languages = family.languages if is_weight and SAFETY in family.members else ()
    base_norm, update_norm, inner = norms()
    count = family.experts_in(name) if is_weight else 0
    return TensorProfile(
        name=name,
        unit=placement.unit,
        role=placement.role,
        shape=stored.shape,
        dtype=stored.dtype.name,
        base_norm=base_norm if is_weight else None,
        update_norm=update_norm,
        inner=inner,
        digests={
            role: digests.of_chunks(part.digest[role] for part in parts) for role in family.members
        },
        part=placement.part,
        experts=tuple(ExpertProfile(*norms(expert)) for expert in range(count)),
    )


def _record(family: Family, role: str, tensors: tuple[TensorProfile, ...]) -> InputRecord:
    member = family.members[role]
    stored = {name: tensor.name for name, tensor in member.tensors.items()}
    by_name = {stored[tensor.name]: tensor.digests[role] for tensor in tensors}
    for name in family.left_out.get(role, {}):  # of which nothing else is known
        by_name[stored[name]] = digests.of_tensor(member.tensors[name])
    whole = {stored[n]: t for n, t in member.tensors.items() if stored[n] in by_name}
    for (alias_role, alias), original in family.aliases.items():
        if alias_role == role:  # the same bytes, as was checked when the family was joined
            by_name[stored[alias]] = by_name[stored[original]]
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
        digest=digests.of_checkpoint(whole, by_name),
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
