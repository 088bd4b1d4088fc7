"""What several selectors share: parameters, and the way from decisions to rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from safeswap.anatomy import kind_of, label_of
from safeswap.errors import PlanError
from safeswap.parameters import Parameter
from safeswap.profile import Profile, by_expert
from safeswap.roles import SAFETY
from safeswap.selectors.registry import Row

Decision = Literal["safety", "language", "blend"]
GRANULARITIES = ("module", "layer", "expert")
SAMPLED = ("module", "layer")
"""The granularities that a sample knows intervals of."""
NORMS = ("language", "safety", "blend", "follow")
OUTSIDE = ("blend", "language", "safety", "base")

ROUTER = ("language", "safety", "blend", "base", "follow")
SHARED = ("own", "language", "safety", "blend", "base", "follow")

BY = Parameter(
    "by",
    "module",
    "decide attentions and MLPs one by one, or layers, or every expert of a mixture",
    str,
    choices=GRANULARITIES,
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
ROUTER_PARAMETER = Parameter(
    "router",
    None,
    "routers of mixtures, their biases and correction biases; by default language by expert, else "
    "follow: as the mlp; by expert follow is row by row as the experts",
    str,
    choices=ROUTER,
)
SHARED_PARAMETER = Parameter(
    "shared_experts",
    None,
    "shared experts of mixtures; by default own by expert: decided as an expert is, else follow: "
    "as the mlp",
    str,
    choices=SHARED,
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


TAU_BY = {"module": 0.001, "layer": 0.001, "expert": 0.064}
"""τ where none is given. By expert it is relative to the mean share: what the paper's 0.001 is by
module in a model of 32 layers. A model has thousands of experts, and their shares get small."""


def by_granularity(settings: dict[str, Any]) -> dict[str, Any]:
    """What was not given, and hangs on the granularity: norms, τ, routers and shared experts.

    Raises:
        PlanError: policies that say nothing by expert.
    """
    by, made = settings["by"], dict(settings)
    made["norms"] = made["norms"] or ("follow" if by == "layer" else "language")
    if "tau" in made and made["tau"] is None:
        made["tau"] = TAU_BY[by]
        made["tau_relative"] = made["tau_relative"] or by == "expert"
    if by == "expert":
        made["router"] = made["router"] or "language"
        made["shared_experts"] = made["shared_experts"] or "own"
        if made["shared_experts"] == "follow":
            raise PlanError(
                "--shared-experts follow: is as the mlp, which by expert is not decided as one. "
                "Use own (by their own share), language, safety, blend or base."
            )
    elif made["shared_experts"] == "own":
        raise PlanError(
            "--shared-experts own: they have a share of their own by expert only. Add --by expert, "
            "or use follow (as the mlp), language, safety, blend or base."
        )
    return made


def view(profile: Profile, by: str) -> Profile:
    """The profile as it is decided: by expert with the parts of mixtures for their mlps.

    Raises:
        PlanError: by expert, of a model without experts.
    """
    return by_expert(profile) if by == "expert" else profile


def keys_of(
    units: Iterable[str], by: str, shared_experts: str | None = None
) -> dict[str, tuple[str, ...]]:
    """What is decided → the units whose projections speak for it.

    By layer the keys are layers (``3``, ``encoder.3``); else they are units, but for those that a
    policy decides: norms, routers, and shared experts where it is not ``own``.
    """
    fixed = {"norms", "router"} | (set() if shared_experts in (None, "own") else {"shared_experts"})
    keys: dict[str, tuple[str, ...]] = {}
    for unit in units:
        layer = label_of(unit)
        if layer is None or kind_of(unit) in fixed:
            continue
        key = layer if by == "layer" else unit
        keys[key] = (*keys.get(key, ()), unit)
    return keys


@dataclass(frozen=True, slots=True)
class Policies:
    """What is said of units that no share decides; words as in the parameters."""

    by: str
    norms: str
    router: str | None = None
    shared_experts: str | None = None

    @classmethod
    def taken_from(cls, settings: dict[str, Any]) -> Policies:
        """Taken out of a method's settings."""
        return cls(
            settings["by"], *(settings.pop(n) for n in ("norms", "router", "shared_experts"))
        )


def spread(
    profile: Profile, choices: Mapping[str, UnitChoice], policies: Policies
) -> dict[str, UnitChoice]:
    """From decided keys to every unit of the layers.

    A part of a mixture that goes as what is above it (``follow``) has no row; a router or shared
    experts with a policy have one, by whatever all else was decided.
    """
    table: dict[str, UnitChoice] = {}
    by, fixed = policies.by, {"router": policies.router, "shared_experts": policies.shared_experts}
    for unit in profile.units:
        layer = label_of(unit)
        if layer is None:
            continue
        kind = kind_of(unit)
        if kind == "norms" and policies.norms == "follow":
            table[unit] = UnitChoice(_followed(choices, layer, by))
        elif kind == "norms":
            table[unit] = UnitChoice(policies.norms)
        elif fixed.get(kind) in (None, "own", "follow"):
            if kind != "router":
                table[unit] = choices[layer if by == "layer" else unit]
        else:
            table[unit] = UnitChoice(str(fixed[kind]))
        for part in _parts(profile, unit):
            policy = fixed[kind_of(part)]
            if policy not in (None, "follow"):
                table[part] = UnitChoice(str(policy))
    return table


def _parts(profile: Profile, unit: str) -> list[str]:
    """The router and the shared experts of an mlp that is decided as one."""
    own = {tensor.part for tensor in profile.by_unit[unit] if tensor.unit != tensor.part}
    layer = unit.removesuffix("mlp")
    return [part for kind in ("router", "shared_experts") if (part := f"{layer}{kind}") in own]


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
    """A row for every unit that was chosen for or lies outside the layers: its choice, or
    ``outside``, looked up in ``weights``.
    """
    made = dict(choices)
    for unit in profile.units:
        if label_of(unit) is None:
            made[unit] = UnitChoice(outside)
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


def unit_cosines(
    profile: Profile, language: str, by: str, shared_experts: str | None = None
) -> dict[str, float]:
    """cos(τ_safety, τ_language) per key, over its projections; 0 where a task vector is zero.

    ``Σ⟨τ_s, τ_l⟩ / √(Σ‖τ_s‖² · Σ‖τ_l‖²)``, the sums over the tensors of the key.

    Raises:
        PlanError: an expert that is identical to the base has no direction.
    """
    by_unit, found = profile.by_unit, {}
    totals = dict.fromkeys((SAFETY, language), 0.0)
    for key, units in keys_of(profile.units, by, shared_experts).items():
        tensors = [t for unit in units for t in by_unit[unit] if t.role == "projection"]
        squares = {e: sum(t.update_norm[e] ** 2 for t in tensors) for e in totals}
        totals = {expert: totals[expert] + squares[expert] for expert in totals}
        lengths = (squares[SAFETY] * squares[language]) ** 0.5
        inner = sum(t.inner[language] for t in tensors)
        found[key] = max(-1.0, min(1.0, inner / lengths)) if lengths else 0.0
    refuse_unmoved(profile, totals)
    return found
