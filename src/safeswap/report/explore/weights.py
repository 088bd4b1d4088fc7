"""How many bytes each row of a plan decides, in the base's own formats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safeswap.anatomy import Placement
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.plan import PlannedUnit, rows_for
from safeswap.plan.fill import names_of
from safeswap.profile import Profile, TensorProfile
from safeswap.roles import SAFETY


def weights_of(profile: Profile) -> list[dict[str, Any]]:
    """For each unit of the profile, what lies in it.

    ``own``: bytes that the unit's row decides; ``shared`` and ``router``: those of a mixture's
    shared experts and router, which may have rows of their own; ``experts``: how many the layer
    has, and the bytes of each. Buffers are not counted: they go with the donor and are small.
    """
    found = []
    for tensors in profile.by_unit.values():
        one: dict[str, Any] = {"own": 0, "shared": 0, "router": 0, "experts": [0, 0]}
        names: set[str] = set()
        for tensor in tensors:
            size, kind = _size(tensor), (tensor.part or "").rpartition(".")[2]
            if tensor.role == "buffer":
                continue
            if tensor.part is None:
                one["own"] += size
            elif kind == "shared_experts":
                one["shared"] += size
            elif kind == "router":
                one["router"] += size
            elif kind == "experts" and tensor.experts is None:
                one["own"] += size  # a sample does not tell them apart
            else:
                count = len(tensor.experts.base_norm) if tensor.experts else 0
                names |= {f"{tensor.part}.{n}" for n in range(count)} or {tensor.part}
                one["experts"][1] += size
        if names:
            one["experts"] = [len(names), one["experts"][1] / len(names)]
        found.append(one)
    return found


def _size(tensor: TensorProfile) -> int:
    bits = DTYPES[tensor.dtype].bits if tensor.dtype in DTYPES else 16
    return math.prod(tensor.shape) * bits // 8


def mean_weights(
    profile: Profile, rows: Mapping[str, PlannedUnit], language: str
) -> list[tuple[float, float]] | None:
    """The mean weights (safety, language) by bytes of every unit of the profile, in its order.

    None where the rows do not decide all of this model: they are of another.
    """
    found = []
    for unit, tensors in profile.by_unit.items():
        held = [t for t in tensors if t.role != "buffer"]
        total, safety, spoken = 0.0, 0.0, 0.0
        for tensor in held:
            try:
                names = rows_for(rows, _placement(tensor, tensors))
            except KeyError:
                return None
            size = _size(tensor)
            total += size
            for name in names:
                safety += rows[name].weights[SAFETY] * size / len(names)
                spoken += rows[name].weights[language] * size / len(names)
        found.append((safety / total, spoken / total) if total else (0.0, 0.0))
        if not held and unit not in rows:
            return None
    return found


def _placement(tensor: TensorProfile, beside: Sequence[TensorProfile]) -> Placement:
    """Where a tensor belongs; a router has a row for each of its layer's experts."""
    count = len(tensor.experts.base_norm) if tensor.experts else 0
    if (tensor.part or "").endswith(".router"):
        held = {name for one in beside for name in names_of(one) if ".experts." in name}
        count = len(held)
    return Placement(tensor.unit, "projection", tensor.part, count)
