"""``base + Σ w · (expert − base)``, reduced to what has to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safeswap.checkpoint.family import BASE

_SUMS_TO_ONE = 1e-9


@dataclass(frozen=True, slots=True)
class Recipe:
    """Which members of the family are read for a unit, and with which coefficients.

    A single term with coefficient exactly 1 is a copy.
    """

    terms: tuple[tuple[str, float], ...]

    @property
    def copied(self) -> str | None:
        """The role whose bytes are the result, or None when there is something to compute."""
        if len(self.terms) == 1 and self.terms[0][1] == 1.0:
            return self.terms[0][0]
        return None


def linear(weights: Mapping[str, float]) -> Recipe:
    """The recipe of a unit from the weights of the experts' task vectors.

    ``base + Σ w_e (W_e − base) = (1 − Σ w_e) · base + Σ w_e W_e``: a weight of 0 is never read, and
    weights that sum to 1 (within 1e-9) need no base.
    """
    terms = tuple((expert, float(w)) for expert, w in weights.items() if w != 0.0)
    rest = 1.0 - sum(weight for _, weight in terms)
    if abs(rest) > _SUMS_TO_ONE or not terms:
        terms = ((BASE, rest), *terms)
    return Recipe(terms)
