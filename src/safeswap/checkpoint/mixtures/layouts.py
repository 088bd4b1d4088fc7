"""How mixtures are laid out: the names of experts and routers, and what they are in another layout.

A layer's experts are stored apart (``experts.7.gate_proj.weight``, ``experts.7.w1.weight``), each
matrix as (out, in), or all in one tensor (``experts.gate_up_proj``, ``input_linear.weight``). How
the matrices lie in that one is the family's own matter, so it is known by model type and never
guessed: what transformers' classes and its ``conversion_mapping`` do on loading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from safeswap.checkpoint.mixtures.views import Braid, Stack, Strand, Turned
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.sliced import SlicedTensor
from safeswap.errors import FamilyError

Tensors = Mapping[str, Tensor]
Layout = Literal["rows", "columns", "braided"]
"""All experts in one tensor: ``rows`` [expert, gate then up, in]; ``columns`` the same transposed,
[expert, in, gate then up]; ``braided`` [expert, in, gate and up in turns]."""

LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(
        (
            *("mixtral", "minimax", "minimax_m2", "phimoe", "lfm2_moe", "jamba"),
            *("qwen2_moe", "qwen3_moe", "qwen3_next", "olmoe", "flex_olmo", "afmoe", "dots1"),
            *("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe", "glm4_moe_lite"),
            *("ernie4_5_moe", "hunyuan_v1_moe", "longcat_flash", "solar_open", "exaone_moe"),
            *("granitemoe", "granitemoeshared", "granitemoehybrid"),
        ),
        "rows",
    ),
    "llama4": "columns",
    "llama4_text": "columns",
    "gpt_oss": "braided",
}
_APART = {
    **{"w1": "gate", "w3": "up", "w2": "down"},
    **{"gate_proj": "gate", "up_proj": "up", "down_proj": "down"},
}
_FUSED = {
    **{"experts.gate_up_proj": ("gate_up", "weight"), "experts.down_proj": ("down", "weight")},
    "experts.gate_up_proj_bias": ("gate_up", "bias"),
    "experts.down_proj_bias": ("down", "bias"),
    **{"input_linear.weight": ("gate_up", "weight"), "output_linear.weight": ("down", "weight")},
}
_MODULE = re.compile(r"(.*\.\d+)\.(?:mlp|block_sparse_moe|feed_forward|moe)\.(.+)")
_EXPERT = re.compile(rf"experts\.(0|[1-9]\d{{0,8}})\.({'|'.join(_APART)})\.(weight|bias)")
_ROUTER = re.compile(r"(?:gate|router|router\.layer)\.(weight|bias|e_score_correction_bias)")


@dataclass(frozen=True, slots=True)
class Slot:
    """What a tensor of a mixture is, whatever it is called.

    Attributes:
        layer: the front of its name, up to and with the layer's number.
        what: ``gate``, ``up``, ``down``, ``gate_up`` or ``router``.
        leaf: ``weight``, ``bias``, or a router's ``e_score_correction_bias``.
        expert: its number where experts are stored apart; None for all of them, and a router.
    """

    layer: str
    what: str
    leaf: str
    expert: int | None = None


def slot_of(name: str) -> Slot | None:
    """What a name says; None for one of no mixture, or with words of its own."""
    match = _MODULE.fullmatch(name)
    if match is None:
        return None
    layer, inside = match.groups()
    if expert := _EXPERT.fullmatch(inside):
        return Slot(layer, _APART[expert[2]], expert[3], int(expert[1]))
    if inside in _FUSED:
        return Slot(layer, *_FUSED[inside])
    router = _ROUTER.fullmatch(inside)
    return Slot(layer, "router", router[1]) if router else None


@dataclass(frozen=True, slots=True)
class Relaid:
    """A member's mixtures in another layout.

    Attributes:
        made: name in the other layout → tensor.
        own: name in its own → tensor, those that ``made`` stands for.
    """

    made: Tensors
    own: Tensors

    def of(self, tensors: Tensors) -> dict[str, Tensor]:
        """All tensors of the member, in the other layout."""
        rest = {name: tensor for name, tensor in tensors.items() if name not in self.own}
        return {**rest, **self.made}

    def note(self, role: str) -> str:
        """What a user should know."""
        return (
            f"{role}: its {next(iter(self.own))} and all of its experts are read as the base "
            f"stores them, {next(iter(self.made))}; the output's are stored as its donor's"
        )


def in_layout_of(target: Tensors, own: Tensors, family: str, who: str) -> Relaid | None:
    """A member's experts and routers under the names and in the layout of another's.

    Args:
        target: the other member's tensors.
        own: the member's.
        family: the members' model type.
        who: the member, for messages.

    Returns:
        None where it has the names already, or where experts are not what differs.

    Raises:
        FamilyError: the experts of this family are stored in two layouts, and how one becomes the
            other is not known.
    """
    wanted = {n: slot for n in target if n not in own and (slot := slot_of(n))}
    extra = {n: slot for n in own if n not in target and (slot := slot_of(n))}
    if not wanted or all(slot.what == "router" for slot in extra.values()):
        return None
    source = _Source({slot: own[name] for name, slot in extra.items()}, family, who)
    made: dict[str, Tensor] = {}
    for name, slot in wanted.items():
        tensor = source.made(name, slot, target[name].shape)
        if tensor is None:
            return None  # other layers, sizes or names: what it is, is said elsewhere
        made[name] = tensor
    if any(slot not in source.used for slot in extra.values()):
        return None
    return Relaid(made, {name: own[name] for name in extra})


class _Source:
    """One member's experts by what they are, and how they are made another layout's.

    Attributes:
        used: what of it was taken.
    """

    def __init__(self, slots: dict[Slot, Tensor], family: str, who: str) -> None:
        self.used: set[Slot] = set()
        self._slots, self._family, self._who = slots, family, who
        self._count: dict[str, int] = {}
        for slot in slots:
            if slot.expert is not None:
                self._count[slot.layer] = max(self._count.get(slot.layer, 0), slot.expert + 1)

    def made(self, name: str, slot: Slot, shape: tuple[int, ...]) -> Tensor | None:
        """The tensor of a slot under a name; None where the member has nothing for it."""
        if slot in self._slots:
            same = self._take(slot)
            return same if same.shape == shape else None
        if slot.what == "router":
            return None
        if slot.expert is None:
            return self._fused(name, slot, shape)
        return self._apart(name, slot, shape)

    def _take(self, slot: Slot) -> Tensor:
        self.used.add(slot)
        return self._slots[slot]

    def _layout(self) -> Layout:
        found = LAYOUTS.get(self._family)
        if found is None:
            known = ", ".join(sorted(LAYOUTS))
            raise FamilyError(
                f"{self._who}: stores its experts in another layout than the base, and how one "
                f"becomes the other is not known for model_type {self._family!r} (known: {known})."
                " Load it with transformers and save it again, with save_original_format as the "
                "base was saved with."
            )
        return found

    def _fused(self, name: str, slot: Slot, shape: tuple[int, ...]) -> Tensor | None:
        """All experts in one tensor, of those that are stored apart."""
        layout, words = self._layout(), ("gate", "up") if slot.what == "gate_up" else (slot.what,)
        parts: list[Tensor] = []
        for expert in range(self._count.get(slot.layer, 0)):
            slots = [Slot(slot.layer, word, slot.leaf, expert) for word in words]
            if any(one not in self._slots for one in slots):
                return None
            own = [self._take(one) for one in slots]
            if layout == "braided" and len(own) == 2:
                rows = (sum(one.shape[0] for one in own), *own[0].shape[1:])
                own = [Braid(name, tuple(own), rows)]
            parts += own
        if not parts or len({one.dtype for one in parts}) > 1:
            return None
        if len(shape) == 3 and layout != "rows":
            turned = (shape[0], shape[2], shape[1])
            whole = Stack(name, tuple(parts), turned)
            fits = all(one.shape[-1] == shape[1] for one in parts)
            found: Stack | Turned = Turned(name, (whole,), shape)
        else:
            whole = found = Stack(name, tuple(parts), shape)
            fits = len(shape) == 2 or all(one.shape[-1] == shape[2] for one in parts)
        return found if fits and whole.ends[-1] == found.elements else None

    def _apart(self, name: str, slot: Slot, shape: tuple[int, ...]) -> Tensor | None:
        """One matrix of an expert, of a tensor that holds all of them."""
        both = Slot(slot.layer, "gate_up", slot.leaf)
        joined = slot.what in ("gate", "up") and both in self._slots
        there = both if joined else Slot(slot.layer, slot.what, slot.leaf)
        if there not in self._slots:
            return None
        layout, whole = self._layout(), self._take(there)
        assert slot.expert is not None
        if slot.expert >= whole.shape[0]:
            return None
        own = whole.shape[1:]
        matrix: Tensor = SlicedTensor(name, whole, slot.expert * _size(own), own)
        if len(own) == 2 and layout != "rows":
            matrix = Turned(name, (matrix,), own[::-1])
        if joined and layout == "braided":
            rows = (matrix.shape[0] // 2, *matrix.shape[1:])
            matrix = Strand(name, (matrix,), rows, first=int(slot.what == "up"))
        elif joined:
            rows = (matrix.shape[0] // 2, *matrix.shape[1:])
            begin = _size(rows) * int(slot.what == "up")
            matrix = SlicedTensor(name, matrix, begin, rows)
        return matrix if matrix.shape == shape else None


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size
