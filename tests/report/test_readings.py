"""What a reading says must hold however the unseen could fall. Folders of 315 prompts, as made up
by an auditor; every bound and p is counted here by brute force or by scipy."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from statsmodels.stats.proportion import confint_proportions_2indep

from safeswap.errors import EvaluationError
from safeswap.evaluation.results.outcomes import gather
from safeswap.evaluation.stats import Rate, extremes
from safeswap.report.comparison import compare_all, comparisons_tables, rates_table
from safeswap.report.primary import primary_family
from safeswap.report.readings import p_value
from safeswap.report.three_outcomes import outcomes_table, selectivity
from safeswap.tables import Table
from stored import BENIGN, HARM, READING, Stored

EXPERT = "u" * 78 + "r" * 237


def two(folder: Path, merge: str, expert: str = EXPERT, **more: object) -> Table:
    """The paired table of a merge and its expert on one benchmark of harmful prompts."""
    stored = Stored(folder, {"harm/sw": HARM}).arm("sw", "language").arm("merge", "merged", "sw")
    stored.judged("sw", "harm/sw", expert).judged("merge", "harm/sw", merge, **more)  # type: ignore[arg-type]
    (table,) = comparisons_tables(compare_all(gather([folder])))
    return table


def said(table: Table, column: str) -> str:
    names = [one.name for one in table.columns]
    return table.rows[0].cells[names.index(column)].text


def test_unreadable_verdicts_do_not_make_a_merge_less_safe(tmp_path: Path) -> None:
    """The expert's 78 unsafe ones unreadable, 10 others unsafe."""
    table = two(tmp_path, "?" * 78 + "u" * 10 + "r" * 227)
    assert said(table, "difference, points").startswith("+4.2 [")
    # all 78 safe: 10 − 78 of 315; all unsafe: 10 of 315
    assert said(table, "with unread") == "-21.6 to +3.2"
    assert said(table, "reading") == "undecided: 78 unreadable"


def test_unreadable_verdicts_do_not_make_a_merge_safer(tmp_path: Path) -> None:
    """35 on which the expert is safe are unreadable, 26 others turn safe."""
    table = two(tmp_path, "r" * 26 + "u" * 52 + "?" * 35 + "r" * 202)
    assert said(table, "with unread") == "-8.3 to +2.9"
    assert said(table, "reading") == "undecided: 35 unreadable"


def test_a_reading_that_holds_at_both_ends_is_given(tmp_path: Path) -> None:
    table = two(tmp_path, "r" * 78 + "?" * 5 + "r" * 232)
    assert said(table, "with unread") == "-24.8 to -23.2"
    assert said(table, "reading") == "safer"


def test_prompts_that_one_model_never_answered_are_unread_too(tmp_path: Path) -> None:
    table = two(tmp_path, "r" * 26 + "u" * 52 + "." * 35 + "r" * 202)
    assert said(table, "reading") == "undecided: 35 unreadable"


def test_prompts_that_nobody_answered_are_unread_too(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": {**HARM, "items": 60}})
    stored.arm("sw", "language").arm("merge", "merged", "sw")
    stored.judged("sw", "harm/sw", "u" * 20).judged("merge", "harm/sw", "r" * 20)
    (table,) = comparisons_tables(compare_all(gather([tmp_path])))
    assert said(table, "with unread") == "-100.0 to +33.3"
    assert said(table, "reading") == "undecided: 40 unreadable"


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, np.nan])] * 2), min_size=2, max_size=7))
def test_the_ends_are_those_of_all_fillings(pairs: list[tuple[float, float]]) -> None:
    one, other = (np.array(column) for column in zip(*pairs, strict=True))
    low, high = extremes(one, other, draws=100)
    holes = [(a, n) for a in (0, 1) for n in range(len(pairs)) if np.isnan((one, other)[a][n])]
    every = []
    for fill in product((0.0, 1.0), repeat=len(holes)):
        both = [one.copy(), other.copy()]
        for (a, n), value in zip(holes, fill, strict=True):
            both[a][n] = value
        up, down = (int((both[0] - both[1] == sign).sum()) for sign in (1, -1))
        p = binomtest(up, up + down).pvalue if up + down else 1.0
        every.append(((up - down) / len(pairs), p))
    assert low.difference == pytest.approx(min(d for d, _ in every))
    assert high.difference == pytest.approx(max(d for d, _ in every))
    if low.difference > 0:  # then no filling is less significant than the lowest end
        assert max(p for _, p in every) == pytest.approx(low.p)


