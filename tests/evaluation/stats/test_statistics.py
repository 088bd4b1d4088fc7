"""Every figure against an oracle of another kind: hand-worked tables, direct sums, enumeration."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("statsmodels.stats.multitest")
pytest.importorskip("scipy.stats")

from safeswap.errors import EvaluationError
from safeswap.evaluation.stats import (
    Interval,
    Rate,
    holm,
    mcnemar_exact,
    non_inferiority,
    paired_difference,
    rogan_gladen,
    sign_flip_exact,
    tango,
    wilson,
)

UNTIMED = settings(deadline=None)  # a loaded machine is no failure
COUNTS = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
OUTCOMES = st.lists(
    st.tuples(st.sampled_from([0, 1, math.nan]), st.sampled_from([0, 1, math.nan])),
    min_size=1,
    max_size=60,
).filter(lambda pairs: any(a == a and b == b for a, b in pairs))


# Wilson -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [  # published in Newcombe, Statistics in Medicine 17 (1998) 857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(k: int, n: int, low: float, high: float) -> None:
    interval = wilson(k, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@UNTIMED
@given(COUNTS, st.floats(0.5, 0.999))
def test_wilson_ends_solve_the_score_equation(count: tuple[int, int], level: float) -> None:
    from statistics import NormalDist

    (k, n), z = count, NormalDist().inv_cdf(0.5 + level / 2)
    for end in (wilson(k, n, level).low, wilson(k, n, level).high):
        assert abs(k / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), abs=1e-7)


@UNTIMED
@given(COUNTS)
def test_wilson_holds_the_rate_within_zero_and_one_and_is_symmetric(count: tuple[int, int]) -> None:
    k, n = count
    interval = wilson(k, n)
    assert 0 <= interval.low <= k / n <= interval.high <= 1
    assert interval.width > 0
    mirrored = wilson(n - k, n)
    assert interval.low == pytest.approx(1 - mirrored.high, abs=1e-12)
    if k < n:
        assert wilson(k + 1, n).low > interval.low
    assert wilson(k, n, 0.99).width > interval.width


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == Interval(0, 1)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (1, math.inf), (math.nan, 4)])
def test_wilson_refuses_what_is_no_count(k: float, n: float) -> None:
    with pytest.raises(EvaluationError, match="not a count"):
        wilson(k, n)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, math.nan])
def test_a_level_in_per_cent_is_refused(level: float) -> None:
    with pytest.raises(EvaluationError, match=r"0\.95 is 95 %"):
        wilson(1, 2, level)


# Rates --------------------------------------------------------------------------------------------


def test_unparsed_is_never_safe() -> None:
    rate = Rate.of([1, 0, 0, math.nan, 1, math.nan, 0, 0])
    assert (rate.k, rate.n, rate.unparsed, rate.total) == (2, 6, 2, 8)
    assert rate.value == pytest.approx(1 / 3)
    assert rate.bounds == Interval(2 / 8, 4 / 8)
    assert rate.interval == wilson(2, 6)
    assert str(rate) == "33.3 % [9.7, 70.0] (2/6), 2 unparsed: 25.0 to 50.0 %"


def test_a_rate_of_nothing_parsed_has_no_value_and_the_widest_bounds() -> None:
    rate = Rate.of([math.nan] * 3)
    assert rate.value is None
    assert rate.bounds == rate.interval == Interval(0, 1)
    assert str(rate) == "n/a (0 parsed, 3 unparsed)"
    assert Rate(0, 0).bounds == Interval(0, 1)


@UNTIMED
@given(COUNTS, st.integers(0, 50))
def test_the_bounds_hold_the_rate(count: tuple[int, int], unparsed: int) -> None:
    rate = Rate(*count, unparsed)
    assert rate.value is not None
    assert rate.bounds.low <= rate.value + 1e-12 and rate.value <= rate.bounds.high + 1e-12


def test_outcomes_other_than_0_1_and_nan_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"0, 1 or nan \(missing\), not 0\.5"):
        Rate.of([0, 0.5])
    with pytest.raises(EvaluationError, match="0, 1 or nan"):
        Rate.of(["safe"])  # type: ignore[list-item]
    with pytest.raises(EvaluationError, match="negative"):
        Rate(0, 1, -1)


# McNemar and sign flips ---------------------------------------------------------------------------


@UNTIMED
@given(st.integers(0, 120), st.integers(0, 120))
def test_mcnemar_is_twice_the_smaller_tail(a: int, b: int) -> None:
    tail = sum(math.comb(a + b, i) for i in range(min(a, b) + 1))
    exact = min(Fraction(1), Fraction(2 * tail, 2 ** (a + b)))
    assert mcnemar_exact(a, b) == pytest.approx(float(exact), rel=1e-9)
    assert mcnemar_exact(a, b) == pytest.approx(mcnemar_exact(b, a), rel=1e-12)


def test_mcnemar_agrees_with_statsmodels_and_by_hand() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[30, 12], [3, 55]]
    assert mcnemar_exact(12, 3) == pytest.approx(mcnemar(table, exact=True).pvalue)
    assert mcnemar_exact(5, 0) == pytest.approx(2 / 32)
    assert mcnemar_exact(0, 0) == 1
    with pytest.raises(EvaluationError, match="not a count"):
        mcnemar_exact(-1, 2)
    with pytest.raises(EvaluationError, match="not a count"):
        mcnemar_exact(1.5, 2)  # type: ignore[arg-type]


@UNTIMED
@given(st.lists(st.integers(-4, 4), max_size=10))
def test_sign_flips_are_those_of_all_assignments(sums: list[int]) -> None:
    signs = itertools.product((-1, 1), repeat=len(sums))
    reached = [abs(sum(s * d for s, d in zip(sign, sums, strict=True))) for sign in signs]
    share = sum(r >= abs(sum(sums)) for r in reached) / len(reached)
    assert sign_flip_exact(sums) == pytest.approx(share, rel=1e-12)


@UNTIMED
@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 9))
def test_sign_flips_of_single_pairs_are_mcnemar(a: int, b: int, same: int) -> None:
    sums = [1] * a + [-1] * b + [0] * same
    assert sign_flip_exact(sums) == pytest.approx(mcnemar_exact(a, b), rel=1e-9)


def test_sign_flips_refuse_fractions() -> None:
    with pytest.raises(EvaluationError, match=r"whole numbers, not 0\.5"):
        sign_flip_exact([0.5])  # type: ignore[list-item]


# Tango --------------------------------------------------------------------------------------------


def _score(b: int, c: int, n: int, delta: float) -> float:
    """|z| of Tango's statistic, the nuisance found by maximising the likelihood numerically."""
    from scipy.optimize import minimize_scalar

    def minus(q: float) -> float:
        def part(count: int, p: float) -> float:
            return -count * math.log(max(p, 1e-300)) if count else 0.0

        return part(b, q + delta) + part(c, q) + part(n - b - c, 1 - 2 * q - delta)

    low, high = max(0.0, -delta), (1 - delta) / 2
    q = minimize_scalar(minus, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return abs(b - c - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize(
    ("b", "c", "n"), [(12, 2, 50), (0, 1, 44), (5, 5, 30), (40, 3, 60), (1, 0, 300)]
)
def test_tango_ends_lie_where_the_score_is_z(b: int, c: int, n: int) -> None:
    interval = tango(b, c, n)
    for end in (interval.low, interval.high):
        assert _score(b, c, n, end) == pytest.approx(1.959964, abs=2e-3)


@UNTIMED
@given(st.integers(1, 500))
def test_tango_without_discordant_pairs_has_its_closed_form(n: int) -> None:
    reach = 1.959964**2 / (n + 1.959964**2)
    assert tango(0, 0, n).high == pytest.approx(reach, rel=1e-6)
    assert tango(0, 0, n).low == pytest.approx(-reach, rel=1e-6)


@UNTIMED
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 200))
def test_tango_mirrors_and_holds_the_difference(b: int, c: int, same: int) -> None:
    n = b + c + same
    if n == 0:
        with pytest.raises(EvaluationError, match="at least one pair"):
            tango(b, c, n)
        return
    interval, mirrored = tango(b, c, n), -tango(c, b, n)
    assert -1 <= interval.low <= (b - c) / n <= interval.high <= 1
    assert (interval.low, interval.high) == pytest.approx((mirrored.low, mirrored.high), abs=1e-9)


