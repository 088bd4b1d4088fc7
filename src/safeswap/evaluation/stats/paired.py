"""Two models on the same prompts: the difference, and whether it stays within a margin."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safeswap.errors import EvaluationError
from safeswap.evaluation.stats.rates import (
    LEVEL,
    Array,
    Interval,
    as_outcomes,
    check_count,
    check_level,
    load,
)
from safeswap.evaluation.stats.resampling import DRAWS, SEED, percentiles, resampled_sums
from safeswap.evaluation.stats.significance import mcnemar_exact, sign_flip_exact

MARGIN = 0.02  # two points of ability
FEW_DISCORDANT = 10  # below this a percentile interval is too narrow to be used alone

Decision = Literal["non-inferior", "inferior", "undecided"]


def tango(only_a: int, only_b: int, n: int, level: float = LEVEL) -> Interval:
    """The score interval of a paired difference of proportions (Tango 1998).

    The differences Δ with ``|only_a − only_b − nΔ| ≤ z √(n (2q + Δ(1−Δ)))``, where q is the
    likeliest probability of "only b" under Δ. With no discordant pair it is ±z²/(n + z²), where a
    bootstrap would give zero width.

    Raises:
        EvaluationError: more discordant pairs than n, or n = 0.
    """
    check_count(only_a + only_b, n)
    check_level(level)
    if n == 0:
        raise EvaluationError("a paired difference needs at least one pair")
    z = float(load("scipy.stats").norm.ppf(0.5 + level / 2))
    observed = (only_a - only_b) / n

    def excess(delta: float) -> float:
        spread = n * (2 * _likeliest(only_a, only_b, n, delta) + delta * (1 - delta))
        return (only_a - only_b - n * delta) ** 2 - z * z * max(spread, 0.0)

    return Interval(_root(excess, observed, -1.0), _root(excess, observed, 1.0))


def _likeliest(only_a: int, only_b: int, n: int, delta: float) -> float:
    """The maximum-likelihood probability of "only b" when the difference is ``delta``."""
    middle = -only_a - only_b + (2 * n - only_a + only_b) * delta
    constant = -only_b * delta * (1 - delta)
    root = math.sqrt(max(0.0, middle * middle - 8 * n * constant))
    return max(0.0, (root - middle) / (4 * n), -delta)


def _root(excess: Callable[[float], float], inside: float, end: float) -> float:
    """Where ``excess`` turns positive between ``inside`` and ``end``; ``end`` if it never does."""
    if inside == end or excess(end) <= 0:
        return end
    for _ in range(80):
        middle = (inside + end) / 2
        inside, end = (middle, end) if excess(middle) <= 0 else (inside, middle)
    return inside


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus reference on the same prompts.

    Attributes:
        n: pairs used.
        dropped: pairs left out because either outcome was missing.
        clusters: clusters the pairs fall in; None when every pair stands for itself.
        candidate, reference: their means over the pairs used.
        difference: ``candidate − reference``.
        interval: of the difference; bootstrap, by clusters if there are any.
        only_candidate, only_reference: discordant pairs.
        p: of no difference, two-sided, uncorrected for other comparisons.
        test: which test gave p.
        widened: few pairs were discordant, and the interval was widened to hold Tango's.
        level: of the interval.
    """

    n: int
    dropped: int
    clusters: int | None
    candidate: float
    reference: float
    difference: float
    interval: Interval
    only_candidate: int
    only_reference: int
    p: float
    test: str
    widened: bool
    level: float = LEVEL


