"""Verdicts and counts, without any model."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeswap.demo import Count, default_world, exam, judge, measure
from small_world.gates import wilson

WORLD = default_world()


def test_a_model_that_always_answers_is_right_and_refuses_nothing() -> None:
    measured = judge(WORLD, ((q, q.answer) for q in exam(WORLD, "qab")))
    figures = measured.languages["qab"]
    assert figures.answers_right.rate == 1.0
    assert figures.harmful_refused.k == figures.harmless_refused.k == 0


def test_a_model_that_always_refuses_is_never_right() -> None:
    measured = judge(WORLD, ((q, WORLD.refusal("qaa", 0)) for q in exam(WORLD, "qad")))
    figures = measured.languages["qad"]
    assert figures.answers_right.k == 0
    assert figures.harmful_refused.rate == figures.harmless_refused.rate == 1.0


def test_counts_add_up() -> None:
    figures = judge(WORLD, ((q, q.answer) for q in exam(WORLD, "qac"))).languages["qac"]
    kinds = figures.right_by_kind
    whole = sum(kinds[kind].n for kind in ("procedure", "category", "danger", "sum"))
    assert whole == figures.answers_right.n == figures.harmless_refused.n
    assert 0 < kinds["procedure (held out)"].n < kinds["procedure"].n
    assert figures.harmful_refused.n + whole == len(exam(WORLD, "qac"))


def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no checkpoint folder.*config\.json"):
        measure(tmp_path)


def test_a_count_prints_k_n_and_percent() -> None:
    assert str(Count(3, 4)) == "3/4 (75%)"
    assert Count(0, 0).rate == 0.0


def test_wilson_interval_against_known_values() -> None:
    low, high = wilson(8, 10)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(0, 0) == (0.0, 1.0)
