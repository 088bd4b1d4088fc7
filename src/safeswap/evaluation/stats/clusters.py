"""The interval of a rate whose outcomes come in clusters: passages, prompts with translations."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from safeswap.evaluation.stats.rates import LEVEL, Array, Interval, wilson
from safeswap.evaluation.stats.resampling import DRAWS, percentiles, resampled_sums

FEW_CLUSTERS = 10
"""With fewer clusters than these apart from the rest, a bootstrap alone is too narrow."""


def clustered_interval(
    values: Array, clusters: Sequence[Hashable], level: float = LEVEL, seed: int = 0
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
