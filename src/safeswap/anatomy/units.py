"""What an anatomy is: units and their parts, roles, the placement of every tensor."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

Role = Literal["projection", "norm", "outside", "buffer"]
Kind = Literal[
    "embeddings",
    "attention",
    "cross_attention",
    "mixer",
    "mlp",
    "router",
    "shared_experts",
    "experts",
    "norms",
    "final_norm",
    "lm_head",
    "towers",
    "prediction",
]

# The order of the words is the order of the model.
MODULE_KINDS: tuple[Kind, ...] = ("attention", "cross_attention", "mixer", "mlp")
"""What a layer is made of; each is decided as one, or with its layer."""
PART_KINDS: tuple[Kind, ...] = ("router", "shared_experts", "experts")
"""What an mlp is made of in a mixture of experts."""
LAYER_KINDS: tuple[Kind, ...] = (*MODULE_KINDS, "norms")
BEFORE_LAYERS: tuple[Kind, ...] = ("embeddings",)
AFTER_LAYERS: tuple[Kind, ...] = ("final_norm", "lm_head", "towers", "prediction")
DONATED: tuple[Kind, ...] = ("towers", "prediction")
"""Parts that come from the donor whole: other stacks than the text's."""
STACKS = ("encoder", "decoder")
"""What stands before the layer's number where a model has two stacks of text."""

_LAYER_UNIT = re.compile(
    rf"(?:({'|'.join(STACKS)})\.)?(0|[1-9][0-9]{{0,17}})\."
    rf"(?:({'|'.join((*LAYER_KINDS, *PART_KINDS[:2]))})|(experts)\.(?:0|[1-9][0-9]{{0,17}}))"
)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one tensor belongs.

    Attributes:
        unit: the unit it is decided with, such as ``12.attention`` or ``embeddings``.
        role: ``projection`` (weights and biases of attention, mixer and mlp: what a profile
            counts), ``norm`` (normalisation weights and biases inside the layers), ``outside``
            (not in any layer of text), or ``buffer`` (masks, rotary frequencies, position ids:
            stored but not trained, never averaged).
        part: in a mixture of experts what of the mlp it is: ``12.router``, ``12.shared_experts``,
            ``12.experts.7``, or ``12.experts`` for all experts in one tensor; None elsewhere.
        experts: how many experts lie one after another along its first dimension (all of them in
            one tensor, or a router's rows); 0 where it is not to be divided.
    """

    unit: str
    role: Role
    part: str | None = None
    experts: int = 0

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The names by which a plan may decide it, most specific first: one tuple for all of the
        tensor, or one for each expert in it.

        A router's row goes with its expert, where a plan says nothing of routers.
        """
        if self.part is None:
            return ((self.unit,),)
        layer = self.part.rpartition(".experts")[0] or self.part.rpartition(".")[0]
        first = (self.part,) if self.part.endswith(".router") else ()
        if not self.experts:
            return ((self.part, self.unit),)
        return tuple((*first, f"{layer}.experts.{e}", self.unit) for e in range(self.experts))


@dataclass(frozen=True)
class Anatomy:
    """The map of a model: every tensor name to its unit and role.

    Attributes:
        placements: every name of the checkpoint exactly once, in the order it was given.
        units: the units that hold at least one tensor, in the order of the model: embeddings, then
            ``N.attention``, ``N.mixer``, ``N.mlp``, ``N.norms`` per layer, then final_norm,
            lm_head and what the donor gives. Norms without weights (OLMo 1) are no units. Layers of
            an encoder-decoder are ``encoder.N`` and ``decoder.N``.
        layers: the number of layers of text; in each stack they are numbered from 0 without gaps.
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

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The parts of mixtures of experts that a plan may name besides units, in their order."""
        return parts_in_order(self.placements.values())

    def tensors(self, unit: str) -> tuple[str, ...]:
        """The names of the tensors of ``unit``, buffers included, sorted.

        Raises KeyError if this model has no such unit.
        """
        return self._members[unit]


def kind_of(unit: str) -> Kind:
    """What a unit or part is, without its layer: ``kind_of("12.experts.3")`` is ``"experts"``.

    Raises ValueError if ``unit`` is not the name of a unit.
    """
    match = _LAYER_UNIT.fullmatch(unit)
    if match is not None:
        return cast(Kind, match[3] or match[4])
    if unit in BEFORE_LAYERS + AFTER_LAYERS:
        return unit
    raise ValueError(
        f"{unit!r} is not a unit; units are N.attention, N.mixer, N.mlp and N.norms (N a layer "
        "number; encoder.N and decoder.N where a model has both), N.experts.E, N.router, "
        "embeddings, final_norm, lm_head and towers"
    )


def layer_of(unit: str) -> int | None:
    """The layer number of a unit in its stack, None for the units outside the layers.

    Raises ValueError if ``unit`` is not the name of a unit.
    """
    match = _LAYER_UNIT.fullmatch(unit)
    if match is not None:
        return int(match[2])
    kind_of(unit)
    return None


def label_of(unit: str) -> str | None:
    """What a unit's layer is called: ``12``, ``encoder.12``; None outside the layers.

    Raises ValueError if ``unit`` is not the name of a unit.
    """
    match = _LAYER_UNIT.fullmatch(unit)
    if match is not None:
        return f"{match[1]}.{match[2]}" if match[1] else match[2]
    kind_of(unit)
    return None


def layer_labels(units: Iterable[str]) -> tuple[str, ...]:
    """The layers that units are of, each once, in the units' order."""
    return tuple(dict.fromkeys(label for unit in units if (label := label_of(unit)) is not None))


def parts_in_order(placements: Iterable[Placement]) -> tuple[str, ...]:
    """The parts that placements name, by layer: router, shared experts, experts by number."""
    names: dict[str, Placement] = {}
    for placement in placements:
        if placement.part is not None and placement.role != "buffer":
            whole = not placement.part.endswith(".experts")
            found = [placement.part] if whole else [row[0] for row in placement.rows]
            names |= dict.fromkeys(found, placement)
    return order_parts(names)


def order_parts(names: Iterable[str]) -> tuple[str, ...]:
    """Parts of mixtures by layer: router, shared experts, experts by number."""
    order = {kind: number for number, kind in enumerate(PART_KINDS)}

    def place(name: str) -> tuple[bool, int, int, int]:
        kind, last = kind_of(name), name.rpartition(".")[2]
        stack = (label_of(name) or "").rpartition(".")[0]
        return stack != STACKS[0], layer_of(name) or 0, order[kind], int(last.isdigit() and last)

    return tuple(sorted(names, key=place))


def units_in_order(used: Iterable[str], labels: Iterable[str]) -> tuple[str, ...]:
    """The units of ``used``, in the order of a model whose layers are ``labels``."""
    present = set(used)
    inside = [f"{label}.{kind}" for label in labels for kind in LAYER_KINDS]
    return tuple(u for u in (*BEFORE_LAYERS, *inside, *AFTER_LAYERS) if u in present)
