"""What an anatomy is: units, roles, the placement of every tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

Role = Literal["projection", "norm", "outside", "buffer"]
Kind = Literal["attention", "mlp", "norms", "embeddings", "final_norm", "lm_head"]

# The order of the words is the order of the model.
LAYER_KINDS: tuple[Kind, ...] = ("attention", "mlp", "norms")
BEFORE_LAYERS: tuple[Kind, ...] = ("embeddings",)
AFTER_LAYERS: tuple[Kind, ...] = ("final_norm", "lm_head")

_LAYER_UNIT = re.compile(rf"(0|[1-9][0-9]*)\.({'|'.join(LAYER_KINDS)})")


@dataclass(frozen=True)
class Placement:
    """Where one tensor belongs.

    unit: the unit it is decided with, such as ``12.attention`` or ``embeddings``.
    role: ``projection`` (weights and biases of attention and mlp: what a profile counts), ``norm``
        (normalisation weights and biases inside the layers), ``outside`` (not in any layer), or
        ``buffer`` (masks, rotary frequencies, position ids: stored but not trained, never
        averaged).
    """

    unit: str
    role: Role


@dataclass(frozen=True)
class Anatomy:
    """The map of a model: every tensor name to its unit and role.

    placements: every name of the checkpoint exactly once, in the order it was given.
    units: the units that hold at least one tensor, in the order of the model: embeddings, then
        ``N.attention``, ``N.mlp``, ``N.norms`` per layer, then final_norm, then lm_head. Norms
        without weights (OLMo 1) are no units.
    layers: the number of layers; they are numbered 0 to layers - 1 without gaps.
    """

    placements: Mapping[str, Placement]
    units: tuple[str, ...]
    layers: int

    @cached_property
    def _members(self) -> dict[str, tuple[str, ...]]:
        members: dict[str, list[str]] = {unit: [] for unit in self.units}
        for name, placement in self.placements.items():
            members[placement.unit].append(name)
        return {unit: tuple(sorted(names)) for unit, names in members.items()}

    def tensors(self, unit: str) -> tuple[str, ...]:
        """The names of the tensors of ``unit``, buffers included, sorted.

        Raises KeyError if this model has no such unit.
        """
        return self._members[unit]


def kind_of(unit: str) -> Kind:
    """What a unit is, without its layer: ``kind_of("12.mlp")`` is ``"mlp"``.

    Raises ValueError if ``unit`` is not the name of a unit.
    """
    match = _LAYER_UNIT.fullmatch(unit)
    if match is not None:
        return cast(Kind, match[2])
    if unit in BEFORE_LAYERS + AFTER_LAYERS:
        return unit
    raise ValueError(
        f"{unit!r} is not a unit; units are N.attention, N.mlp and N.norms (N a layer number), "
        "embeddings, final_norm and lm_head"
    )


def layer_of(unit: str) -> int | None:
    """The layer number of a unit, None for the units outside the layers.

    Raises ValueError if ``unit`` is not the name of a unit.
    """
    return int(unit.partition(".")[0]) if kind_of(unit) in LAYER_KINDS else None


def units_in_order(used: Iterable[str], layers: int) -> tuple[str, ...]:
    """The units of ``used``, in the order of a model with ``layers`` layers."""
    present = set(used)
    inside = [f"{layer}.{kind}" for layer in range(layers) for kind in LAYER_KINDS]
    return tuple(u for u in (*BEFORE_LAYERS, *inside, *AFTER_LAYERS) if u in present)
