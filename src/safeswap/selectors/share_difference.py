"""The paper's selector: swap where one expert's share of its own update is larger.

Source: Shin & Hwang, "Layer-wise Swapping for Generalizable Multilingual Safety", EACL 2026
(arXiv 2601.22620), sections on layer-wise and module-wise swapping.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from safeswap.anatomy import kind_of, layer_of
from safeswap.checkpoint.family import SAFETY
from safeswap.errors import PlanError
from safeswap.profile import Profile, TensorProfile

Decision = Literal["safety", "language", "blend"]
SMALL_NORM = 1e-8
"""Below this ‖W_base‖ the update is measured as it is, not relative to the base."""
SMALL_TOTAL = 1e-8
"""Added to the total when shares are formed."""


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
    groups: dict[str, list[float]] = {}
    by_unit = profile.by_unit
    for unit in profile.units:
        layer = layer_of(unit)
        if layer is None or kind_of(unit) == "norms":
            continue
        group = groups.setdefault(str(layer) if by == "layer" else unit, [])
        group += [relative_update(t, expert) for t in by_unit[unit] if t.role == "projection"]
    if by == "layer":
        return {key: math.fsum(values) for key, values in groups.items()}
    return {key: math.sqrt(math.fsum(v * v for v in values)) for key, values in groups.items()}


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
    own = {expert: statistics(profile, expert, by) for expert in (SAFETY, language)}
    totals = {expert: math.fsum(values.values()) for expert, values in own.items()}
    for expert, total in totals.items():
        if total == 0.0:
            raise PlanError(
                f"the {expert} expert ({profile.inputs[expert].source}) is identical to the base "
                "in every projection: there is nothing to swap. Was the base given twice?"
            )
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
    return _per_unit(profile, choices, by, norms)


def _per_unit(
    profile: Profile, choices: Mapping[str, UnitChoice], by: str, norms: str
) -> dict[str, UnitChoice]:
    table: dict[str, UnitChoice] = {}
    for unit in profile.units:
        layer = layer_of(unit)
        if layer is None:
            continue
        if kind_of(unit) != "norms":
            table[unit] = choices[str(layer) if by == "layer" else unit]
        elif norms == "follow":
            table[unit] = UnitChoice(_followed(choices, layer, by))
        else:
            table[unit] = UnitChoice(norms)
    return table


def _followed(choices: Mapping[str, UnitChoice], layer: int, by: str) -> str:
    if by == "layer":
        return choices[str(layer)].decision
    modules = {choices[f"{layer}.{kind}"].decision for kind in ("attention", "mlp")}
    return modules.pop() if len(modules) == 1 else "blend"
