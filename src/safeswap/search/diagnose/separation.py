"""How well two kinds of texts separate in a model's states, layer by layer; arithmetic only.

States are arrays float32 (layers, texts, width). The direction that tells harmful requests from
harmless ones is the difference of their means, layer by layer (Arditi et al., "Refusal in language
models is mediated by a single direction", NeurIPS 2024, arXiv 2406.11717). A text's score is its
state's inner product with the direction; the AUC is the probability that a harmful text's score is
above a harmless one's, ties counted half (Mann and Whitney): 0.5 tells nothing, 1 all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from safeswap.evaluation.stats import percentiles

Array = np.ndarray[Any, Any]
DRAWS = 1000
"""Of the bootstrap: texts of either kind drawn again, the direction as it was learnt."""
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval at ``LEVEL`` (percentiles of the bootstrap over texts)."""

    value: float
    low: float
    high: float


def direction(harmful: Array, harmless: Array) -> Array:
    """Difference of means, float64 (layers, width)."""
    found: Array = harmful.mean(1, dtype=np.float64) - harmless.mean(1, dtype=np.float64)
    return found


def cosines(one: Array, other: Array) -> Array:
    """Cosine of two directions in each layer, float64 (layers,); 0 where one of them is zero."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    found: Array = (one * other).sum(1) / np.where(norms > 0, norms, 1)
    return found


def transferred(learnt: Array, harmful: Array, harmless: Array, seed: int) -> list[Estimate]:
    """AUC of other texts by a direction that was learnt elsewhere, for each layer."""
    return _estimates([_wins(learnt, harmful, harmless)], seed)


def separated(harmful: Array, harmless: Array, seed: int) -> list[Estimate]:
    """AUC of each half of the texts by the direction learnt on the other, averaged, per layer."""
    ours, theirs = halves(harmful.shape[1], seed), halves(harmless.shape[1], seed + 1)
    folds = [
        _wins(
            direction(harmful[:, ours[1 - side]], harmless[:, theirs[1 - side]]),
            harmful[:, ours[side]],
            harmless[:, theirs[side]],
        )
        for side in (0, 1)
    ]
    return _estimates(folds, seed)


def agreement(harmful: Array, harmless: Array, seed: int) -> Array:
    """Cosine of the directions of both halves of the texts, per layer, float64 (layers,).

    Cosines with other directions are not to be expected above it: so far the texts determine one.
    """
    ours, theirs = halves(harmful.shape[1], seed), halves(harmless.shape[1], seed + 1)
    learnt = [direction(harmful[:, ours[n]], harmless[:, theirs[n]]) for n in (0, 1)]
    return cosines(*learnt)


def halves(count: int, seed: int) -> tuple[Array, Array]:
    """Places of a random half of the texts, and of the rest; each sorted."""
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


def auc(positive: Sequence[float] | Array, negative: Sequence[float] | Array) -> float:
    """Probability that one of the first is above one of the second, ties counted half."""
    return float(_compared(np.asarray(positive, float), np.asarray(negative, float)).mean())


def auc_of_scores(positive: Array, negative: Array, seed: int) -> Estimate:
    """The same with its interval."""
    (found,) = _estimates([_compared(positive, negative)[None]], seed)
    return found


def mean_of(values: Array, seed: int) -> Estimate:
    """A mean over texts with its interval."""
    weights = _drawn(len(values), np.random.default_rng(seed))
    return _estimate(float(values.mean()), weights @ values)


def difference_of(one: Array, other: Array, seed: int) -> Estimate:
    """Mean of the first less mean of the second, with its interval."""
    chance = np.random.default_rng(seed)
    drawn = _drawn(len(one), chance) @ one - _drawn(len(other), chance) @ other
    return _estimate(float(one.mean() - other.mean()), drawn)


def _wins(learnt: Array, harmful: Array, harmless: Array) -> Array:
    """Whether a harmful text scores above a harmless one, float64 (layers, harmful, harmless)."""
    ours, theirs = (np.einsum("ltw,lw->lt", states, learnt) for states in (harmful, harmless))
    return np.stack([_compared(*pair) for pair in zip(ours, theirs, strict=True)])


def _compared(positive: Array, negative: Array) -> Array:
    """1 where above, 0.5 where equal, 0 below; float64 (positive, negative)."""
    apart = positive[:, None] - negative[None, :]
    found: Array = (apart > 0) + 0.5 * (apart == 0)
    return found


def _estimates(folds: Sequence[Array], seed: int) -> list[Estimate]:
    """Mean AUC of the folds per layer; texts are drawn again in each fold by itself."""
    chance = np.random.default_rng(seed)
    weights = [[_drawn(count, chance) for count in wins.shape[1:]] for wins in folds]
    found = []
    for layer in range(len(folds[0])):
        drawn = [
            ((ours @ wins[layer]) * theirs).sum(1)
            for wins, (ours, theirs) in zip(folds, weights, strict=True)
        ]
        value = float(np.mean([wins[layer].mean() for wins in folds]))
        found.append(_estimate(value, np.mean(drawn, axis=0)))
    return found


def _drawn(count: int, chance: np.random.Generator) -> Array:
    """Weights of texts drawn again with replacement, float64 (draws, texts), each row sums to 1."""
    found: Array = chance.multinomial(count, np.full(count, 1 / count), size=DRAWS) / count
    return found


def _estimate(value: float, drawn: Array) -> Estimate:
    found = percentiles(drawn, LEVEL)
    return Estimate(value, min(value, found.low), max(value, found.high))
