"""The paper's selector: swap where one expert's share of its own update is larger.

Source: Shin & Hwang, "Layer-wise Swapping for Generalizable Multilingual Safety", EACL 2026
(arXiv 2601.22620), sections on layer-wise and module-wise swapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safeswap.parameters import Parameter
from safeswap.profile import Profile, TensorProfile
from safeswap.roles import SAFETY
from safeswap.selectors.common import (
    ALPHA,
    BY,
    NORMS_PARAMETER,
    OUTSIDE_PARAMETER,
    ROUTER_PARAMETER,
    SHARED_PARAMETER,
    Policies,
    UnitChoice,
    by_granularity,
    keys_of,
    refuse_unmoved,
    rows_of,
    spread,
    swaps,
    view,
)
from safeswap.selectors.registry import Row, selector

SMALL_NORM = 1e-8
"""Below this ‖W_base‖ the update is measured as it is, not relative to the base."""
SMALL_TOTAL = 1e-8
"""Added to the total when shares are formed."""
TAU = Parameter(
    "tau",
    None,
    "threshold on the difference of shares: 0.1% or 0.001, the default; by expert 0.064 of the "
    "mean share",
    low=0.0,
    share=True,
)
TAU_RELATIVE = Parameter("tau_relative", False, "tau is a fraction of the mean share", bool)
PARAMETERS = (
    *(BY, TAU, TAU_RELATIVE, ALPHA, NORMS_PARAMETER, OUTSIDE_PARAMETER),
    *(ROUTER_PARAMETER, SHARED_PARAMETER),
)


def relative_update(tensor: TensorProfile, expert: str) -> float:
    """``r_e(W) = ‖W_e − W_base‖ / ‖W_base‖``, or the plain norm where ‖W_base‖ ≤ 1e-8."""
    base = tensor.base_norm or 0.0
    return tensor.update_norm[expert] / (base if base > SMALL_NORM else 1.0)


def statistics(
    profile: Profile, expert: str, by: str, shared_experts: str | None = None
) -> dict[str, float]:
    """The statistic n_e(u) of every unit that is decided.

    By ``"layer"`` the keys are layer numbers as text and the statistic is the **sum** of r over the
    layer's projections; by ``"module"`` and ``"expert"`` the keys are units and it is the **root of
    the sum of squares**.

    Args:
        profile: by ``"expert"`` as ``safeswap.profile.by_expert`` makes it.
        shared_experts: the policy; they speak for themselves where it is ``own``.
    """
    by_unit = profile.by_unit
    groups = {
        key: [
            relative_update(t, expert)
            for unit in units
            for t in by_unit[unit]
            if t.role == "projection"
        ]
        for key, units in keys_of(profile.units, by, shared_experts).items()
    }
    if by == "layer":
        return {key: math.fsum(values) for key, values in groups.items()}
    return {key: math.sqrt(math.fsum(v * v for v in values)) for key, values in groups.items()}


def module_shares(profile: Profile, language: str) -> dict[str, tuple[float, float]]:
    """The shares (safety, language) of every attention and MLP, as they are shown where they decide
    nothing; 0 for an expert that is the base.
    """
    own = [statistics(profile, expert, "module") for expert in (SAFETY, language)]
    totals = [math.fsum(values.values()) + SMALL_TOTAL for values in own]
    return {unit: (own[0][unit] / totals[0], own[1][unit] / totals[1]) for unit in own[0]}


def decide(
    profile: Profile,
    language: str,
    *,
    by: str,
    tau: float,
    tau_relative: bool,
    shared_experts: str | None = None,
) -> dict[str, UnitChoice]:
    """The decision of every key (layer, module or expert) with the shares that led to it.

    Args:
        profile, shared_experts: as for :func:`statistics`.

    Raises:
        PlanError: an expert that is identical to the base has no shares.
    """
    own = {e: statistics(profile, e, by, shared_experts) for e in (SAFETY, language)}
    totals = {expert: math.fsum(values.values()) for expert, values in own.items()}
    refuse_unmoved(profile, totals)
    keys = list(own[SAFETY])
    threshold = tau / len(keys) if tau_relative else tau
    choices: dict[str, UnitChoice] = {}
    for key in keys:
        safety, spoken = (own[e][key] / (totals[e] + SMALL_TOTAL) for e in (SAFETY, language))
        difference = safety - spoken
        decision = "blend"
        if difference > threshold:
            decision = "safety"
        elif difference < -threshold:
            decision = "language"
        choices[key] = UnitChoice(decision, safety, spoken)
    return choices


def share_difference(
    profile: Profile,
    language: str,
    *,
    by: str = "module",
    tau: float = 0.001,
    tau_relative: bool = False,
    norms: str = "language",
    router: str | None = None,
    shared_experts: str | None = None,
) -> Mapping[str, UnitChoice]:
    """Decide every unit of the layers; the units outside are the caller's.

    ``p_e(u) = n_e(u) / (Σ n_e + 1e-8)`` and ``d(u) = p_safety(u) − p_language(u)``: safety where
    ``d > τ``, language where ``d < −τ``, else blend.

    Args:
        by: ``layer``, ``module`` or ``expert``.
        tau: the threshold; with ``tau_relative`` a fraction of the mean share (1 / units).
        norms: ``language``, ``safety``, ``blend`` or ``follow``. ``follow`` takes the layer's
            decision; else the decision that all units of the layer share, else blend.
        router, shared_experts: policies of mixtures of experts, as the parameters say.

    Raises:
        PlanError: an expert that is identical to the base has no shares.
    """
    seen = view(profile, by)
    rule: dict[str, Any] = {
        "by": by,
        "tau": tau,
        "tau_relative": tau_relative,
        "shared_experts": shared_experts,
    }
    choices = decide(seen, language, **rule)
    return spread(seen, choices, Policies(by, norms, router, shared_experts))


@selector(
    "share-difference",
    summary="Swap each unit to the expert whose share of its own update is larger there.",
    source="Shin & Hwang, EACL 2026, arXiv 2601.22620",
    parameters=PARAMETERS,
    resolve=by_granularity,
)
def fill(
    profile: Profile,
    language: str,
    *,
    by: str,
    tau: float,
    tau_relative: bool,
    alpha: float,
    outside: str,
    **policies: Any,
) -> dict[str, Row]:
    """The paper's table: ``(1, 0)`` for safety, ``(0, 1)`` for language, ``(α, 1−α)`` for blend."""
    rule: dict[str, Any] = {"by": by, "tau": tau, "tau_relative": tau_relative}
    choices = share_difference(profile, language, **rule, **policies)
    return rows_of(profile, choices, outside, swaps(alpha))
