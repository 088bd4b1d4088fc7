"""A profile by experts: what of a mixture goes as one mlp, taken apart.

Tensors that hold all experts of a layer are read as one for each, from the numbers that the profile
has of each; so selectors need not know how experts are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from safeswap.anatomy.units import order_parts
from safeswap.errors import PlanError
from safeswap.profile.records import TensorProfile
from safeswap.profile.table import Profile

_AGAIN = "Run safeswap profile again, or use --by module."


def by_expert(profile: Profile) -> Profile:
    """The profile with ``N.router``, ``N.shared_experts`` and ``N.experts.E`` for ``N.mlp`` where
    that is a mixture; nothing else is changed.

    Raises:
        PlanError: the model has no experts, or the profile no numbers of each.
    """
    mixtures = {tensor.unit for tensor in profile.tensors if tensor.part is not None}
    tensors = []
    found: dict[str, dict[str, None]] = {}
    for tensor in profile.tensors:
        if tensor.role == "buffer" and tensor.unit in mixtures:
            continue  # never decided: it goes with the donor
        for one in _apart(tensor, profile):
            tensors.append(one)
            found.setdefault(tensor.unit, {})[one.unit] = None
    parts = {unit: _ordered(own, unit) for unit, own in found.items()}
    units = tuple(one for unit in profile.units for one in parts.get(unit, (unit,)))
    if units == profile.units:
        raise PlanError(
            "--by expert: the model has no experts, or its profile was made by a version of "
            f"safeswap that did not tell them apart. {_AGAIN}"
        )
    return replace(profile, units=units, tensors=tuple(tensors))


def _ordered(own: Mapping[str, None], unit: str) -> tuple[str, ...]:
    parts = order_parts(name for name in own if name != unit)
    return (*((unit,) if unit in own else ()), *parts)


def _apart(tensor: TensorProfile, profile: Profile) -> Iterator[TensorProfile]:
    if tensor.part is None:
        yield tensor
    elif not tensor.part.endswith(".experts"):
        yield replace(tensor, unit=tensor.part)
    elif tensor.experts is None:
        why = "was made from a sample" if profile.sample else "was made by an earlier version"
        raise PlanError(
            f"--by expert: the profile has no numbers of each expert in {tensor.name!r}; it {why}. "
            f"{_AGAIN}"
        )
    else:
        yield from _experts(tensor)


def _experts(tensor: TensorProfile) -> Iterator[TensorProfile]:
    numbers = tensor.experts
    assert numbers is not None
    rows = tensor.shape[0] // max(1, len(numbers.base_norm))
    shape = tensor.shape[1:] if rows == 1 else (rows, *tensor.shape[1:])
    for expert, norm in enumerate(numbers.base_norm):
        yield replace(
            tensor,
            name=f"{tensor.name}[{expert}]",
            unit=f"{tensor.part}.{expert}",
            shape=shape,
            base_norm=norm,
            update_norm={role: own[expert] for role, own in numbers.update_norm.items()},
            inner={language: own[expert] for language, own in numbers.inner.items()},
            experts=None,
        )
