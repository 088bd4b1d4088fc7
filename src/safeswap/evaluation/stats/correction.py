"""The rate behind what an erring judge reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from safeswap.errors import EvaluationError
from safeswap.evaluation.stats.rates import LEVEL, Array, Interval, check_count, check_level
from safeswap.evaluation.stats.resampling import DRAWS, SEED, percentiles

Counts = tuple[float, float]


@dataclass(frozen=True)
class Corrected:
    """A rate corrected for a judge that errs, or the reason why it cannot be.

    Attributes:
        value: the corrected rate, within 0 and 1; None when it is not identifiable.
        unclipped: before it was cut to 0 and 1; a value far outside says the labels do not fit.
        interval: of the corrected rate, with the uncertainty of the labels in it.
        observed, sensitivity, specificity: what went in, as shares; None where nothing was counted.
        reason: why it is not identifiable; None when it is.
    """

    value: float | None
    unclipped: float | None
    interval: Interval | None
    observed: float | None
    sensitivity: float | None
    specificity: float | None
    reason: str | None = None


def rogan_gladen(
    observed: Counts,
    sensitivity: Counts,
    specificity: Counts,
    draws: int = DRAWS,
    seed: int = SEED,
    level: float = LEVEL,
) -> Corrected:
    """The rate that a judge with known errors would have to see to report the observed one.

    ``(p + specificity − 1) / (sensitivity + specificity − 1)`` (Rogan & Gladen 1978), cut to
    [0, 1]. Responses and labels are resampled together, each of the three rates from
    Beta(k + ½, n − k + ½): resampling the counts themselves would take 20 right of 20 labels for
    certainty. The interval is the middle ``level`` of the corrected draws.

    Not identifiable, with the reason: no response or no label of a class; a judge no better than
    chance (the denominator is not positive); or labels too few to show that it is better (the
    interval of the denominator holds 0); or labels that do not fit (the interval, before it is cut
    to 0 and 1, lies outside of them).

    Args:
        observed: (called positive, judged), the unparsed left out.
        sensitivity: (called positive, labelled positive); may be fractional effective counts.
        specificity: (called negative, labelled negative); likewise.

    Raises:
        EvaluationError: not 0 ≤ k ≤ n in one of them, or bad draws or level.
    """
    check_level(level)
    for k, n in (observed, sensitivity, specificity):
        check_count(k, n)
    rates = [k / n if n else None for k, n in (observed, sensitivity, specificity)]
    p, se, sp = rates
    if p is None or se is None or sp is None:
        missing = ("judged responses", "labels of the positive class", "labels of the other class")
        names = [name for name, rate in zip(missing, rates, strict=True) if rate is None]
        return Corrected(None, None, None, p, se, sp, _unknown(f"no {' and no '.join(names)}"))
    power, drawn = se + sp - 1, _beta_draws((observed, sensitivity, specificity), draws, seed)
    powers = drawn[1] + drawn[2] - 1
    reach = percentiles(powers, level)
    if power <= 0 or reach.low <= 0:
        cause = "the judge is no better than chance on the labels"
        if power > 0:
            cause = "there are too few labels to show that the judge is better than chance"
        figures = f"sensitivity + specificity − 1 is {reach.low:.2f} to {reach.high:.2f}"
        return Corrected(None, None, None, p, se, sp, _unknown(f"{cause} ({figures})"))
    usable = powers > 0
    corrected = (drawn[0][usable] + drawn[2][usable] - 1) / powers[usable]
    raw = (p + sp - 1) / power
    wide = percentiles(corrected, level)
    if wide.high < 0 or wide.low > 1:  # no rate there is explains labels and responses together
        cause = (
            "the labels do not fit the responses: the corrected rate would be "
            f"{100 * wide.low:.0f} to {100 * wide.high:.0f} %"
        )
        return Corrected(None, raw, None, p, se, sp, _unknown(cause))
    interval = percentiles(np.clip(corrected, 0, 1), level)
    return Corrected(min(1.0, max(0.0, raw)), raw, interval, p, se, sp)


def _unknown(cause: str) -> str:
    return f"not identifiable: {cause}"


def _beta_draws(counts: Sequence[Counts], draws: int, seed: int) -> list[Array]:
    if draws < 100:
        raise EvaluationError(f"{draws} draws are too few for an interval; use 1000 or more")
    generator = np.random.default_rng(seed)
    return [generator.beta(k + 0.5, n - k + 0.5, size=draws) for k, n in counts]