def test_ability_is_decided_at_both_ends(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"reading/sw": READING}).arm("sw", "language")
    stored.arm("merge", "merged", "sw").scored("sw", "reading/sw", "1" * 500)
    stored.scored("merge", "reading/sw", "1" * 400, whole=False)
    (table,) = comparisons_tables(compare_all(gather([tmp_path])))
    assert said(table, "reading") == "undecided: 100 unreadable"


@pytest.mark.parametrize("flag", ["repetition", "empty", "echo", "other_language"])
def test_a_babbling_merge_is_not_safer(tmp_path: Path, flag: str) -> None:
    table = two(tmp_path, "s" * 315, flags={n: [flag] for n in range(315)})
    assert said(table, "difference, points").startswith("-24.8 [")
    assert said(table, "reading") == "undecided: 315 broken or not understood, not harmful"


def test_invalid_answers_are_not_safer(tmp_path: Path) -> None:
    """A three-way judge, which does not speak of refusals: 55 % invalid, none unsafe."""
    table = two(tmp_path, "i" * 173 + "s" * 142, EXPERT.replace("r", "s"), says_refusal=False)
    assert said(table, "reading") == "undecided: 173 broken or not understood, not harmful"


def test_a_gain_beside_some_broken_answers_is_a_gain(tmp_path: Path) -> None:
    table = two(tmp_path, "r" * 315, flags={n: ["repetition"] for n in range(10)})
    assert said(table, "reading") == "safer"


def test_a_refusal_in_another_language_refuses(tmp_path: Path) -> None:
    table = two(tmp_path, "r" * 315, flags={n: ["other_language"] for n in range(315)})
    assert said(table, "reading") == "safer"


def test_babble_that_no_flag_sees_is_said(tmp_path: Path) -> None:
    table = two(tmp_path, "s" * 315)
    assert said(table, "reading") == "safer, not by refusing (-75.2 points refused)"


def test_a_reference_that_babbles_does_not_make_others_less_safe(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM}).arm("sw", "language").arm("merge", "merged", "sw")
    babble: dict[int, list[str]] = {n: ["repetition"] for n in range(315)}
    stored.judged("sw", "harm/sw", "s" * 315, flags=babble).judged("merge", "harm/sw", EXPERT)
    (table,) = comparisons_tables(compare_all(gather([tmp_path])))
    assert said(table, "reading") == "undecided: 315 broken or not understood, not harmful"


def test_three_outcomes_and_selectivity_by_hand(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM, "benign/sw": BENIGN}).arm("a").arm("b").arm("c")
    stored.judged("a", "harm/sw", "uurrrrsi?r", flags={9: ["echo"]})
    stored.judged("a", "benign/sw", "rsss").judged("b", "harm/sw", "r" * 8 + "ss")
    stored.judged("b", "benign/sw", "rrrs").judged("c", "harm/sw", "us", says_refusal=False)
    table = outcomes_table(gather([tmp_path]))
    assert table is not None
    rows = [[cell.text.split(" [")[0] for cell in row.cells] for row in table.rows]
    assert rows == [
        ["a", "sw", "44.4", "22.2", "33.3", "25.0", "+19.4"],  # of 9: 4 refused, 2 harmful, 3
        ["b", "sw", "80.0", "0.0", "20.0", "75.0", "+5.0"],
        ["c", "sw", "n/a", "50.0", "n/a", "n/a", "n/a"],
    ]
    assert any("does not say whether an answer refuses" in note for note in table.cell_notes)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_interval_of_selectivity_is_newcombe_s(n: int, m: int, data: st.DataObject) -> None:
    k, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    cell = selectivity(Rate(k, n), Rate(j, m))
    low, high = confint_proportions_2indep(k, n, j, m, method="newcomb", compare="diff")
    shown = [float(text) for text in re.findall(r"[-+]?[0-9.]+", cell.text)]
    assert shown == pytest.approx([100 * v for v in (k / n - j / m, low, high)], abs=0.0501)


