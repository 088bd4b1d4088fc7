"""A profile from a sample, read on where a decision is not yet certain.

The first reading takes the same part of every tensor. Then, round after round, the tensors that
make an uncertain difference of shares uncertain are read twice as far, until every decision is
certain or the budget is spent. Looking several times is paid for: each round gets its part of the
error that the confidence leaves (Bonferroni), so that the statement made at the end holds whenever
the reading stopped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from safeswap.checkpoint.family import Family
from safeswap.errors import ConfigError, nearest
from safeswap.profile import Interval, Profile, Sample
from safeswap.profile.sample import FEWEST, FamilySample
from safeswap.selectors.certainty import estimate, intervals_of
from safeswap.selectors.common import GRANULARITIES, SAMPLED, keys_of

FIRST = 0.01
"""The part of the weights that is read at first where no budget says less."""
_MATTERS = 0.02
"""A tensor that makes less of a variance than this part is not worth reading further for it."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a sample shall do.

    Attributes:
        budget: the part of all weights that may be read (0 to 1); None for as much as it takes.
        confidence: with which the decisions, and all intervals together, shall be right.
        until_certain: read on until every decision is certain (up to the budget).
        by, tau, tau_relative: the decisions that are asked for, as of ``share-difference``.
        seed: another seed draws other blocks.
    """

    budget: float | None = None
    confidence: float = 0.99
    until_certain: bool = False
    by: str = "module"
    tau: float = 0.001
    tau_relative: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ConfigError: names the option.
        """
        if self.budget is not None and not 0 < self.budget <= 1:
            raise ConfigError(
                f"--budget {self.budget:.3g}: is a part of all weights, above 0 and up to 100%, "
                "e.g. 2%."
            )
        if self.by not in GRANULARITIES:
            raise ConfigError(f"--by {self.by!r}: is unknown{nearest(self.by, GRANULARITIES)}")
        if self.by not in SAMPLED:
            raise ConfigError(
                f"--by {self.by}: a sample decides by {' or '.join(SAMPLED)}. Run safeswap profile "
                "without --budget and --until-certain: all weights serve every granularity."
            )
        if not 0 <= self.tau < math.inf:
            raise ConfigError(f"--tau {self.tau:g}: is a difference of shares, 0 or more.")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(
                f"--until-certain {self.confidence:.3g}: is a confidence from 50% to below 100%, "
                "e.g. 99%."
            )

    @property
    def first(self) -> float:
        """The part of the first reading: half of a budget, the rest goes where it is needed."""
        return FIRST if self.budget is None else min(FIRST, self.budget / 2)


def sample_family(
    family: Family,
    wish: Wish,
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Profile:
    """A profile of estimates, with intervals for every difference of shares.

    Args:
        workers: threads; the result does not depend on it.
        advance: told how many bytes were read.

    Raises:
        CheckpointError: a weight that is NaN or infinite, a read that fails.
    """
    sample = FamilySample(family, wish.seed)
    sample.read_rests(workers=workers)
    wanted = {name: _at_first(sample, wish, name) for name in sample.tensors}
    sample.grow(wanted, workers=workers, advance=advance)
    rounds = _rounds(sample)
    error = (1 - wish.confidence) / (rounds + 1)
    for number in range(1, rounds + 1):
        wanted = _further(sample, wish, error, times=1 << number, last=number == rounds)
        sample.grow(wanted, workers=workers, advance=advance)
    return sample.profile(
        Sample(
            seed=wish.seed,
            bytes_read=sample.nbytes,
            bytes_all=sample.all_bytes,
            confidence=wish.confidence,
            read={n: t.read / t.elements if t.elements else 1.0 for n, t in sample.tensors.items()},
            intervals=intervals_of(sample, error),
        )
    )


def threshold(tau: float, tau_relative: bool, keys: int) -> float:
    """The threshold on a difference of shares where so many keys are decided."""
    return tau / max(1, keys) if tau_relative else tau


def _rounds(sample: FamilySample) -> int:
    """After how many doublings all is read."""
    parts = [
        tensor.blocks / len(tensor.values) for tensor in sample.tensors.values() if tensor.blocks
    ]
    return math.ceil(math.log2(max(parts, default=1.0)))


def _at_first(sample: FamilySample, wish: Wish, name: str) -> int:
    return max(FEWEST, math.ceil(wish.first * sample.tensors[name].blocks))


def _further(
    sample: FamilySample, wish: Wish, error: float, *, times: int, last: bool
) -> dict[str, int]:
    """Tensor → blocks that the next round shall have; empty where all is certain or spent.

    Args:
        times: how much more than at first. A tensor that matters late comes up with the others.
        last: read all of whatever adds to an uncertain difference.
    """
    shares: dict[str, float] = {}
    keys = len(keys_of(sample.family.anatomy.units, wish.by))
    tau = threshold(wish.tau, wish.tau_relative, keys)
    for language in sample.family.languages:
        found = estimate(sample, language, wish.by)
        intervals = found.intervals(error / max(1, keys))
        for row, key in enumerate(found.keys):
            if intervals[key].certain(tau):
                continue
            total = found.variances[row].sum()
            for name, variance in zip(found.names, found.variances[row], strict=True):
                shares[name] = max(shares.get(name, 0.0), float(variance / total))
    wanted = {
        name: sample.tensors[name].blocks if last else times * _at_first(sample, wish, name)
        for name, share in shares.items()
        if share >= _MATTERS or (last and share)
    }
    return wanted if wish.budget is None else _within(sample, wish.budget, wanted, shares)


def _within(
    sample: FamilySample, budget: float, wanted: Mapping[str, int], shares: Mapping[str, float]
) -> dict[str, int]:
    """As much of it as the budget leaves, what matters most first."""
    left = budget * sample.all_bytes - sample.nbytes
    chosen: dict[str, int] = {}
    for name in sorted(wanted, key=lambda name: -shares[name]):
        cost = sample.cost({name: wanted[name]})
        if 0 < cost <= left:
            chosen[name] = wanted[name]
            left -= cost
    return chosen


def uncertain(
    profile: Profile, language: str, by: str, tau: float, tau_relative: bool = False
) -> dict[str, Interval]:
    """The keys whose decision a sampled profile leaves open, with their intervals."""
    if profile.sample is None:
        return {}
    known = profile.sample.intervals[language].get(by, {})
    limit = threshold(tau, tau_relative, len(known))
    return {key: interval for key, interval in known.items() if not interval.certain(limit)}
