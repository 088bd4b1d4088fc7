"""Tests of a paired difference, and what makes several p-values readable together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from safeswap.errors import EvaluationError
from safeswap.evaluation.stats.rates import Array, load


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """The two-sided p-value of the exact test of McNemar (1947) on the discordant pairs.

    Under no difference ``only_a ~ Binomial(only_a + only_b, ½)``; p is twice the smaller tail, at
    most 1, and 1 when no pair is discordant.

    Raises:
        EvaluationError: a negative or fractional count.
    """
    for count in (only_a, only_b):
        if count < 0 or count != int(count):
            raise EvaluationError(f"discordant pairs are counted: {count} is not a count")
    n = int(only_a + only_b)
    if n == 0:
        return 1.0
    return float(load("scipy.stats").binomtest(int(only_a), n, 0.5).pvalue)


def sign_flip_exact(sums: Iterable[int]) -> float:
    """The two-sided p-value of the exact sign-flip test over clusters (Fisher 1935, § 21).

    ``sums`` holds, per cluster, the sum of its differences D_c. If the two models are alike, which
    of them is called the candidate is arbitrary in every cluster, and ``T = Σ ±D_c`` with free
    signs; p is the share of the 2^G assignments with ``|T|`` at least the observed one. It is
    counted, not sampled: the D_c are integers, so T is a sum of scaled binomials whose
    distribution is a convolution. With clusters of one pair it is exactly ``mcnemar_exact``.

    Raises:
        EvaluationError: a sum that is not a whole number.
    """
    values = [int(value) for value in _whole(sums)]
    repeats = Counter(abs(value) for value in values if value)
    observed, reach = abs(sum(values)), sum(size * count for size, count in repeats.items())
    if observed == 0:
        return 1.0
    binom = load("scipy.stats").binom
    mass: Array = np.ones(1)  # of X = Σ size · Binomial(count, ½); T = 2X − reach
    for size, count in sorted(repeats.items()):
        step = np.zeros(size * count + 1)
        step[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        mass = np.convolve(mass, step)
    position = np.abs(2 * np.arange(reach + 1) - reach)
    return float(min(1.0, mass[position >= observed].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several, in the order given (Holm 1979).

    The i-th smallest of m is multiplied by m − i + 1, made not to fall, and cut at 1: the chance
    of any false claim among them stays below the level at which they are read.

    Raises:
        EvaluationError: a p-value that is not between 0 and 1.
    """
    values = [float(p) for p in p_values]
    for p in values:
        if not 0 <= p <= 1:
            raise EvaluationError(f"{p} is not a p-value; leave out comparisons without one")
    if not values:
        return []
    multipletests = load("statsmodels.stats.multitest").multipletests
    return [float(p) for p in multipletests(values, method="holm")[1]]


def _whole(sums: Iterable[int]) -> list[int]:
    values = list(sums)
    for value in values:
        if value != int(value):
            raise EvaluationError(f"differences of counts are whole numbers, not {value}")
    return values