# Paired differences -------------------------------------------------------------------------------


def _pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    a = [1] * both + [1] * only_a + [0] * only_b + [0] * neither
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return a, b


def test_a_paired_difference_worked_by_hand() -> None:
    a, b = _pairs(30, 12, 3, 55)
    found = paired_difference([*a, math.nan, 1], [*b, 0, math.nan])
    assert (found.n, found.dropped, found.clusters) == (100, 2, None)
    assert (found.candidate, found.reference) == (0.42, 0.33)
    assert found.difference == pytest.approx(0.09)
    assert (found.only_candidate, found.only_reference) == (12, 3)
    assert found.p == pytest.approx(2 * sum(math.comb(15, i) for i in range(4)) / 2**15)
    assert found.test == "exact McNemar" and not found.widened
    assert found.interval.low == pytest.approx(0.02, abs=0.011)
    assert found.interval.high == pytest.approx(0.16, abs=0.011)


def test_the_bootstrap_is_scipys() -> None:
    from scipy.stats import bootstrap

    a, b = _pairs(40, 25, 11, 124)
    theirs = bootstrap(
        (np.subtract(a, b),), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    ours = paired_difference(a, b, draws=20_000).interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.0051)


def test_the_cluster_bootstrap_is_that_of_drawing_clusters_one_by_one() -> None:
    generator = np.random.default_rng(4)
    names = np.repeat(np.arange(60), 5)
    shared = np.repeat(generator.random(60), 5)
    a = (generator.random(300) < 0.2 + 0.6 * shared).astype(float)
    b = (generator.random(300) < 0.5 * shared).astype(float)
    a[7] = math.nan
    groups = [np.flatnonzero((names == g) & ~np.isnan(a)) for g in range(60)]
    means = []
    for _ in range(4000):
        chosen = np.concatenate([groups[g] for g in generator.integers(0, 60, 60)])
        means.append((a[chosen] - b[chosen]).mean())
    low, high = np.percentile(means, [2.5, 97.5])
    found = paired_difference(a, b, clusters=names.tolist())
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=0.012)
    assert (found.n, found.dropped, found.clusters) == (299, 1, 60)
    assert found.test == "exact sign-flip over clusters"


