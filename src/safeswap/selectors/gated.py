"""Keep all that the language expert learned, and add safety only where it specialised.

A swap throws the other expert's update of a unit away; this one adds to it. The gate is the
paper's share difference (arXiv 2601.22620), the addition that of chat vectors (arXiv 2310.04799).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from safeswap.parameters import Parameter
from safeswap.profile import Profile
from safeswap.selectors.common import (
    ALPHA,
    BY,
    NORMS_PARAMETER,
    OUTSIDE_PARAMETER,
    ROUTER_PARAMETER,
    SHARED_PARAMETER,
    Policies,
    by_granularity,
    rows_of,
    spread,
    view,
)
from safeswap.selectors.registry import Row, selector
from safeswap.selectors.share_difference import TAU, TAU_RELATIVE, decide


def _without_base(parameter: Parameter) -> tuple[str, ...]:
    """The words of a policy but ``base``: what the language learned is kept everywhere."""
    return tuple(word for word in parameter.choices if word != "base")


@selector(
    "gated",
    summary="The whole language task vector, plus safety's where safety specialised.",
    source="safeswap; the gate is arXiv 2601.22620's, the addition arXiv 2310.04799's",
    parameters=(
        BY,
        TAU,
        TAU_RELATIVE,
        Parameter("gamma", 1.0, "γ of the safety vector where the gate is open"),
        replace(ALPHA, default=0.0, doc="how far the gate opens in a blended unit"),
        NORMS_PARAMETER,
        replace(
            OUTSIDE_PARAMETER,
            default="language",
            choices=("language", "safety", "blend"),
            doc="embeddings, final norm and lm_head: gate closed, open, or open by alpha",
        ),
        replace(ROUTER_PARAMETER, choices=_without_base(ROUTER_PARAMETER)),
        replace(SHARED_PARAMETER, choices=_without_base(SHARED_PARAMETER)),
    ),
    resolve=by_granularity,
)
def gated(
    profile: Profile,
    language: str,
    *,
    by: str,
    tau: float,
    tau_relative: bool,
    gamma: float,
    alpha: float,
    outside: str,
    **policies: Any,
) -> dict[str, Row]:
    """``(γ, 1)`` where share-difference says safety, ``(α·γ, 1)`` where it blends, else ``(0, 1)``.

    α is 0 by default: where neither expert leads there is no evidence that safety needs the unit,
    and the language keeps it whole.
    """
    profile, shared = view(profile, by), policies["shared_experts"]
    rule: dict[str, Any] = {"by": by, "tau": tau, "tau_relative": tau_relative}
    choices = decide(profile, language, **rule, shared_experts=shared)
    weights = {"safety": (gamma, 1.0), "blend": (alpha * gamma, 1.0), "language": (0.0, 1.0)}
    rows = spread(profile, choices, Policies(by, **policies))
    return rows_of(profile, rows, outside, weights)
