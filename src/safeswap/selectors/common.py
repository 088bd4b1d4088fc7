"""What several selectors share: parameters, and the way from decisions to rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from safeswap.anatomy import kind_of, label_of
from safeswap.errors import PlanError
from safeswap.parameters import Parameter
from safeswap.profile import Profile
from safeswap.roles import SAFETY
from safeswap.selectors.registry import Row

Decision = Literal["safety", "language", "blend"]
GRANULARITIES = ("module", "layer")
NORMS = ("language", "safety", "blend", "follow")
OUTSIDE = ("blend", "language", "safety", "base")

BY = Parameter(
    "by", "module", "decide attentions and MLPs one by one, or layers", str, choices=GRANULARITIES
)
ALPHA = Parameter(
    "alpha", 0.5, "safety's part in a blend; the language gets the rest", low=0.0, high=1.0
)
NORMS_PARAMETER = Parameter(
    "norms",
    None,
    "norms of the layers; by default follow by layer, language by module",
    str,
    choices=NORMS,
)
OUTSIDE_PARAMETER = Parameter(
    "outside", "blend", "embeddings, final norm and lm_head", str, choices=OUTSIDE
)
SEED = Parameter("seed", 0, "another seed is another table", int, low=0, high=2**63 - 1)


@dataclass(frozen=True, slots=True)
class UnitChoice:
    """What was decided for a unit and from which numbers (None where it has none of its own)."""

    decision: str
    share_safety: float | None = None
    share_language: float | None = None

    @property
    def difference(self) -> float | None:
        """Share of safety minus share of the language; > 0 leans to safety."""
        if self.share_safety is None or self.share_language is None:
            return None
        return self.share_safety - self.share_language

    @property
    def shares(self) -> tuple[float, float] | None:
        """The shares of safety and language, or None."""
        if self.share_safety is None or self.share_language is None:
            return None
        return self.share_safety, self.share_language


def norms_by_granularity(settings: dict[str, Any]) -> dict[str, Any]:
    """``norms`` where it was not given: the paper's choice for each granularity."""
    default = "follow" if settings["by"] == "layer" else "language"
    return {**settings, "norms": settings["norms"] or default}


def keys_of(units: Iterable[str], by: str) -> dict[str, tuple[str, ...]]:
    """What is decided → the units whose projections speak for it.

    By layer the keys are layers (``3``, ``encoder.3``); by module they are units.
    """
    keys: dict[str, tuple[str, ...]] = {}
    for unit in units:
        layer = label_of(unit)
        if layer is None or kind_of(unit) == "norms":
            continue
        key = layer if by == "layer" else unit
        keys[key] = (*keys.get(key, ()), unit)
    return keys


def spread(
    profile: Profile, choices: Mapping[str, UnitChoice], by: str, norms: str
) -> dict[str, UnitChoice]:
    """From decided keys to every unit of the layers; ``norms`` as in the parameter."""
    table: dict[str, UnitChoice] = {}
    for unit in profile.units:
        layer = label_of(unit)
        if layer is None:
            continue
        if kind_of(unit) != "norms":
            table[unit] = choices[layer if by == "layer" else unit]
        elif norms == "follow":
            table[unit] = UnitChoice(_followed(choices, layer, by))
        else:
            table[unit] = UnitChoice(norms)
    return table


def _followed(choices: Mapping[str, UnitChoice], layer: str, by: str) -> str:
    if by == "layer":
        return choices[layer].decision
    modules = {choice.decision for unit, choice in choices.items() if label_of(unit) == layer}
    return modules.pop() if len(modules) == 1 else "blend"


def rows_of(
    profile: Profile,
    choices: Mapping[str, UnitChoice],
    outside: str,
    weights: Mapping[str, tuple[float, float]],
) -> dict[str, Row]:
    """A row for every unit: its choice, or ``outside``, looked up in ``weights``."""
    made = {unit: choices.get(unit, UnitChoice(outside)) for unit in profile.units}
    return {unit: Row(*weights[choice.decision], choice.shares) for unit, choice in made.items()}


def swaps(alpha: float) -> dict[str, tuple[float, float]]:
    """The (safety, language) weights of swapping: one expert, or α and 1 − α of both."""
    return {
        "safety": (1.0, 0.0),
        "language": (0.0, 1.0),
        "blend": (alpha, 1.0 - alpha),
        "base": (0.0, 0.0),
    }


def shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """The keys in an order that only they and the seed decide, on every machine and version.

    By the SHA-256 of seed and key: a random generator may change with its library.
    """
    return sorted(keys, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())


def refuse_unmoved(profile: Profile, totals: Mapping[str, float]) -> None:
    """An expert without an update leaves nothing to select.

    Raises:
        PlanError: names the expert.
    """
    for expert, total in totals.items():
        if total == 0.0:
            raise PlanError(
                f"the {expert} expert ({profile.inputs[expert].given}) is identical to the base "
                "in every projection: there is nothing to swap. Was the base given twice?"
            )


def unit_cosines(profile: Profile, language: str, by: str) -> dict[str, float]:
    """cos(τ_safety, τ_language) per key, over its projections; 0 where a task vector is zero.

    ``Σ⟨τ_s, τ_l⟩ / √(Σ‖τ_s‖² · Σ‖τ_l‖²)``, the sums over the tensors of the key.

    Raises:
        PlanError: an expert that is identical to the base has no direction.
    """
    by_unit, found = profile.by_unit, {}
    totals = dict.fromkeys((SAFETY, language), 0.0)
    for key, units in keys_of(profile.units, by).items():
        tensors = [t for unit in units for t in by_unit[unit] if t.role == "projection"]
        squares = {e: sum(t.update_norm[e] ** 2 for t in tensors) for e in totals}
        totals = {expert: totals[expert] + squares[expert] for expert in totals}
        lengths = (squares[SAFETY] * squares[language]) ** 0.5
        inner = sum(t.inner[language] for t in tensors)
        found[key] = max(-1.0, min(1.0, inner / lengths)) if lengths else 0.0
    refuse_unmoved(profile, totals)
    return found
