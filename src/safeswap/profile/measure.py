"""The measuring: one pass over all checkpoints, in chunks, on several threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from safeswap.checkpoint import digests
from safeswap.checkpoint.adapters.tensors import LowRankReader
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.numerics import arithmetic_dtype, decode, inner_product
from safeswap.checkpoint.reader import Tensor, TensorReader, announce, read_bytes
from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of, default_workers, run_chunks
from safeswap.profile.inputs import measured_record
from safeswap.profile.records import ExpertNumbers, TensorProfile
from safeswap.profile.table import Profile
from safeswap.profile.updates import (
    Pair,
    Reading,
    digest_of,
    products,
    products_by_expert,
    reading_of,
)
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
    threads = workers or default_workers()
    readings = {name: reading_of(family, name, pairs_of(family)) for name in family.names}
    chunks = [
        (name, begin, end)
        for name in family.names
        for begin, end in chunks_of(family.base.tensors[name].elements)
    ]

    def ahead(chunk: tuple[str, int, int]) -> None:
        reading = readings[chunk[0]]
        announce((reading.tensors[role] for role in reading.read), *chunk[1:])

    sums = run_chunks(
        chunks,
        lambda chunk: _measure_chunk(readings[chunk[0]], *chunk[1:], _each(family, chunk[0])),
        workers=threads,
        advance=advance,
        size=lambda chunk: (chunk[2] - chunk[1]) * readings[chunk[0]].width,
        ahead=ahead if family.is_remote else None,
    )
    by_tensor: dict[str, list[_Sums]] = {name: [] for name in family.names}
    for (name, _, _), chunk_sums in zip(chunks, sums, strict=True):
        by_tensor[name].append(chunk_sums)
    tensors = tuple(
        run_chunks(
            list(by_tensor),
            lambda name: _profile_of(family, name, readings[name], by_tensor[name]),
            workers=threads,
            advance=lambda count: None,
            size=lambda name: 0,
        )
    )
    return Profile(
        inputs={role: measured_record(family, role, tensors, threads) for role in family.members},
        units=family.anatomy.units,
        tensors=tensors,
        notes=family.notes,
    )


def bytes_to_measure(family: Family) -> int:
    """How many bytes `measure_family` reads: of an adapter's updates hardly any."""
    return sum(
        reading_of(family, name, pairs_of(family)).width * family.base.tensors[name].elements
        for name in family.names
    )


@dataclass(slots=True)
class _Sums:
    """Partial sums of one chunk: squares and inner products, and each member's digest.

    ``experts``: the same sums of each expert that the chunk meets, where one tensor holds several.
    """

    products: dict[Pair, float]
    digest: dict[str, bytes]
    experts: dict[int, dict[Pair, float]]


def _each(family: Family, name: str) -> int:
    """Elements of an expert where a tensor holds all of a layer; 0 elsewhere."""
    placement = family.anatomy.placements[name]
    stacked = placement.experts and (placement.part or "").endswith(".experts")
    if not stacked or not family.is_weight(name):
        return 0
    return family.base.tensors[name].elements // placement.experts


def _measure_chunk(reading: Reading, begin: int, end: int, each: int) -> _Sums:
    """Args: ``each``: elements of an expert, where each is summed by itself; else 0."""
    wanted = {*reading.read, *reading.by_blocks}
    tensors = {role: tensor for role, tensor in reading.tensors.items() if role in wanted}
    with ExitStack() as stack:
        readers = {role: stack.enter_context(t.reader()) for role, t in tensors.items()}
        for role in reading.read:
            readers[role].prefetch(begin, end)
        measuring = _Measuring(tensors, readers, reading)
        # a product that is not finite is computed again, so numpy need not warn of it
        with np.errstate(over="ignore", invalid="ignore"):
            for first, last in _experts_in(begin, end, each):
                for at in range(first, last, BLOCK_ELEMENTS):
                    measuring.add_block(at, min(BLOCK_ELEMENTS, last - at))
    return measuring.sums(each)


def _experts_in(begin: int, end: int, each: int) -> list[tuple[int, int]]:
    """A chunk cut where one expert ends and the next begins."""
    inner = range(begin - begin % each + each, end, each) if each else ()
    edges = [begin, *inner, end]
    return list(pairwise(edges))


def pairs_of(family: Family) -> list[Pair]:
    """The products that a profile is made of: a square of each member, safety with languages."""
    squares = [(role, role) for role in family.members]
    if SAFETY not in family.members:
        return squares
    return squares + [(SAFETY, language) for language in family.languages]


