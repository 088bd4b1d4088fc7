"""What a fit is asked for: its settings with their limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from safeswap.errors import PlanError, nearest

GROUPS = ("module", "layer")


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How coefficients are fitted.

    Attributes:
        by: what shares its two weights: ``module`` (an attention, an MLP) or ``layer`` (both).
        steps: of the optimiser (Adam).
        rate: its step length, in units of a weight.
        batch: texts of each kind per step.
        high: weights lie between 0 and this.
        start_safety, start_language: both weights of every unit before the first step.
        margin: log-odds of refusing, nats, beyond which a harmful request counts no more.
        keep: nats of refusal that the language expert's whole gain is worth.
        spend: share of the gain that may be lost before it counts.
        over: how many nats of refusal a nat of refusing harmless requests is worth.
        seed: of the order in which texts are taken.
    """

    by: str = "module"
    steps: int = 50
    rate: float = 0.06
    batch: int = 8
    high: float = 1.5
    start_safety: float = 0.6
    start_language: float = 0.8
    margin: float = 6.0
    keep: float = 6.0
    spend: float = 0.3
    over: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            PlanError: names the setting and its limits.
        """
        if self.by not in GROUPS:
            raise PlanError(f"--by {self.by!r} is unknown{nearest(self.by, GROUPS)}")
        for name, low, high in _LIMITS:
            value = getattr(self, name)
            if not low <= value <= high:  # not a number is in no limits
                raise PlanError(f"{option_of(name)} {value:g}: from {low:g} to {high:g}.")
        if max(self.start_safety, self.start_language) > self.high:
            raise PlanError(
                f"--start lies above --high {self.high:g}. Give a smaller start or a larger --high."
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for plans and records."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> FitSettings:
        """The settings from what ``as_dict`` gave.

        Raises:
            PlanError: an unknown name, with the nearest.
        """
        known = [field.name for field in fields(cls)]
        for name in given:
            if name not in known:
                raise PlanError(f"a fit has no setting {name!r}{nearest(name, known)}")
        return cls(**given)


_LIMITS = (
    ("steps", 1, 10_000),
    ("rate", 1e-4, 1.0),
    ("batch", 1, 1024),
    ("high", 0.1, 10.0),
    ("start_safety", 0.0, 10.0),
    ("start_language", 0.0, 10.0),
    ("margin", -10.0, 13.0),
    ("keep", 0.0, 1e4),
    ("spend", 0.0, 1.0),
    ("over", 0.0, 1e4),
    ("seed", 0, 2**31 - 1),
)


def option_of(name: str) -> str:
    """A setting as the command line writes it; both weights of the start are one option."""
    if name.startswith("start_"):
        return "--start"
    return "--" + name.replace("_", "-")
