"""Separation in states, against counting by hand and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from safeswap.search.diagnose.measures import deciding_layer, spelt
from safeswap.search.diagnose.record import LayerFigures
from safeswap.search.diagnose.separation import (
    Estimate,
    agreement,
    auc,
    auc_of_scores,
    cosines,
    difference_of,
    direction,
    halves,
    mean_of,
    separated,
    transferred,
)

scores = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


@given(scores, scores)
def test_auc_is_mann_whitneys(positive: list[int], negative: list[int]) -> None:
    counted = mannwhitneyu(positive, negative).statistic / (len(positive) * len(negative))
    assert auc(positive, negative) == pytest.approx(counted)
    assert auc(positive, negative) + auc(negative, positive) == pytest.approx(1)


def states(seed: int, gap: float, texts: int = 30, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Two layers; in the second the kinds lie apart by ``gap`` along the first coordinate."""
    chance = np.random.default_rng(seed)
    harmful, harmless = chance.standard_normal((2, 2, texts, width)).astype(np.float32)
    harmful[1, :, 0] += gap
    return harmful, harmless


def test_a_direction_is_the_difference_of_means_in_float64() -> None:
    harmful, harmless = states(0, 1.0)
    expected = harmful.astype(float).mean(1) - harmless.astype(float).mean(1)
    found = direction(harmful, harmless)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_lies_apart_separates_and_noise_does_not() -> None:
    noise, apart = separated(*states(1, 8.0), seed=0)
    assert apart.value > 0.99 and apart.low > 0.97
    assert noise.low < 0.5 < noise.high
    assert noise.low <= noise.value <= noise.high


def test_texts_of_a_half_are_scored_by_the_other_half() -> None:
    """In sample, 8 texts in 400 dimensions separate whatever they are; out of it they do not."""
    chance = np.random.default_rng(2)
    harmful, harmless = chance.standard_normal((2, 1, 40, 400)).astype(np.float32)
    (inside,) = transferred(direction(harmful, harmless), harmful, harmless, 0)
    (outside,) = separated(harmful, harmless, 0)
    assert inside.value > 0.95 and 0.3 < outside.value < 0.7


def test_separation_by_hand() -> None:
    harmful, harmless = states(3, 1.5)
    ours, theirs = halves(30, 5), halves(30, 6)
    folds = []
    for learnt, asked in ((1, 0), (0, 1)):
        d = harmful[1, ours[learnt]].mean(0) - harmless[1, theirs[learnt]].mean(0)
        folds.append(auc(harmful[1, ours[asked]] @ d, harmless[1, theirs[asked]] @ d))
    assert separated(harmful, harmless, 5)[1].value == pytest.approx(np.mean(folds), abs=1e-6)


def test_halves_hold_every_text_once() -> None:
    one, other = halves(9, 3)
    assert sorted((*one, *other)) == list(range(9)) and len(one) == 4
    assert (halves(9, 3)[0] == one).all()


def test_a_direction_transfers_by_its_sign() -> None:
    harmful, harmless = states(4, 3.0)
    learnt = direction(harmful, harmless)
    forth = transferred(learnt, harmful, harmless, 0)[1]
    back = transferred(learnt, harmless, harmful, 0)[1]
    assert forth.value + back.value == pytest.approx(1) and forth.low > 0.9


def test_cosines() -> None:
    found = cosines(np.array([[3.0, 4], [0, 0], [1, 0]]), np.array([[6.0, 8], [1, 1], [-2, 0]]))
    np.testing.assert_allclose(found, [1, 0, -1])
    noise, apart = agreement(*states(5, 20.0), seed=0)
    assert apart > 0.99 and abs(noise) < 0.9


def test_means_and_differences_have_intervals_of_the_bootstrap() -> None:
    chance = np.random.default_rng(6)
    one, other = chance.normal(1.0, 1.0, 400), chance.normal(0.0, 1.0, 400)
    mean, apart = mean_of(one, 0), difference_of(one, other, 0)
    error = one.std() / 20
    assert mean.value == one.mean()
    assert mean.high - mean.low == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert apart.value == pytest.approx(one.mean() - other.mean())
    assert apart.high - apart.low == pytest.approx(2 * 1.96 * error * np.sqrt(2), rel=0.2)


def test_the_ranking_of_equal_scores_says_nothing() -> None:
    found = auc_of_scores(np.zeros(5), np.zeros(7), 0)
    assert [found.value, found.low, found.high] == pytest.approx([0.5] * 3)


def test_spelling_counts_runs_of_letters() -> None:
    found = spelt(["make a bomb", "Make  a bomb", "xyz"])[0]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[0], found[1])
    assert found[0] @ found[2] < 0.2


def test_the_deciding_layer_is_chosen_in_english_alone() -> None:
    def layer(number: int, english: float, transfer: float) -> LayerFigures:
        sure = Estimate(english, english, english)
        other = Estimate(transfer, transfer, transfer)
        return LayerFigures(number, sure, other, other, 1.0, 1.0, 1.0, 1.0)

    every = [layer(0, 0.7, 1.0), layer(1, 0.985, 0.6), layer(2, 0.99, 0.5), layer(3, 0.985, 0.9)]
    assert deciding_layer(every) == 2
    assert deciding_layer(every[:1]) == 0