@dataclass(slots=True)
class _Member:
    """One member's tensor while a chunk is measured, with its buffers of a block.

    Attributes:
        products: (left, right) → products of the blocks so far, of the pairs that end in this role.
        is_update: its numbers are an adapter's update of the base's, made and not read.
    """

    role: str
    tensor: Tensor
    reader: TensorReader
    hashing: Any
    raw: NDArray[np.uint8]
    numbers: NDArray[Any]
    products: dict[Pair, list[float]]
    is_update: bool


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
        reading: Reading,
    ) -> None:
        kind = arithmetic_dtype(*(tensor.dtype for tensor in tensors.values()))
        self._is_weight = tensors[BASE].dtype.mergeable
        self._begins: list[int] = []
        self._numbers = {role: _numbers_of(role, kind) for role in tensors}
        self._members = [
            _Member(
                role,
                tensor,
                readers[role],
                blake3(),
                buffer("bytes of a member", BLOCK_ELEMENTS * tensor.dtype.size, np.uint8),
                self._numbers[role],
                {pair: [] for pair in reading.blocks if pair[1] == role},
                role in reading.updates,
            )
            for role, tensor in tensors.items()
        ]

    def add_block(self, begin: int, count: int) -> None:
        """Read a block of every member, hash it, and sum its products.

        Raises:
            CheckpointError: a weight that is NaN, infinite, or too large to measure.
        """
        self._begins.append(begin)
        for member in self._members:
            self._read(member, begin, count)
            for pair, so_far in member.products.items() if self._is_weight else ():
                found = inner_product(self._numbers[pair[0]][:count], member.numbers[:count])
                if not math.isfinite(found):
                    found = self._exact_product(pair, begin, count)
                so_far.append(found)

    def sums(self, each: int = 0) -> _Sums:
        """What was found in all blocks, and in those of each expert of so many elements."""
        found = {pair: own for member in self._members for pair, own in member.products.items()}
        experts: dict[int, dict[Pair, float]] = {}
        numbered = ((at // each, block) for block, at in enumerate(self._begins) if each)
        for expert, group in groupby(numbered, key=lambda one: one[0]):
            blocks = [block for _, block in group]
            run = slice(blocks[0], blocks[-1] + 1)
            experts[expert] = {pair: math.fsum(own[run]) for pair, own in found.items()}
        read = (member for member in self._members if not member.is_update)
        digest = {member.role: member.hashing.digest() for member in read}
        return _Sums({pair: math.fsum(own) for pair, own in found.items()}, digest, experts)

    def _read(self, member: _Member, begin: int, count: int) -> None:
        """The member's task vector (the base's own numbers) into its buffer."""
        dtype, values = member.tensor.dtype, member.numbers[:count]
        if member.is_update:
            assert isinstance(member.reader, LowRankReader)
            member.reader.read_change(begin, begin + count, values)
            return
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


def profile_of(
    family: Family,
    name: str,
    products: Mapping[Pair, float],
    digest: Mapping[str, str],
    by_expert: Mapping[Pair, Sequence[float]] | None = None,
) -> TensorProfile:
    """One tensor's row of a profile.

    Args:
        products: the total of every pair; not looked at where the tensor is no weight.
        digest: role → digest of its bytes.
        by_expert: the totals of each expert that lies in it, where they are known.
    """
    stored = family.base.tensors[name]
    placement = family.anatomy.placements[name]
    is_weight = family.is_weight(name)
    experts = family.experts if is_weight else ()
    languages = family.languages if is_weight and SAFETY in family.members else ()
    return TensorProfile(
        name=name,
        unit=placement.unit,
        role=placement.role,
        shape=stored.shape,
        dtype=stored.dtype.name,
        base_norm=math.sqrt(products[BASE, BASE]) if is_weight else None,
        update_norm={role: math.sqrt(products[role, role]) for role in experts},
        inner={language: products[SAFETY, language] for language in languages},
        digests=digest,
        part=placement.part,
        experts=_numbers(family, by_expert) if by_expert else None,
    )


def _numbers(family: Family, found: Mapping[Pair, Sequence[float]]) -> ExpertNumbers:
    languages = family.languages if SAFETY in family.members else ()
    norms = {role: tuple(map(math.sqrt, found[role, role])) for role in family.members}
    return ExpertNumbers(
        base_norm=norms.pop(BASE),
        update_norm=norms,
        inner={language: tuple(found[SAFETY, language]) for language in languages},
    )


def _by_expert(
    family: Family, name: str, reading: Reading, parts: list[_Sums]
) -> dict[Pair, Sequence[float]] | None:
    """The totals of each expert in a tensor; None where it holds no experts, or an adapter's
    factors do not tell them apart.
    """
    if not _each(family, name):
        return None
    experts, pairs = family.anatomy.placements[name].experts, pairs_of(family)
    known = products_by_expert(reading, pairs, experts)
    summed: dict[Pair, Sequence[float]] = {}
    for pair in pairs:
        if pair in known:
            summed[pair] = known[pair]
            continue
        blocks: list[list[float]] = [[] for _ in range(experts)]
        for part in parts:
            for expert, own in part.experts.items():
                if pair not in own:
                    return None
                blocks[expert].append(own[pair])
        summed[pair] = [math.fsum(found) for found in blocks]
    return summed


def _profile_of(family: Family, name: str, reading: Reading, parts: list[_Sums]) -> TensorProfile:
    pairs = pairs_of(family) if family.is_weight(name) else []
    known = products(reading, pairs) if pairs else {}
    totals = {
        pair: known[pair] if pair in known else math.fsum(part.products[pair] for part in parts)
        for pair in pairs
    }

    def digest(role: str) -> str:
        member = family.members[role].tensors[name]
        if reading.tensors[role] is not member:  # its rows were read in another order
            return digests.of_tensor(member)
        if role in reading.read:
            return digests.of_chunks(part.digest[role] for part in parts)
        return digest_of(reading, role, digest(BASE))

    digests_of = {role: digest(role) for role in family.members}
    return profile_of(family, name, totals, digests_of, _by_expert(family, name, reading, parts))