def paired_difference(
    candidate: ArrayLike,
    reference: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> PairedDifference:
    """The difference of two models' rates on the same prompts, its interval and its test.

    The interval is the percentile interval of a paired bootstrap (Efron 1979): whole pairs are
    drawn again, or whole clusters where ``clusters`` are given (Davison & Hinkley 1997, § 3.8),
    because the answers to one prompt in several languages, or to the questions on one passage, are
    not independent. With fewer than ``FEW_DISCORDANT`` discordant clusters a percentile interval is
    too narrow (of zero width with none), so it is widened to hold Tango's score interval over
    clusters, each counted whole where none is discordant, and the more there are the more as the
    most discordant one that was seen. The test is ``mcnemar_exact``, with clusters
    ``sign_flip_exact``.

    Args:
        candidate, reference: n outcomes each, 0, 1 or nan; a pair with a nan is dropped, counted.
        clusters: n names, such as the prompt id when languages are pooled.
        draws: bootstrap resamples; memory is draws × the kinds of cluster, not × the clusters.
        seed: of the resampling; the same inputs and seed give the same interval.
        level: of the two-sided interval.

    Raises:
        EvaluationError: other lengths, other outcomes, no pair left, or bad draws or level.
    """
    check_level(level)
    first, second = _pair(candidate, reference)
    if clusters is not None and len(clusters) != len(first):
        raise EvaluationError(
            f"{len(clusters)} cluster names for {len(first)} pairs; give one each"
        )
    kept = ~(np.isnan(first) | np.isnan(second))
    n = int(kept.sum())
    if n == 0:
        raise EvaluationError(
            f"no pair is left to compare: in all {len(first)} an outcome is missing; "
            "compare models that answered the same prompts"
        )
    deltas: Array = first[kept] - second[kept]
    only = int((deltas > 0).sum()), int((deltas < 0).sum())
    sums, sizes = _by_cluster(deltas, clusters, kept)
    up, down = int((sums > 0).sum()), int((sums < 0).sum())
    interval = _bootstrap(sums, sizes, draws, seed, level)
    widened = up + down < FEW_DISCORDANT
    if widened:
        scale = _pairs_per_cluster(sums, n, up + down) * len(sums) / n
        score = tango(up, down, len(sums), level)
        interval = interval.hull(Interval(score.low * scale, score.high * scale))
    return PairedDifference(
        n=n,
        dropped=len(first) - n,
        clusters=None if clusters is None else len(sums),
        candidate=float(first[kept].mean()),
        reference=float(second[kept].mean()),
        difference=(only[0] - only[1]) / n,
        interval=interval,
        only_candidate=only[0],
        only_reference=only[1],
        p=mcnemar_exact(*only) if clusters is None else sign_flip_exact(sums),
        test="exact McNemar" if clusters is None else "exact sign-flip over clusters",
        widened=widened,
        level=level,
    )


def _pairs_per_cluster(sums: NDArray[np.int64], n: int, discordant: int) -> float:
    """How many pairs a discordant cluster may stand for.

    All of a cluster when none is seen; then, evenly, down to the most that was seen when there are
    enough. One discordant pair is no proof that no cluster could have moved as a whole.
    """
    whole = n / len(sums)
    most = float(np.abs(sums).max()) or whole
    return most + max(0.0, whole - most) * (1 - discordant / FEW_DISCORDANT)


def extremes(
    candidate: ArrayLike,
    reference: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> tuple[PairedDifference, PairedDifference]:
    """The difference if all that is missing fell for the reference, and if it all fell against it.

    The lowest has every missing outcome of the candidate at 0 and of the reference at 1, the
    highest the other way round; nothing is dropped. Whatever the missing outcomes are, the
    difference lies between the two, and a difference that is significant in the same direction at
    both ends is so in between: each step towards an end weakens the evidence for the other.

    Args:
        candidate, reference, clusters, draws, seed, level: as `paired_difference` takes them.
    """
    first, second = _pair(candidate, reference)
    ends = [
        paired_difference(
            np.where(np.isnan(first), value, first),
            np.where(np.isnan(second), 1 - value, second),
            clusters,
            draws,
            seed,
            level,
        )
        for value in (0.0, 1.0)
    ]
    return ends[0], ends[1]


def _pair(candidate: ArrayLike, reference: ArrayLike) -> tuple[Array, Array]:
    first = as_outcomes(candidate, "the candidate's outcomes")
    second = as_outcomes(reference, "the reference's outcomes")
    if first.ndim != 1 or first.shape != second.shape:
        raise EvaluationError(
            f"paired outcomes are two lists of the same prompts in the same order; "
            f"these have shapes {first.shape} and {second.shape}"
        )
    return first, second


def _by_cluster(
    deltas: Array, clusters: Sequence[Hashable] | None, kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per cluster with a pair left: the sum of its differences, and its size."""
    if clusters is None:
        return deltas.astype(np.int64), np.ones(len(deltas), np.int64)
    numbers: dict[Hashable, int] = {}
    used = (name for name, keep in zip(clusters, kept, strict=True) if keep)
    held = [numbers.setdefault(name, len(numbers)) for name in used]
    sums = np.rint(np.bincount(held, weights=deltas)).astype(np.int64)
    return sums, np.bincount(held).astype(np.int64)


def _bootstrap(
    sums: NDArray[np.int64], sizes: NDArray[np.int64], draws: int, seed: int, level: float
) -> Interval:
    """The percentile interval of Σ sums / Σ sizes over clusters drawn with replacement."""
    drawn = resampled_sums(np.stack([sums, sizes], axis=1), draws, seed)
    return percentiles(drawn[:, 0] / drawn[:, 1], level)


@dataclass(frozen=True)
class NonInferiority:
    """Whether a candidate is no worse than a reference by more than a margin.

    Attributes:
        decision: "non-inferior" when the whole interval lies above −margin, "inferior" when it
            lies below, else "undecided", which is not evidence of being alike.
        margin: what may be lost, as a share (0.02 is two points).
        confidence: of the one-sided lower bound, 0.975 by default.
        paired: the difference the decision was read from.
    """

    decision: Decision
    margin: float
    confidence: float
    paired: PairedDifference


def non_inferiority(
    candidate: ArrayLike,
    reference: ArrayLike,
    margin: float = MARGIN,
    clusters: Sequence[Hashable] | None = None,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> NonInferiority:
    """Is the candidate's ability no more than ``margin`` below the reference's?

    The lower bound of ``candidate − reference`` is one-sided at (1 + level)/2, 97.5 % by default:
    the lower end of the two-sided 95 % interval of ``paired_difference`` (Piaggio et al. 2012).
    Outcomes count what is wanted: 1 is a right answer.

    Raises:
        EvaluationError: a margin that is not between 0 and 1; whatever ``paired_difference``
            refuses.
    """
    if not 0 < margin < 1:
        raise EvaluationError(f"the margin is a share between 0 and 1 (0.02 is 2 points): {margin}")
    paired = paired_difference(candidate, reference, clusters, draws, seed, level)
    decision: Decision = "undecided"
    if paired.interval.low > -margin:
        decision = "non-inferior"
    elif paired.interval.high < -margin:
        decision = "inferior"
    return NonInferiority(decision, margin, (1 + level) / 2, paired)
