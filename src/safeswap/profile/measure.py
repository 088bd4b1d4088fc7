"""The measuring: one pass over all checkpoints, in chunks, on several threads."""

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
from safeswap.checkpoint.dtypes import SUM_ROW, arithmetic_dtype, decode, inner_product
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.reader import Tensor, TensorReader, read_bytes
from safeswap.checkpoint.source import known_sha256
from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of, default_workers, run_chunks
from safeswap.profile.table import FileRecord, InputRecord, Profile, TensorProfile
from safeswap.roles import BASE, SAFETY

Pair = tuple[str, str]
"""Two roles; the same twice for a square."""
_STEP = BLOCK_ELEMENTS // 2
"""Elements read and taken apart at a time. Their bytes and the numbers of three members (0.9 MB in
float32) stay in a core's second cache; with all of a block in hand a profile takes 15 % more."""


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
    """Partial sums of one chunk: squares and inner products, and each member's digest."""

    products: dict[Pair, float]
    digest: dict[str, bytes]


def _measure_chunk(family: Family, name: str, begin: int, end: int) -> _Sums:
    tensors = family.tensors(name)
    hashes = {role: blake3() for role in tensors}
    parts: dict[Pair, list[float]] = {pair: [] for pair in _pairs(family)}
    with ExitStack() as stack:
        readers = {role: stack.enter_context(t.reader()) for role, t in tensors.items()}
        for reader in readers.values():
            reader.prefetch(begin, end)
        for at in range(begin, end, BLOCK_ELEMENTS):
            block = _Block(tensors, readers, at, min(BLOCK_ELEMENTS, end - at))
            for pair, product in block.measure(parts, hashes).items():
                exact = product if math.isfinite(product) else block.exact_product(pair)
                parts[pair].append(exact)
    products = {pair: math.fsum(values) for pair, values in parts.items()}
    return _Sums(products, {role: hashing.digest() for role, hashing in hashes.items()})


def _pairs(family: Family) -> list[Pair]:
    squares = [(role, role) for role in family.members]
    if SAFETY not in family.members:
        return squares
    return squares + [(SAFETY, language) for language in family.languages]


class _Block:
    """A block of one tensor in all members; base first, then the experts.

    A product over the block is the sum, in float64, of products over rows of `SUM_ROW` elements in
    the arithmetic's own type, so that it does not depend on the steps in which it is read.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        readers: Mapping[str, TensorReader],
        begin: int,
        count: int,
    ) -> None:
        self.tensors, self.readers, self.begin, self.count = tensors, readers, begin, count
        self.kind = arithmetic_dtype(*(tensor.dtype for tensor in tensors.values()))
        self.is_weight = tensors[BASE].dtype.mergeable

    def measure(self, pairs: Mapping[Pair, Any], hashes: Mapping[str, Any]) -> dict[Pair, float]:
        """The products of the pairs over the block (none for tensors that are no weights); what is
        read is added to the members' hashes."""
        rows = {p: buffer(f"rows {p}", self.count // SUM_ROW, self.kind) for p in pairs}
        rest = dict.fromkeys(pairs, 0.0)
        of_role = {
            role: [p for p in pairs if p in ((role, role), (SAFETY, role))] for role in self.tensors
        }
        numbers = {role: self._numbers_of(role) for role in self.tensors}
        # a product that is not finite is computed again, so numpy need not warn of it
        with np.errstate(over="ignore", invalid="ignore"):
            for at in range(0, self.count, _STEP):
                count = min(_STEP, self.count - at)
                for role, values in numbers.items():
                    self._read(role, at, values[:count], hashes[role])
                    if not self.is_weight:
                        continue
                    if role != BASE:
                        np.subtract(values[:count], numbers[BASE][:count], out=values[:count])
                    for pair in of_role[role]:
                        left = values if pair[0] == role else numbers[SAFETY]
                        part = rows[pair][at // SUM_ROW : (at + count) // SUM_ROW]
                        rest[pair] += _products(left[:count], values[:count], part)
        if not self.is_weight:
            return {}
        return {p: float(rows[p].sum(dtype=np.float64)) + rest[p] for p in pairs}

    def _numbers_of(self, role: str) -> NDArray[Any]:
        """The languages share a buffer: however many there are, all fits a core's cache."""
        slot = role if role in (BASE, SAFETY) else "language"
        return buffer(f"numbers of {slot}", _STEP, self.kind)

    def _read(self, role: str, at: int, values: NDArray[Any], hashing: Any) -> None:
        tensor, begin = self.tensors[role], self.begin + at
        raw = buffer("bytes of a member", len(values) * tensor.dtype.size, np.uint8)
        stored = read_bytes(tensor, self.readers[role], begin, begin + len(values), raw, values)
        hashing.update(raw.data)
        if stored and self.is_weight:
            decode(raw, tensor.dtype, values)

    def exact_product(self, pair: Pair) -> float:
        """The product again in float64, after showing that every weight of the block is finite.

        Raises:
            CheckpointError: a weight that is none, or too large to measure.
        """
        exact: dict[str, NDArray[np.float64]] = {}
        for role in dict.fromkeys((BASE, *pair)):
            tensor, values = self.tensors[role], np.empty(self.count, np.float64)
            self.readers[role].read_numbers(self.begin, self.begin + self.count, values)
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                raise not_finite(role, tensor, self.begin + int(bad[0]), float(values[bad[0]]))
            exact[role] = values
        left, right = (exact[r] if r == BASE else exact[r] - exact[BASE] for r in pair)
        with np.errstate(over="ignore", invalid="ignore"):
            product = inner_product(left, right)
        if not math.isfinite(product):
            tensor = self.tensors[pair[0]]
            raise CheckpointError(
                f"{tensor.where}: tensor {tensor.name!r} has weights too large to measure. "
                "The checkpoint is damaged; fetch it again."
            )
        return product


def _products(left: NDArray[Any], right: NDArray[Any], rows: NDArray[Any]) -> float:
    """Products over whole rows go into ``rows``; that of the elements after them is returned."""
    whole = len(rows) * SUM_ROW
    shape = (len(rows), SUM_ROW)
    np.vecdot(left[:whole].reshape(shape), right[:whole].reshape(shape), out=rows)
    return float(np.dot(left[whole:], right[whole:])) if whole < len(left) else 0.0


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

    def total(pair: tuple[str, str]) -> float:
        return math.fsum(part.products[pair] for part in parts)

    is_weight = family.is_weight(name)
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
