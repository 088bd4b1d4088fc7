"""Mix a little safety in where the language update points away from the safety vector.

Source: SafeMERGE (Djuhera et al. 2025, arXiv 2503.17239), whose code defaults to a threshold of
0.35 and to 0.8 of the fine-tuned and 0.2 of the safe weights.

Its test is not this one to the letter. SafeMERGE compares ΔW with its projection P·ΔW, where
P = VVᵀ/‖V‖_F and V = W_aligned − W_unaligned (Safe LoRA's matrix, arXiv 2405.16833); that cosine
needs the weights. This selector has the profile, and so the cosine of the two task vectors
themselves. It is smaller (two unrelated updates have 0, their projection test about 0.7), so the
same threshold mixes more units: look at ``safeswap show profile.json`` before choosing one.
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
    UnitChoice,
    by_granularity,
    rows_of,
    spread,
    swaps,
    unit_cosines,
    view,
)
from safeswap.selectors.registry import Row, selector


@selector(
    "cosine",
    summary="The language expert, with some safety where the two updates disagree in direction.",
    source="SafeMERGE, Djuhera et al. 2025, arXiv 2503.17239 (its test: see docs/methods.md)",
    parameters=(
        BY,
        Parameter("threshold", 0.35, "mix where the cosine is below", low=-1.0, high=1.0),
        replace(ALPHA, default=0.2, doc="safety's part where it is mixed"),
        replace(
            NORMS_PARAMETER, default="language", doc="norms of the layers; the source leaves them"
        ),
        replace(OUTSIDE_PARAMETER, default="language"),
        ROUTER_PARAMETER,
        SHARED_PARAMETER,
    ),
    resolve=by_granularity,
)
def cosine(
    profile: Profile,
    language: str,
    *,
    by: str,
    threshold: float,
    alpha: float,
    outside: str,
    **policies: Any,
) -> dict[str, Row]:
    """``(α, 1 − α)`` where ``cos(τ_safety, τ_language) < threshold``, else ``(0, 1)``.

    A unit that one of the experts left as it was has no direction; its cosine counts as 0.
    """
    profile = view(profile, by)
    found = unit_cosines(profile, language, by, policies["shared_experts"])
    choices = {k: UnitChoice("blend" if c < threshold else "language") for k, c in found.items()}
    rows = spread(profile, choices, Policies(by, **policies))
    return rows_of(profile, rows, outside, swaps(alpha))
