"""What difference a comparison could have shown: the power of the exact test of McNemar."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from safeswap.errors import EvaluationError
from safeswap.evaluation.stats.rates import load

POWER = 0.8
_STEP = 0.001


@lru_cache(maxsize=256)
def detectable_difference(
    n: int, other_way: float, alpha: float = 0.05, power: float = POWER
) -> float | None:
    """The smallest true difference that n pairs show four times in five, as a share.

    Exact: the number of discordant pairs is Binomial(n, gain + loss), and of those the test of
    `mcnemar_exact` at ``alpha`` must find too few that went the other way. The p-values of fewer
    discordant pairs than it needs are never significant.

    Args:
        n: pairs (clusters, where pairs share them).
        other_way: the share of pairs that differ against the direction of the difference.
        alpha: what p must be below; divide by the number of comparisons for the smallest of Holm's.
        power: how often it must show.

    Returns:
        In steps of a tenth of a point; None where no difference is large enough.
    """
    if n < 1 or not 0 <= other_way < 1:
        raise EvaluationError(
            f"{n} pairs of which {other_way:g} differ against it: give at least one pair and a "
            "share below 1"
        )
    binom = load("scipy.stats").binom
    totals = np.arange(n + 1)
    # how many of each number of discordant pairs may go the other way: 2 P(X <= k) < alpha
    most = binom.ppf(alpha / 2, totals, 0.5).astype(int)
    most = np.where(2 * binom.cdf(most, totals, 0.5) < alpha, most, most - 1)

    def shown(difference: float) -> float:
        either = min(1.0, 2 * other_way + difference)
        against = other_way / either if either else 0.0
        return float(binom.pmf(totals, n, either) @ binom.cdf(most, totals, against))

    low, high = 0, int((1 - 2 * other_way) / _STEP)
    if high < 1 or shown(high * _STEP) < power:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle * _STEP) >= power else (middle, high)
    return high * _STEP