@settings(UNTIMED, max_examples=60)
@given(OUTCOMES, st.booleans())
def test_swapping_the_models_negates_the_difference(
    pairs: list[tuple[float, float]], clustered: bool
) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    clusters = [index // 3 for index in range(len(pairs))] if clustered else None
    ours = paired_difference(a, b, clusters, draws=2000)
    swapped = paired_difference(b, a, clusters, draws=2000)
    assert ours.difference == -swapped.difference
    assert ours.p == pytest.approx(swapped.p, rel=1e-9)
    assert (ours.only_candidate, ours.dropped) == (swapped.only_reference, swapped.dropped)
    mirrored = -swapped.interval
    assert ours.interval.low == pytest.approx(mirrored.low, abs=0.12)
    assert ours.interval.low <= ours.difference + 1e-12
    assert ours.difference <= ours.interval.high + 1e-12
    assert ours == paired_difference(a, b, clusters, draws=2000)


@pytest.mark.parametrize("size", [2, 5])
def test_copies_of_a_prompt_add_no_evidence(size: int) -> None:
    """Clusters of identical pairs: as wide as one of each, wider than the copies by themselves."""
    a, b = _pairs(30, 15, 10, 45)
    single = paired_difference(a, b)
    many_a, many_b = np.repeat(a, size), np.repeat(b, size)
    copies = paired_difference(many_a, many_b, clusters=np.repeat(np.arange(100), size).tolist())
    naive = paired_difference(many_a, many_b)
    assert copies.interval.width == pytest.approx(single.interval.width, rel=0.05)
    assert copies.p == pytest.approx(single.p, rel=1e-9)
    assert naive.interval.width < 0.8 * copies.interval.width
    assert naive.p < copies.p


def test_clusters_of_one_are_no_clusters() -> None:
    a, b = _pairs(30, 15, 4, 45)
    plain, single = paired_difference(a, b), paired_difference(a, b, clusters=range(len(a)))
    assert single.p == pytest.approx(plain.p)
    assert single.interval == plain.interval


def test_two_models_that_never_differ_are_not_known_to_be_equal() -> None:
    found = paired_difference([1] * 20, [1] * 20)
    assert found.widened and found.p == 1 and found.difference == 0
    assert found.interval.high == pytest.approx(1.959964**2 / (20 + 1.959964**2))
    grouped = paired_difference([1] * 20, [1] * 20, clusters=[i // 10 for i in range(20)])
    assert grouped.interval.high == pytest.approx(1.959964**2 / (2 + 1.959964**2))


def test_bad_pairs_are_refused() -> None:
    with pytest.raises(EvaluationError, match=r"shapes \(2,\) and \(3,\)"):
        paired_difference([1, 0], [1, 0, 1])
    with pytest.raises(EvaluationError, match="no pair is left"):
        paired_difference([1, math.nan], [math.nan, 0])
    with pytest.raises(EvaluationError, match="no pair is left"):
        paired_difference([], [])
    with pytest.raises(EvaluationError, match="1 cluster names for 2 pairs"):
        paired_difference([1, 0], [0, 1], clusters=["a"])
    with pytest.raises(EvaluationError, match="candidate's outcomes are 0, 1 or nan"):
        paired_difference([2, 0], [0, 1])
    with pytest.raises(EvaluationError, match="too few"):
        paired_difference([1, 0], [0, 1], draws=10)


def test_intervals_cover_what_they_should() -> None:
    """Seeded simulation: 95 % by clusters, and far fewer when the clusters are ignored."""
    generator = np.random.default_rng(11)
    names = np.repeat(np.arange(80), 4).tolist()
    held = ignored = rejected = 0
    for trial in range(300):
        shift = np.repeat(generator.choice([-0.3, 0.3], 80), 4)  # mean 0: the truth is 0
        a = generator.random(320) < 0.5 + shift
        b = generator.random(320) < 0.5 - shift
        grouped = paired_difference(a, b, clusters=names, draws=500, seed=trial)
        held += 0 in grouped.interval
        rejected += grouped.p < 0.05
        ignored += 0 in paired_difference(a, b, draws=500, seed=trial).interval
    assert 0.91 <= held / 300 <= 0.98
    assert rejected / 300 <= 0.08
    assert ignored / 300 < 0.90


# Holm ---------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.04, 0.01, 0.5]) == pytest.approx([0.08, 0.03, 0.5])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []
    with pytest.raises(EvaluationError, match="not a p-value"):
        holm([0.1, math.nan])


@settings(UNTIMED, max_examples=8)  # statsmodels collects garbage at every call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_between_the_plain_and_the_bonferroni_values(values: list[float]) -> None:
    adjusted = holm(values)
    for plain, after in zip(values, adjusted, strict=True):
        assert plain - 1e-12 <= after <= min(1, len(values) * plain) + 1e-12
    smallest = min(range(len(values)), key=values.__getitem__)
    assert adjusted[smallest] == pytest.approx(min(1, len(values) * values[smallest]))


# Non-inferiority ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "decision"),
    [
        ((700, 100, 100, 100), "undecided"),  # alike, but ± 2.8 points
        ((7000, 100, 100, 2800), "non-inferior"),
        ((500, 50, 200, 250), "inferior"),
        ((500, 200, 50, 250), "non-inferior"),
        ((40, 0, 0, 10), "undecided"),  # the same answers, and too few of them
        ((400, 0, 0, 100), "non-inferior"),
    ],
)
def test_non_inferiority_decides_by_the_interval(
    table: tuple[int, int, int, int], decision: str
) -> None:
    found = non_inferiority(*_pairs(*table))
    assert found.decision == decision
    assert found.confidence == pytest.approx(0.975)
    low, high = found.paired.interval.low, found.paired.interval.high
    assert (low > -0.02) == (decision == "non-inferior")
    assert (high < -0.02) == (decision == "inferior")


def test_the_margin_is_a_share() -> None:
    with pytest.raises(EvaluationError, match=r"0\.02 is 2 points"):
        non_inferiority([1], [1], margin=2)
    a, b = _pairs(500, 50, 80, 370)  # −3 points, −5.2 to −0.8
    assert non_inferiority(a, b, margin=0.06).decision == "non-inferior"
    assert non_inferiority(a, b, margin=0.02).decision == "undecided"
    assert non_inferiority(a, b, margin=0.005).decision == "inferior"


# Rogan–Gladen -------------------------------------------------------------------------------------


def test_rogan_gladen_by_hand() -> None:
    found = rogan_gladen((25, 100), (90, 100), (180, 200))
    assert found.value == found.unclipped == pytest.approx((0.25 + 0.9 - 1) / 0.8)
    assert found.interval is not None and found.value in found.interval
    assert found.reason is None


@settings(UNTIMED, max_examples=40)
@given(st.floats(0.05, 0.95), st.floats(0.75, 1), st.floats(0.75, 1))
def test_rogan_gladen_undoes_the_judge(truth: float, se: float, sp: float) -> None:
    seen = truth * se + (1 - truth) * (1 - sp)
    found = rogan_gladen((1000 * seen, 1000), (200 * se, 200), (200 * sp, 200), draws=500)
    assert found.value == pytest.approx(truth)
    assert found.interval is not None and truth in found.interval


def test_a_perfect_judge_changes_nothing_but_labels_leave_doubt() -> None:
    sure = rogan_gladen((30, 300), (5000, 5000), (5000, 5000))
    doubtful = rogan_gladen((30, 300), (15, 15), (15, 15))
    assert sure.value == doubtful.value == pytest.approx(0.1)
    assert sure.interval is not None and doubtful.interval is not None
    assert doubtful.interval.width > sure.interval.width


def test_the_value_is_clipped_and_the_unclipped_kept() -> None:
    found = rogan_gladen((6, 100), (90, 100), (90, 100))
    assert found.value == 0 and found.unclipped == pytest.approx(-0.04 / 0.8)
    assert found.interval is not None and found.interval.low == 0
    assert rogan_gladen((94, 100), (90, 100), (90, 100)).value == 1


@pytest.mark.parametrize(
    ("observed", "sensitivity", "specificity", "reason"),
    [
        ((3, 10), (0, 0), (9, 10), "no labels of the positive class"),
        ((3, 10), (9, 10), (0, 0), "no labels of the other class"),
        ((0, 0), (0, 0), (9, 10), "no judged responses and no labels of the positive class"),
        ((3, 10), (5, 10), (5, 10), "no better than chance"),
        ((3, 10), (2, 10), (3, 10), "no better than chance"),
        ((3, 10), (2, 3), (2, 3), "too few labels"),
    ],
)
def test_what_cannot_be_identified_is_said(
    observed: tuple[int, int],
    sensitivity: tuple[int, int],
    specificity: tuple[int, int],
    reason: str,
) -> None:
    found = rogan_gladen(observed, sensitivity, specificity)
    assert found.value is None and found.interval is None and found.unclipped is None
    assert found.reason is not None and found.reason.startswith("not identifiable: ")
    assert reason in found.reason


def test_rogan_gladen_covers_the_truth() -> None:
    generator, held = np.random.default_rng(3), 0
    for trial in range(300):
        seen = generator.binomial(315, 0.2 * 0.9 + 0.8 * 0.05)
        labels = generator.binomial(60, 0.9), generator.binomial(120, 0.95)
        found = rogan_gladen((seen, 315), (labels[0], 60), (labels[1], 120), 500, trial)
        assert found.interval is not None
        held += 0.2 in found.interval
    assert 0.91 <= held / 300 <= 0.985


def test_rogan_gladen_refuses_bad_counts() -> None:
    with pytest.raises(EvaluationError, match="not a count"):
        rogan_gladen((11, 10), (9, 10), (9, 10))
    with pytest.raises(EvaluationError, match="too few"):
        rogan_gladen((1, 10), (9, 10), (9, 10), draws=1)


def test_a_widened_interval_is_in_pairs_and_not_in_clusters() -> None:
    """50 prompts in 3 languages, one pair apart: between 1 in 3 of what 50 single pairs allow, and
    all of it, by how many clusters were seen to differ."""
    reference = np.zeros(150)
    candidate = reference.copy()
    candidate[:1] = 1
    clusters = [n // 3 for n in range(150)]
    pooled = paired_difference(candidate, reference, clusters).interval
    single = paired_difference(candidate[:50], reference[:50]).interval
    assert pooled.high == pytest.approx(single.high * (1 + 2 * 0.9) / 3)