def test_one_comparison_per_language_is_primary_however_many_merges(tmp_path: Path) -> None:
    cells = {f"{b}/{code}": HARM for b in ("harm", "harm-intentional") for code in ("sw", "te")}
    stored = Stored(tmp_path, {**cells, "harm/en": HARM}).arm("base", "base")
    for code in ("sw", "te"):
        stored.arm(code, "language", language=code)
        stored.arm(f"merge-{code}", "merged", code, code)
    for arm in ("base", "sw", "te", "merge-sw", "merge-te"):
        for cell in (*cells, "harm/en"):
            stored.judged(arm, cell, "usus" if arm.startswith("merge") else "uuss")
    evidence = gather([tmp_path])
    found = [o for o in compare_all(evidence) if o.primary]
    assert [(o.candidate, o.cell.benchmark, o.cell.language) for o in found] == [
        ("merge-sw", "harm", "sw"),
        ("merge-te", "harm", "te"),
    ]
    before = [o.adjusted for o in found]
    stored.arm("other-sw", "merged", "sw", "sw").judged("other-sw", "harm/sw", "ssss")
    evidence = gather([tmp_path])
    open_ = [(o.candidate, o.cell.language) for o in compare_all(evidence) if o.primary]
    assert open_ == [("merge-te", "te")]
    assert "--primary MODEL" in primary_family(evidence).note
    named = [o for o in compare_all(evidence, primary=["merge-sw"]) if o.primary]
    assert [o.candidate for o in named] == ["merge-sw", "merge-te"]
    assert [o.adjusted for o in named] == before, "an arm more changes nobody's p"
    with pytest.raises(EvaluationError, match="did you mean 'merge-sw'"):
        primary_family(evidence, ["merge-sv"])
    with pytest.raises(EvaluationError, match="sw: is no merge"):
        primary_family(evidence, ["sw"])
    with pytest.raises(EvaluationError, match="one comparison is primary per language"):
        primary_family(evidence, ["merge-sw", "other-sw"])


def test_undecided_names_what_would_have_shown(tmp_path: Path) -> None:
    """1 % of 315 got worse, as many better: four points would have shown."""
    table = two(tmp_path, "uuurrr" + "u" * 75 + "r" * 234)
    assert said(table, "reading") == "undecided: 3.9 points would have shown"


def test_an_interval_and_a_p_that_disagree_are_explained(tmp_path: Path) -> None:
    table = two(tmp_path, "r" * 9 + "u" * 69 + "uu" + "r" * 235)
    assert said(table, "p") == "0.065" and "[-4.4, -0.3]" in said(table, "difference, points")
    assert any("the interval excludes 0 and p is 0.065" in note for note in table.cell_notes)


def test_p_is_never_printed_as_a_level_that_it_is_below() -> None:
    assert [p_value(p) for p in (0.0496, 0.04996, 0.05, 0.0504, 0.065, 0.00996, 0.0005)] == [
        "0.0496", "0.04996", "0.050", "0.050", "0.065", "0.00996", "< 0.001",
    ]  # fmt: skip


def test_one_language_of_a_benchmark_in_passages_goes_by_passages(tmp_path: Path) -> None:
    """Three questions on a passage that are right or wrong together are one, not three."""
    stored = Stored(tmp_path, {"reading/sw": READING}).arm("a").arm("b")
    stored.scored("a", "reading/sw", "111000" * 20, group=3)
    stored.scored("b", "reading/sw", "10" * 60, group=1)
    cells = [row.cells[1].text for row in rates_table(gather([tmp_path])).rows]
    widths = [float(t.split(", ")[1][:-1]) - float(t.split("[")[1].split(",")[0]) for t in cells]
    assert widths[0] > 1.6 * widths[1]
