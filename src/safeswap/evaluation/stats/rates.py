"""Rates of one model: intervals that are never too narrow, and bounds for the unparsed."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safeswap.errors import EvaluationError

LEVEL = 0.95
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An interval, both ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __neg__(self) -> Interval:
        return Interval(-self.high, -self.low)

    def hull(self, other: Interval) -> Interval:
        """The smallest interval that holds both."""
        return Interval(min(self.low, other.low), max(self.high, other.high))

    @property
    def width(self) -> float:
        """Upper end less lower end."""
        return self.high - self.low


def load(module: str) -> Any:
    """A module of the extra ``eval``, or a message that says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise EvaluationError(
            f"the statistics need {package}, which cannot be imported ({error}); "
            "install it with: pip install 'safeswap[eval]'"
        ) from error


def wilson(k: float, n: float, level: float = LEVEL) -> Interval:
    """The Wilson score interval of a proportion, k of n (Wilson 1927).

    ``(p + z²/2n ± z √(p(1−p)/n + z²/4n²)) / (1 + z²/n)`` with ``p = k/n``: never of zero width,
    also at 0 and at n. k and n may be fractional (effective sizes). With n = 0 it is (0, 1).

    Raises:
        EvaluationError: not 0 ≤ k ≤ n, or level not between 0 and 1.
    """
    check_count(k, n)
    check_level(level)
    if n == 0:
        return Interval(0.0, 1.0)
    confint = load("statsmodels.stats.proportion").proportion_confint
    low, high = confint(k, n, alpha=1 - level, method="wilson")
    return Interval(
        0.0 if k == 0 else max(0.0, float(low)), 1.0 if k == n else min(1.0, float(high))
    )


@dataclass(frozen=True)
class Rate:
    """How many of those that could be read: k of n, and ``unparsed`` more that could not.

    Attributes:
        k: outcomes that are 1.
        n: outcomes that are 0 or 1; ``unparsed`` ones are not among them.
        unparsed: outcomes that could not be read, never counted as 0.
        level: of the interval.
        by_clusters: the interval where outcomes share clusters; None where each stands alone.
    """

    k: int
    n: int
    unparsed: int = 0
    level: float = LEVEL
    by_clusters: Interval | None = None

    def __post_init__(self) -> None:
        check_count(self.k, self.n)
        check_level(self.level)
        if self.unparsed < 0:
            raise EvaluationError(f"a count cannot be negative: {self.unparsed} unparsed")

    @classmethod
    def of(cls, outcomes: ArrayLike, level: float = LEVEL) -> Rate:
        """The rate of outcomes that are 0, 1 or nan, of any shape; nan is unparsed."""
        values = as_outcomes(outcomes, "the outcomes").ravel()
        unparsed = int(np.isnan(values).sum())
        return cls(int(np.nansum(values)), values.size - unparsed, unparsed, level)

    @property
    def total(self) -> int:
        """Number of outcomes, parsed or not."""
        return self.n + self.unparsed

    @property
    def value(self) -> float | None:
        """k/n, among the parsed; None when there are none."""
        return self.k / self.n if self.n else None

    @property
    def interval(self) -> Interval:
        """Among the parsed: Wilson's, or by clusters where outcomes share them."""
        return self.by_clusters or wilson(self.k, self.n, self.level)

    @property
    def bounds(self) -> Interval:
        """The rate if every unparsed outcome were 0, and if every one were 1."""
        if not self.total:
            return Interval(0.0, 1.0)
        return Interval(self.k / self.total, (self.k + self.unparsed) / self.total)

    def __str__(self) -> str:
        if self.value is None:
            return f"n/a (0 parsed, {self.unparsed} unparsed)"
        low, high = 100 * self.interval.low, 100 * self.interval.high
        text = f"{100 * self.value:.1f} % [{low:.1f}, {high:.1f}] ({self.k}/{self.n})"
        if not self.unparsed:
            return text
        low, high = 100 * self.bounds.low, 100 * self.bounds.high
        return f"{text}, {self.unparsed} unparsed: {low:.1f} to {high:.1f} %"


def as_outcomes(values: ArrayLike, name: str) -> Array:
    """The outcomes as float64 [n], each 0, 1 or nan."""
    try:
        outcomes = np.asarray(values, dtype=np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise EvaluationError(f"{name} are 0, 1 or nan, one number each: {error}") from error
    wrong = outcomes[~np.isnan(outcomes) & (outcomes != 0) & (outcomes != 1)]
    if wrong.size:
        raise EvaluationError(f"{name} are 0, 1 or nan (missing), not {wrong[0]:g}")
    return outcomes


def check_count(k: float, n: float) -> None:
    """Refuse what is no k of n."""
    if not 0 <= k <= n or not math.isfinite(n):
        raise EvaluationError(f"{k} of {n} is not a count: it must hold that 0 ≤ k ≤ n")


def check_level(level: float) -> None:
    """Refuse levels in per cent."""
    if not 0 < level < 1:
        raise EvaluationError(f"a level lies between 0 and 1 (0.95 is 95 %), not {level}")
