"""Mixtures of experts: which expert, router or shared expert a tensor of an mlp belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from safeswap.anatomy import vocabulary
from safeswap.anatomy.model import Model, Path
from safeswap.anatomy.units import Placement


def divide(placements: dict[str, Placement], model: Model) -> None:
    """Say of every tensor of an mlp that has experts what part of the mixture it is."""
    layers: dict[str, dict[str, Path]] = {}
    for name, placement in placements.items():
        position = model.position(name)
        if position is not None and placement.unit.endswith(".mlp"):
            layers.setdefault(position[0], {})[name] = position[1]
    for label, paths in layers.items():
        if any(_is_expert(path, model.shapes[name]) for name, path in paths.items()):
            count = _count(paths, model)
            for name, path in paths.items():
                if placements[name].role == "buffer":
                    continue
                placements[name] = _divided(
                    placements[name], label, path, model.shapes[name], count
                )


def expert_of(path: Path) -> int | None:
    """The number of the expert that a path names (``experts.7.w1``), None where it names none."""
    for at, component in enumerate(path[:-1]):
        if component in vocabulary.EXPERTS_NAMES and vocabulary.is_number(path[at + 1]):
            return int(path[at + 1])
        if component in vocabulary.EXPERTS_NAMES and path[at + 1].startswith("expert_"):
            number = path[at + 1].removeprefix("expert_")  # Switch Transformers, NLLB
            return int(number) if vocabulary.is_number(number) else None
    return None


def _is_expert(path: Path, shape: tuple[int, ...]) -> bool:
    named = any(component in vocabulary.EXPERTS_NAMES for component in path)
    fused = len(shape) == 3 and any(c in vocabulary.FUSED_LINEARS for c in path)
    return (named or fused) and not _is_shared(path)


def _is_shared(path: Path) -> bool:
    return any(vocabulary.has_word(c, vocabulary.SHARED_EXPERT_WORDS) for c in path)


def _count(paths: Mapping[str, Path], model: Model) -> int:
    """How many experts a layer has."""
    numbers = [n for path in paths.values() if (n := expert_of(path)) is not None]
    if numbers:
        return max(numbers) + 1
    shapes = [model.shapes[name] for name, path in paths.items() if _is_expert(path, ())]
    shapes += [model.shapes[n] for n, p in paths.items() if _is_expert(p, model.shapes[n])]
    stacked = [shape[0] for shape in shapes if len(shape) == 3]
    if stacked:
        return min(stacked)
    routers = [
        model.shapes[name][0]
        for name, path in paths.items()
        if _is_router(path) and len(model.shapes[name]) == 2
    ]
    return routers[0] if routers else 0


def _is_router(path: Path) -> bool:
    return any(component in vocabulary.ROUTER_NAMES for component in path) and not _is_shared(path)


def _divided(
    placement: Placement, label: str, path: Path, shape: tuple[int, ...], count: int
) -> Placement:
    if _is_shared(path):
        return replace(placement, part=f"{label}.shared_experts")
    number = expert_of(path)
    if number is not None:
        return replace(placement, part=f"{label}.experts.{number}")
    rows = shape[0] if shape else 0
    if _is_expert(path, shape) and count and rows % count == 0 and rows:
        return replace(placement, part=f"{label}.experts", experts=count)
    if _is_router(path):
        whole = count if rows == count else 0
        return replace(placement, part=f"{label}.router", experts=whole)
    # whatever else stands beside the experts, every token goes through it
    return replace(placement, part=f"{label}.shared_experts")
