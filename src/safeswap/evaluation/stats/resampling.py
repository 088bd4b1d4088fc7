"""The bootstrap: units drawn again with replacement, in bounded memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from safeswap.errors import EvaluationError
from safeswap.evaluation.stats.rates import Interval

DRAWS = 10_000
SEED = 0
_PIECE = 2_000_000  # counts drawn at once: 16 MB


def resampled_sums(units: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.int64]:
    """Sums over units drawn again with replacement, as many as there are.

    Equal units are alike, so how often each kind is drawn is multinomial: the same distribution as
    drawing one by one, at a fraction of the work, and in pieces, so that memory stays bounded.

    Args:
        units: units × columns of counts.
        draws: how many times.
        seed: of the drawing.

    Returns:
        draws × columns.
    """
    if draws < 100:
        raise EvaluationError(f"{draws} bootstrap draws are too few for an interval; use 1000 up")
    kinds, counts = np.unique(units, axis=0, return_counts=True)
    generator, total = np.random.default_rng(seed), len(units)
    piece = max(1, _PIECE // len(kinds))
    pieces = [
        generator.multinomial(total, counts / total, size=min(piece, draws - start)) @ kinds
        for start in range(0, draws, piece)
    ]
    return np.concatenate(pieces)


def percentiles(values: ArrayLike, level: float) -> Interval:
    """The middle ``level`` of the values that are not nan."""
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(np.asarray(values, float), [tail, 100 - tail])
    return Interval(float(low), float(high))
