"""Intervals of differences of shares: derivatives, quantiles, and how often they hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeswap.checkpoint.family import Family, open_family
from safeswap.profile import Interval
from safeswap.profile.sample import FamilySample, TensorSample
from safeswap.selectors.certainty import FARTHER, estimate, intervals_of, student
from safeswap.selectors.share_difference import decide
from tiny import make_trio

stats = pytest.importorskip("scipy.stats")
KINDS = {
    "equal": lambda dice, shape: dice.chisquare(50, shape) / 50,
    "lognormal": lambda dice, shape: dice.lognormal(0, 1.5, shape),
    "Pareto": lambda dice, shape: dice.pareto(2.5, shape) + 1,
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    trio = make_trio(tmp_path_factory.mktemp("trio"), layers=4)
    return open_family(trio["base"], trio["safety"], {"sw": trio["sw"]})


def drawn(family: Family, kind: str, seed: int, blocks: int = 400, read: int = 20) -> tuple:
    """A sample of made-up blocks of every projection, and the same with all of them."""
    dice = np.random.default_rng(seed)
    part, whole = FamilySample(family), FamilySample(family)
    for name, one in part.tensors.items():
        values = np.zeros((blocks, len(one.pairs)))
        values[:, 0] = dice.chisquare(50, (blocks, 4)).sum(axis=1)
        for column in (1, 2):
            rows = KINDS[kind](dice, (blocks, 4)).sum(axis=1)
            values[:, column] = np.exp(dice.normal(0, 0.4)) * rows
        for sample, count in ((part, read), (whole, blocks)):
            sample.tensors[name] = TensorSample(
                blocks * 8, 8, blocks, one.pairs, values[:count], np.zeros(len(one.pairs))
            )
    return part, whole


@pytest.mark.parametrize("by", ["module", "layer"])
def test_the_estimate_is_the_rules_own_difference(family: Family, by: str) -> None:
    part, whole = drawn(family, "equal", 0)
    for sample in (part, whole):
        profile = sample.profile(None)
        wanted = decide(profile, "sw", by=by, tau=0.001, tau_relative=False)
        found = estimate(sample, "sw", by)
        assert found.keys == tuple(wanted)
        assert found.difference == pytest.approx([c.difference for c in wanted.values()])
    assert not estimate(whole, "sw", by).variances.any()


@pytest.mark.parametrize("by", ["module", "layer"])
def test_the_variance_is_that_of_the_differences_themselves(family: Family, by: str) -> None:
    """Derivatives by moving each read block a little, instead of by the formula."""
    part, _ = drawn(family, "lognormal", 1)
    name = "model.layers.1.mlp.up_proj.weight"
    one, found = part.tensors[name], estimate(part, "sw", by)
    slopes = np.zeros((len(found.keys), len(one.values)))
    for block in range(len(one.values)):
        for column in range(3):
            step = 1e-5 * one.values[:, column].mean()
            moved = one.values.copy()
            moved[:, column] += step
            part.tensors[name] = replace(one, values=moved)
            change = (estimate(part, "sw", by).difference - found.difference) / step
            slopes[:, block] += change * one.values[block, column]
    part.tensors[name] = one
    read, away = slopes.shape[1], np.abs(slopes - slopes.mean(axis=1, keepdims=True))
    squares = (away**2).sum(axis=1) + (FARTHER * away.max(axis=1)) ** 2
    wanted = squares / (read - 1) / read * (1 - read / one.blocks)
    column = found.names.index(name)
    assert found.variances[:, column] == pytest.approx(wanted, rel=1e-3, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_hold_as_often_as_they_say(family: Family, kind: str) -> None:
    """All intervals of a table at once, in 200 trios at 95 %: fewer than 183 hits would have a
    chance below 0.2 %; benchmarks/sample.py has more of them."""
    hits = 0
    for seed in range(200):
        part, whole = drawn(family, kind, seed, blocks=200)
        intervals = intervals_of(part, 0.05)["sw"]["module"]
        truth = estimate(whole, "sw", "module")
        hits += all(
            intervals[key].low <= difference <= intervals[key].high
            for key, difference in zip(truth.keys, truth.difference, strict=True)
        )
    assert hits >= 183


def test_an_expert_that_did_not_move_somewhere_is_no_division_by_zero(family: Family) -> None:
    part, _ = drawn(family, "equal", 0)
    for name, one in part.tensors.items():
        if ".0." in name:
            one.values[:, 1:] = 0.0
    with np.errstate(divide="raise", invalid="raise"):
        found = intervals_of(part, 0.01)["sw"]
    assert found["module"]["0.mlp"].difference == 0.0
    assert all(np.isfinite([i.low, i.high]).all() for i in found["layer"].values())


@given(st.floats(1e-7, 0.5), st.floats(1.0, 1999.0))
def test_quantiles_are_those_of_scipy(error: float, freedom: float) -> None:
    assert student(error, freedom) == pytest.approx(stats.t.isf(error / 2, freedom), rel=1e-4)


@given(st.floats(1e-7, 0.5), st.floats(2000.0, 1e9))
def test_with_many_blocks_they_are_normal(error: float, freedom: float) -> None:
    assert student(error, freedom) == pytest.approx(stats.t.isf(error / 2, freedom), rel=4e-3)


@pytest.mark.parametrize(
    ("interval", "certain"),
    [
        ((0.002, 0.0011, 0.003), True),  # safety
        ((-0.002, -0.003, -0.0011), True),  # language
        ((0.0, -0.001, 0.001), True),  # blend, up to the threshold itself
        ((0.002, 0.001, 0.003), False),  # at the threshold it would be blend
        ((0.0, -0.0011, 0.0), False),
        ((0.0, -0.1, 0.1), False),
    ],
)
def test_a_decision_is_certain_where_one_holds_in_all_of_the_interval(
    interval: tuple[float, float, float], certain: bool
) -> None:
    assert Interval(*interval).certain(0.001) is certain
