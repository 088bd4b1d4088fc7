"""The paper's selector: swap where one expert's share of its own update is larger.

Source: Shin & Hwang, "Layer-wise Swapping for Generalizable Multilingual Safety", EACL 2026
(arXiv 2601.22620), sections on layer-wise and module-wise swapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from safeswap.parameters import Parameter
from safeswap.profile import Profile, TensorProfile
from safeswap.roles import SAFETY
from safeswap.selectors.common import (
    ALPHA,
    BY,
    NORMS_PARAMETER,
    OUTSIDE_PARAMETER,
    UnitChoice,
    keys_of,
    norms_by_granularity,
    refuse_unmoved,
    rows_of,
    spread,
    swaps,
)
from safeswap.selectors.registry import Row, selector

SMALL_NORM = 1e-8
"""Below this ‖W_base‖ the update is measured as it is, not relative to the base."""
SMALL_TOTAL = 1e-8
"""Added to the total when shares are formed."""
TAU = Parameter(
    "tau", 0.001, "threshold on the difference of shares: 0.1% or 0.001", low=0.0, share=True
)
TAU_RELATIVE = Parameter("tau_relative", False, "tau is a fraction of the mean share", bool)
PARAMETERS = (BY, TAU, TAU_RELATIVE, ALPHA, NORMS_PARAMETER, OUTSIDE_PARAMETER)


def relative_update(tensor: TensorProfile, expert: str) -> float:
    """``r_e(W) = ‖W_e − W_base‖ / ‖W_base‖``, or the plain norm where ‖W_base‖ ≤ 1e-8."""
    base = tensor.base_norm or 0.0
    return tensor.update_norm[expert] / (base if base > SMALL_NORM else 1.0)


def statistics(profile: Profile, expert: str, by: str) -> dict[str, float]:
    """The statistic n_e(u) of every unit that is decided.

    By ``"layer"`` the keys are layer numbers as text and the statistic is the **sum** of r over the
    layer's projections; by ``"module"`` the keys are units and it is the **root of the sum of
    squares**.
    """
    by_unit = profile.by_unit
    groups = {
        key: [
            relative_update(t, expert)
            for unit in units
            for t in by_unit[unit]
            if t.role == "projection"
        ]
        for key, units in keys_of(profile.units, by).items()
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
    profile: Profile, language: str, *, by: str, tau: float, tau_relative: bool
) -> dict[str, UnitChoice]:
    """The decision of every key (layer or module) with the shares that led to it.

    Raises:
        PlanError: an expert that is identical to the base has no shares.
    """
    own = {expert: statistics(profile, expert, by) for expert in (SAFETY, language)}
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
) -> Mapping[str, UnitChoice]:
    """Decide every unit of the layers; the units outside are the caller's.

    ``p_e(u) = n_e(u) / (Σ n_e + 1e-8)`` and ``d(u) = p_safety(u) − p_language(u)``: safety where
    ``d > τ``, language where ``d < −τ``, else blend.

    Args:
        by: ``layer`` or ``module``.
        tau: the threshold; with ``tau_relative`` a fraction of the mean share (1 / units).
        norms: ``language``, ``safety``, ``blend`` or ``follow``. ``follow`` takes the layer's
            decision; by module, the decision that attention and MLP share, else blend.

    Raises:
        PlanError: an expert that is identical to the base has no shares.
    """
    choices = decide(profile, language, by=by, tau=tau, tau_relative=tau_relative)
    return spread(profile, choices, by, norms)


@selector(
    "share-difference",
    summary="Swap each unit to the expert whose share of its own update is larger there.",
    source="Shin & Hwang, EACL 2026, arXiv 2601.22620",
    parameters=PARAMETERS,
    resolve=norms_by_granularity,
)
def fill(
    profile: Profile,
    language: str,
    *,
    by: str,
    tau: float,
    tau_relative: bool,
    alpha: float,
    norms: str,
    outside: str,
) -> dict[str, Row]:
    """The paper's table: ``(1, 0)`` for safety, ``(0, 1)`` for language, ``(α, 1−α)`` for blend."""
    choices = share_difference(
        profile, language, by=by, tau=tau, tau_relative=tau_relative, norms=norms
    )
    return rows_of(profile, choices, outside, swaps(alpha))
