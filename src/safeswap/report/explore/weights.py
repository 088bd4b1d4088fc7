"""How many bytes each row of a plan decides, in the base's own formats."""

from __future__ import annotations

import math
from typing import Any

from safeswap.checkpoint.dtypes import DTYPES
from safeswap.profile import Profile, TensorProfile


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
