"""How certain a decision is that was made from a sample of the weights.

A difference of shares d(u) is a smooth function of totals: of ‖W_base‖² and ‖τ_e‖² of every
projection. Its error is, to first order, the sum of the totals' errors times d's derivatives
(linearisation, as for ratio estimators in survey sampling: Cochran, Sampling Techniques, 3rd ed.,
6.3 and 5A). Tensors are drawn from apart, so their variances add; within a tensor the blocks are a
simple random sample without replacement: v = N² (1 − k/N) s² / k, with s² the variance of the
linearised blocks. The quantile is Student's, with Satterthwaite's degrees of freedom.

Rows that training moved most make the tails heavy, and a sample that has not met such a row yet
shows too little variance. So s² is taken as if one more block had been drawn, ``FARTHER`` times as
far from the mean as the farthest that was. benchmarks/sample.py shows what that keeps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from safeswap.profile import Interval
from safeswap.profile.sample import FamilySample, Floats, TensorSample
from safeswap.roles import BASE, SAFETY
from safeswap.selectors.common import SAMPLED, keys_of
from safeswap.selectors.share_difference import SMALL_NORM, SMALL_TOTAL

FARTHER = 1.5
_AS_NORMAL = 2000
"""Degrees of freedom from which on Student's t is the normal distribution, to 0.3 %."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True)
class Estimate:
    """Differences of shares with what their errors are made of.

    Attributes:
        keys: what is decided: units or layer numbers.
        names: the projections that take part.
        difference: float64 [keys].
        variances: float64 [keys, names]: what a tensor adds to a key's variance.
        freedom: float64 [names]: blocks read, less one.
    """

    keys: tuple[str, ...]
    names: tuple[str, ...]
    difference: Floats
    variances: Floats
    freedom: Floats

    def intervals(self, error: float) -> dict[str, Interval]:
        """Key → the interval that misses the true difference with a probability of ``error``."""
        total = self.variances.sum(axis=1)
        squares = (self.variances**2 / self.freedom).sum(axis=1)
        found = {}
        for key, difference, variance, square in zip(
            self.keys, self.difference, total, squares, strict=True
        ):
            half = 0.0
            if variance > 0:
                half = student(error, max(1.0, variance**2 / square)) * math.sqrt(variance)
            found[key] = Interval(
                float(difference), float(difference - half), float(difference + half)
            )
        return found


def estimate(sample: FamilySample, language: str, by: str) -> Estimate:
    """The differences of shares of safety and a language that a sample gives.

    Args:
        by: ``module`` or ``layer``; the statistics are those of ``share-difference``.
    """
    placements = sample.family.anatomy.placements
    groups = keys_of(sample.family.anatomy.units, by)
    key_of = {unit: number for number, units in enumerate(groups.values()) for unit in units}
    names = tuple(
        name
        for name in sample.tensors
        if placements[name].role == "projection" and placements[name].unit in key_of
    )
    member = np.zeros((len(groups), len(names)))
    for column, name in enumerate(names):
        member[key_of[placements[name].unit], column] = 1.0
    sides = [_side(sample, names, expert, member, by) for expert in (SAFETY, language)]
    gradients = sides[0].gradient, -sides[1].gradient
    variances = np.empty_like(member)
    for column, name in enumerate(names):
        blocks = np.stack([_linear(sample.tensors[name], side, column) for side in sides])
        spread = np.stack([gradients[0][:, column], gradients[1][:, column]], axis=1) @ blocks
        variances[:, column] = _variance(spread, sample.tensors[name].blocks)
    freedom = np.array([max(1, len(sample.tensors[name].values) - 1) for name in names], float)
    return Estimate(tuple(groups), names, sides[0].share - sides[1].share, variances, freedom)


@dataclass(frozen=True)
class _Side:
    """One expert: its shares [keys], their derivatives by each r² [keys, names], and what r² of
    a tensor is made of: totals of ‖τ‖² and ‖W_base‖² [names].
    """

    expert: str
    share: Floats
    gradient: Floats
    moved: Floats
    base: Floats


def _side(
    sample: FamilySample, names: tuple[str, ...], expert: str, member: Floats, by: str
) -> _Side:
    totals = [
        dict(zip(s.pairs, s.totals(), strict=True)) for s in map(sample.tensors.get, names) if s
    ]
    moved = np.array([float(t[expert, expert]) for t in totals])
    base = np.array([float(t[BASE, BASE]) for t in totals])
    squares = moved / np.where(base > SMALL_NORM**2, base, 1.0)  # r² of relative_update
    roots = np.sqrt(squares)
    if by == "layer":
        statistic = member @ roots
        slope = member * _half_over(roots)
    else:
        statistic = np.sqrt(member @ squares)
        slope = member * _half_over(statistic)[:, None]
    total = float(statistic.sum()) + SMALL_TOTAL
    share = statistic / total
    gradient = (slope - share[:, None] * slope.sum(axis=0)) / total
    return _Side(expert, share, gradient, moved, base)


def _half_over(values: Floats) -> Floats:
    """1 / (2 v), and 0 where v is: what did not move at all in the sample has no slope."""
    found: Floats = np.divide(0.5, values, out=np.zeros_like(values), where=values > 0)
    return found


def _linear(sample: TensorSample, side: _Side, column: int) -> Floats:
    """Every read block's part in the error of r², float64 [blocks]."""
    place = {pair: number for number, pair in enumerate(sample.pairs)}
    moved = sample.values[:, place[side.expert, side.expert]]
    base = side.base[column]
    if base <= SMALL_NORM**2:
        return moved
    ratio = side.moved[column] / base
    found: Floats = (moved - ratio * sample.values[:, place[BASE, BASE]]) / base
    return found


def _variance(blocks: Floats, count: int) -> Floats:
    """The variance of N times the mean, for every row of float64 [keys, blocks]; float64 [keys]."""
    read = blocks.shape[1]
    if read == count:
        return np.zeros(len(blocks))
    away = np.abs(blocks - blocks.mean(axis=1, keepdims=True))
    squares = (away**2).sum(axis=1) + (FARTHER * away.max(axis=1)) ** 2
    found: Floats = count**2 * (1 - read / count) * squares / (read - 1) / read
    return found


def student(error: float, freedom: float) -> float:
    """The two-sided quantile of Student's t: |t| exceeds it with a probability of ``error``.

    With t = √ν tan φ the density is that of cosᵛ⁻¹ φ, whose tail is integrated (Gauss-Legendre)
    and inverted by bisection.
    """
    if freedom > _AS_NORMAL:
        return -NormalDist().inv_cdf(error / 2)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        half = (min(math.pi / 2, middle + 15 / math.sqrt(freedom)) - middle) / 2
        angles = middle + half * (1 + _NODES)
        tail = 2 * scale * half * float(_WEIGHTS @ np.cos(angles) ** (freedom - 1))
        low, high = (middle, high) if tail > error else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def intervals_of(
    sample: FamilySample, error: float
) -> Mapping[str, Mapping[str, Mapping[str, Interval]]]:
    """Language → granularity → key → interval, of all differences of shares.

    Args:
        error: the probability that one or more intervals of a language and granularity miss
            (Bonferroni's bound over its keys).
    """
    table: dict[str, dict[str, dict[str, Interval]]] = {}
    for language in sample.family.languages:
        table[language] = {}
        for by in SAMPLED:
            found = estimate(sample, language, by)
            table[language][by] = found.intervals(error / max(1, len(found.keys)))
    return table
