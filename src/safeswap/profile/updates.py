"""What an adapter's factors say without being multiplied, and what of a run need not be read.

Of each tensor a member is one of three: the **same** as the base's own (an adapter does not touch
it), an **update** of it (``W + s·L·R``, whose norms and inner products come from the factors), or
something that is read. Where one of two experts is read, the other's update is made block by block
for their inner product alone.

The digest of an update is BLAKE3 of its tensor's digest in the base, its scale and its factors'
digests: what a copy would have for bytes is made by nobody here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from blake3 import blake3

from safeswap.checkpoint import digests
from safeswap.checkpoint.adapters import Factors, update_of
from safeswap.checkpoint.adapters.factors import first_bad, inner, inner_of_blocks
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import CheckpointError
from safeswap.roles import BASE

Pair = tuple[str, str]
"""Two roles; the same twice for a square."""


@dataclass(frozen=True)
class Reading:
    """How a tensor of a family is measured.

    Attributes:
        tensors: role → the tensor, base first.
        read: the roles whose numbers are read, the base among them.
        updates: role → the update that makes its tensor of the base's.
        same: the roles whose tensor is the base's own.
        blocks: the pairs whose products are summed block by block.
    """

    tensors: Mapping[str, Tensor]
    read: tuple[str, ...]
    updates: Mapping[str, Factors] = field(default_factory=dict)
    same: frozenset[str] = frozenset()
    blocks: tuple[Pair, ...] = ()

    @property
    def by_blocks(self) -> tuple[str, ...]:
        """The roles whose updates are made block by block, for a product with one that is read."""
        paired = {role for pair in self.blocks for role in pair}
        return tuple(role for role in self.updates if role in paired)

    @property
    def width(self) -> int:
        """Bytes that are read of an element of every member."""
        return sum(self.tensors[role].dtype.size for role in self.read)


def reading_of(family: Family, name: str, pairs: list[Pair]) -> Reading:
    """How a tensor is measured; ``pairs``: the products that are asked for."""
    tensors = family.measured(name)
    base = tensors[BASE]
    adapted = {role for role, member in family.members.items() if member.adapter}
    same = frozenset(role for role in adapted if tensors[role] == base)
    updates = {
        role: factors
        for role, tensor in tensors.items()
        if role in adapted - same
        and family.is_weight(name)
        and (factors := update_of(tensor, base)) is not None
    }
    read = tuple(role for role in tensors if role not in same and role not in updates)
    blocks = tuple(p for p in pairs if not same & {*p} and {*p} & {*read})
    return Reading(tensors, read, updates, same, blocks)


def products(reading: Reading, pairs: list[Pair]) -> dict[Pair, float]:
    """The products that come from the factors alone.

    Raises:
        CheckpointError: a factor that is no number, or too large.
    """
    found: dict[Pair, float] = {}
    for one, two in pairs:
        if reading.same & {one, two}:
            found[one, two] = 0.0
        elif one in reading.updates and two in reading.updates:
            value = inner(reading.updates[one], reading.updates[two])
            if not math.isfinite(value):
                raise _not_finite(reading, (one, two))
            found[one, two] = max(value, 0.0) if one == two else value
    return found


def products_by_expert(
    reading: Reading, pairs: list[Pair], experts: int
) -> dict[Pair, list[float]]:
    """The same for each expert that lies in the tensor: those pairs whose factors tell them apart.

    Raises:
        CheckpointError: as :func:`products`.
    """
    found: dict[Pair, list[float]] = {}
    for one, two in pairs:
        if reading.same & {one, two}:
            found[one, two] = [0.0] * experts
        elif one in reading.updates and two in reading.updates:
            updates = reading.updates[one], reading.updates[two]
            if any(factors.blocks != experts for factors in updates):
                continue
            values = inner_of_blocks(*updates)
            if not all(map(math.isfinite, values)):
                raise _not_finite(reading, (one, two))
            found[one, two] = [max(v, 0.0) for v in values] if one == two else values
    return found


def _not_finite(reading: Reading, pair: Pair) -> CheckpointError:
    for role in pair:
        bad = first_bad(reading.updates[role])
        if bad is not None:
            tensor, at, value = bad
            return CheckpointError(
                f"{tensor.where}: tensor {tensor.name!r} of the {role} adapter has {value} at "
                f"element {at} of {tensor.elements}. The training diverged or the file is damaged; "
                "use another step of the run or fetch it again."
            )
    tensor = reading.updates[pair[0]].a
    return CheckpointError(
        f"{tensor.where}: tensor {tensor.name!r} and its partner are too large to measure. The "
        "adapter is damaged; fetch it again."
    )


def digest_of(reading: Reading, role: str, base: str) -> str:
    """The digest (hex) of a tensor that is not read; ``base``: that of the base's own."""
    if role in reading.same:
        return base
    factors = reading.updates[role]
    says = [
        *("safeswap-update/1", base, repr(factors.scale), factors.rank, factors.transposed),
        *(factors.experts, factors.expert, factors.offset),
        *(f"{t.dtype} {list(t.shape)} {digests.of_tensor(t)}" for t in (factors.a, factors.b)),
    ]
    return blake3("\n".join(map(str, says)).encode()).hexdigest()
