"""The Pareto front of unsafe answers, over-refusal and ability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from safeswap.explore.measured import Figure, Measured

Kind = Literal["unsafe", "refused", "right"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def pareto_front(found: Sequence[Measured], kinds: Sequence[Kind] = KINDS) -> list[Measured]:
    """The models that no other of their language dominates, in the order given.

    One dominates another if it is at least as good in every figure and better in one: fewer unsafe
    answers, fewer harmless prompts refused, more right. Point estimates are compared. Models of
    equal figures stand side by side.

    Args:
        kinds: the figures that count. One that nobody has in a language is left out there; a model
            that lacks a figure which another has cannot be placed, and is never on the front.
    """
    front: set[int] = set()
    for language in dict.fromkeys(one.language for one in found):
        own = [n for n, one in enumerate(found) if one.language == language]
        counted = [kind for kind in kinds if any(getattr(found[n], kind) for n in own)]
        costs = {n: _costs(found[n], counted) for n in own}
        placed = {n: cost for n, cost in costs.items() if cost}
        for n, cost in placed.items():
            if not any(_dominates(other, cost) for other in placed.values()):
                front.add(n)
    return [found[n] for n in sorted(front)]


def _costs(one: Measured, kinds: Sequence[Kind]) -> tuple[float, ...] | None:
    """Figures turned so that less is better; None where one is missing."""
    figures: list[tuple[Kind, Figure | None]] = [(kind, getattr(one, kind)) for kind in kinds]
    if any(figure is None for _, figure in figures):
        return None
    return tuple(-f.value if kind == "right" else f.value for kind, f in figures if f)


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
