"""What an attribution is asked for: its settings with their limits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from safeswap.errors import PlanError, nearest
from safeswap.profile.attribution import GRANULARITIES


@dataclass(frozen=True, slots=True)
class AttributionSettings:
    """How it is measured.

    Attributes:
        by: what a unit is: ``layer``, ``module`` (an attention, an MLP) or ``head`` (a group of
            heads, an MLP).
        points: between the language expert and full addition, at which gradients are taken.
        limit: texts of each kind, at most.
        batch: requests or answers that are run together.
        seed: of which texts are taken, where there are more.
    """

    by: str = "module"
    points: int = 4
    limit: int = 100
    batch: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            PlanError: names the setting and its limits.
        """
        if self.by not in GRANULARITIES:
            raise PlanError(f"--by {self.by!r} is unknown{nearest(self.by, GRANULARITIES)}")
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise PlanError(f"--{name} {value:g}: from {low} to {high}.")

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for records."""
        return asdict(self)


_LIMITS = (
    ("points", 1, 64),
    ("limit", 1, 100_000),
    ("batch", 1, 1024),
    ("seed", 0, 2**31 - 1),
)
