"""Rates, paired differences and corrections: every figure of a table comes from here.

Outcomes are 0 or 1 per prompt (unsafe or not, right or not) and nan where there is none, because
the answer was never given or could not be parsed. Nothing missing is counted as safe or as right:
it is counted, and shown. ``docs/statistics.md`` says what each figure means, and which test is
primary.
"""

from safeswap.evaluation.stats.clusters import clustered_interval, rate_by_clusters
from safeswap.evaluation.stats.correction import Corrected, rogan_gladen
from safeswap.evaluation.stats.paired import (
    FEW_DISCORDANT,
    MARGIN,
    Decision,
    NonInferiority,
    PairedDifference,
    extremes,
    non_inferiority,
    paired_difference,
    tango,
)
from safeswap.evaluation.stats.power import POWER, detectable_difference
from safeswap.evaluation.stats.rates import LEVEL, Interval, Rate, load, wilson
from safeswap.evaluation.stats.resampling import DRAWS, SEED, percentiles, resampled_sums
from safeswap.evaluation.stats.significance import holm, mcnemar_exact, sign_flip_exact

__all__ = [
    "DRAWS",
    "FEW_DISCORDANT",
    "LEVEL",
    "MARGIN",
    "POWER",
    "SEED",
    "Corrected",
    "Decision",
    "Interval",
    "NonInferiority",
    "PairedDifference",
    "Rate",
    "clustered_interval",
    "detectable_difference",
    "extremes",
    "holm",
    "load",
    "mcnemar_exact",
    "non_inferiority",
    "paired_difference",
    "percentiles",
    "rate_by_clusters",
    "resampled_sums",
    "rogan_gladen",
    "sign_flip_exact",
    "tango",
    "wilson",
]
