"""The Pareto front of unsafe answers, over-refusal and ability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.candidates import CandidateResult
from safeswap.evaluation.results.store import write_json

OBJECTIVES = (Measure.UNSAFE, Measure.ACCURACY, Measure.OVER_REFUSAL)
"""What a search goes for, in the order of its study."""


def pareto_front(
    found: Sequence[CandidateResult], kinds: Sequence[Measure] = tuple(Measure)
) -> list[CandidateResult]:
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
        counted = [kind for kind in kinds if any(found[n].figure(kind) for n in own)]
        costs = {n: losses(found[n], counted) for n in own}
        placed = {n: cost for n, cost in costs.items() if cost}
        for n, cost in placed.items():
            if not any(_dominates(other, cost) for other in placed.values()):
                front.add(n)
    return [found[n] for n in sorted(front)]


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def losses(one: CandidateResult, objectives: Sequence[Measure]) -> tuple[float, ...] | None:
    """A candidate's figures, all better when lower; None where one is missing."""
    found = []
    for kind in objectives:
        figure = one.figure(kind)
        if figure is None:
            return None
        found.append(kind.cost(figure.value))
    return tuple(found)


def pareto_set(
    found: Sequence[CandidateResult], objectives: Sequence[Measure]
) -> list[CandidateResult]:
    """The front of ``pareto_front``, from the safest on.

    Candidates that lack a figure are left out.
    """
    values = {one.name: losses(one, objectives) for one in found}
    whole = [one for one in found if values[one.name] is not None]
    return sorted(pareto_front(whole, objectives), key=lambda one: values[one.name] or ())


def write_pareto(path: Path, front: Sequence[CandidateResult], about: Mapping[str, Any]) -> None:
    """The set as JSON: what it was chosen from and on, and each candidate with its figures."""
    points = [{**one.as_dict(), "plan": f"{one.name}.yaml"} for one in front]
    write_json(path, {"format": "safeswap-pareto/1", **about, "candidates": points})
