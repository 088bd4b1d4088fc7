"""The interval of a rate whose outcomes come in clusters: passages, prompts with translations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from safeswap.evaluation.stats.rates import LEVEL, Array, Interval, Rate, as_outcomes, wilson
from safeswap.evaluation.stats.resampling import DRAWS, SEED, percentiles, resampled_sums

FEW_CLUSTERS = 10
"""With fewer clusters than these apart from the rest, a bootstrap alone is too narrow."""


def rate_by_clusters(
    outcomes: ArrayLike, clusters: Sequence[Hashable], level: float = LEVEL
) -> Rate:
    """The rate of outcomes that are 0, 1 or nan; its interval goes by clusters where they repeat.

    Args:
        outcomes: n values.
        clusters: n names: a passage with several questions, a prompt that several models answered.
        level: of the interval.
    """
    values = as_outcomes(outcomes, "the outcomes").ravel()
    read = ~np.isnan(values)
    rate = Rate.of(values, level)
    named = [name for name, kept in zip(clusters, read, strict=True) if kept]
    if len(set(named)) == len(named):
        return rate
    return replace(rate, by_clusters=clustered_interval(values[read], named, level))


def clustered_interval(
    values: Array, clusters: Sequence[Hashable], level: float = LEVEL, seed: int = SEED
) -> Interval:
    """Of a rate over outcomes that share clusters: answers to one prompt are no separate draws.

    Bootstrap over whole clusters. Where few clusters differ from the rest it is too narrow (of no
    width where all outcomes are alike), and is widened to hold Wilson's for as many draws as there
    are clusters.

    Args:
        values: n outcomes, 0 or 1.
        clusters: n names.
        level: of the interval.
        seed: of the drawing.
    """
    held: dict[Hashable, list[float]] = {}
    for name, value in zip(clusters, values, strict=True):
        held.setdefault(name, []).append(float(value))
    units = np.array([(sum(found), len(found)) for found in held.values()], dtype=np.int64)
    drawn = resampled_sums(units, DRAWS, seed)
    interval = percentiles(drawn[:, 0] / drawn[:, 1], level)
    ones, zeros = (units[:, 0] > 0).sum(), (units[:, 0] < units[:, 1]).sum()
    if min(ones, zeros) < FEW_CLUSTERS:
        share = units[:, 0].sum() / units[:, 1].sum()
        interval = interval.hull(wilson(float(share) * len(held), len(held), level))
    return interval
