"""Where two experts collide: read off the profile, without running a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from safeswap.profile import Profile, TensorProfile
from safeswap.roles import SAFETY
from safeswap.selectors.share_difference import module_shares

AGAINST = -0.1
"""Cosine of two task vectors below which they point against each other. Vectors that have nothing
to do with each other come within a few hundredths of 0."""
_NOTHING = 1e-30


@dataclass(frozen=True, slots=True)
class UnitCollision:
    """One attention or MLP.

    Attributes:
        unit: its name.
        safety, language: its share in each expert's whole update, 0 to 1.
        cosine: of both task vectors over its projections, −1 to 1; 0 where one does not move.
        collides: both experts move it at least as much as their mean unit, against each other.
    """

    unit: str
    safety: float
    language: float
    cosine: float
    collides: bool


def collisions(profile: Profile, language: str) -> tuple[UnitCollision, ...]:
    """Every attention and MLP: how much of each expert's update lies there, and how they point.

    Shares are those of the paper's rule by module (relative norms, normed to 1). The cosine is
    Σ⟨τ_safety, τ_language⟩ / √(Σ‖τ_safety‖² Σ‖τ_language‖²) over the unit's projections. A unit
    collides where both shares are at least 1 / units and the cosine is below ``AGAINST``.
    """
    shares = module_shares(profile, language)
    found = []
    for unit, (safety, spoken) in shares.items():
        tensors = [t for t in profile.by_unit[unit] if t.role == "projection"]
        cosine = _cosine(tensors, language)
        mean = 1 / len(shares)
        collides = min(safety, spoken) >= mean and cosine < AGAINST
        found.append(UnitCollision(unit, safety, spoken, cosine, collides))
    return tuple(found)


def _cosine(tensors: list[TensorProfile], language: str) -> float:
    inner = math.fsum(t.inner[language] for t in tensors)
    norms = [math.fsum(t.update_norm[e] ** 2 for t in tensors) for e in (SAFETY, language)]
    product = math.sqrt(norms[0] * norms[1])
    return inner / product if product > _NOTHING else 0.0
