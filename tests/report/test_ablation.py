"""The ablation's tables against tables by hand, and the Pareto front against its definition."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.errors import EvaluationError
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.records import Alias, CandidateRecord
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.report.ablation import ablation_table, matched_table, numbers, pareto_front
from safeswap.tables import Table, as_csv, as_text
from swept import alias, candidate, sweep

UNTIMED = settings(deadline=None)


def figure(per_cent: float, arm: float = 5.0) -> RateEstimate:
    return RateEstimate(per_cent / 100, (per_cent - arm) / 100, (per_cent + arm) / 100, 100)


def one(
    name: str,
    role: str,
    figures: tuple[float, float, float],
    method: str = "",
    given: Mapping[str, Any] | None = None,
    aliases: tuple[Alias, ...] = (),
    language: str = "sw",
) -> CandidateResult:
    unsafe, refused, right = map(figure, figures)
    return CandidateResult(
        name,
        language,
        role,
        CandidateRecord(method, given or {}),
        aliases,
        unsafe,
        refused,
        right,
    )


MINE = "share-difference"
FIRST, SAME = f"{MINE}+tau-0.01+alpha-0.5", f"{MINE}+tau-0.01+alpha-0.3"
ALIAS = Alias(SAME, CandidateRecord(MINE, {"tau": 0.01, "alpha": 0.3}))
SECOND, GATED = f"{MINE}+tau-0.001+alpha-0.5", "gated+gamma-0.5"


def hand(language: str = "sw") -> list[CandidateResult]:
    """Three models; the grid was measured in another order than the table's."""
    inputs = [
        one("base", "base", (40, 6, 42), language=language),
        one("safety", "safety", (10, 20, 40), language=language),
        one(language, "language", (55, 7, 56), language=language),
    ]
    mine = [
        one(FIRST, "merged", (30, 8, 54), MINE, {"tau": 0.01, "alpha": 0.5}, (ALIAS,), language),
        one(SECOND, "merged", (20, 9, 55), MINE, {"tau": 0.001, "alpha": 0.5}, (), language),
    ]
    gated = one(GATED, "merged", (45, 6, 57), "gated", {"gamma": 0.5, "outside": "language"})
    return [*inputs, *mine, replace(gated, language=language)]


def texts(table: Table) -> list[list[str]]:
    return [[row.group, *(cell.text for cell in row.cells)] for row in table.rows]


# Every candidate ----------------------------------------------------------------------------------


def test_the_table_by_hand() -> None:
    table = ablation_table(hand(), "dev")
    # gated opens its gate at the paper's τ; outside is given once, and not the others' default
    assert [column.full_name for column in table.columns] == [
        "candidate",
        "τ, points",
        "α",
        "outside",
        "unsafe % ↓",
        "harmless refused % ↓",
        "right % ↑",
    ]
    assert texts(table) == [
        ["made from", "base", "", "", "", *figures("40 6 42")],
        ["made from", "safety expert", "", "", "", *figures("10 20 40")],
        ["made from", "language expert", "", "", "", *figures("55 7 56")],
        [MINE, "1", "0.1", "0.5", "blend", *figures("20 9 55")],
        [MINE, "2", "1", "0.5", "blend", *figures("30 8 54")],
        ["gated", "3", "0.1", "0", "language", *figures("45 6 57")],
    ]


def figures(values: str) -> list[str]:
    numbers_of = map(float, values.split())
    return [f"{x:.1f} [{x - 5:.1f}, {x + 5:.1f}]" for x in numbers_of]


def test_a_dev_table_says_that_it_is_no_test_result() -> None:
    dev, test = ablation_table(hand(), "dev"), ablation_table(hand(), "test")
    assert dev.title == "Ablation (sw): dev questions, no test result"
    assert "No test result" in dev.notes[0] and "choice" in dev.notes[0]
    assert test.title == "Ablation (sw): test questions"
    assert not any("No test result" in note for note in test.notes)
    assert matched_table(hand()).title.endswith("dev questions, no test result")
    assert "No test result" in matched_table(hand()).notes[0]


def test_the_notes_by_hand() -> None:
    notes = ablation_table(hand(), "dev").notes
    assert "Task vectors are joined by: linear." in notes
    assert "Not varied: γ = 0.5." in notes
    # the intervals are ±5: 20 reaches 30 but not 45, 6 reaches both, 57 reaches both
    assert (
        "Fewest unsafe: 1, whose interval overlaps those of 1 of the 2 others. "
        "Fewest refused: 3, whose interval overlaps those of 2 of the 2 others. "
        "Most right: 3, whose interval overlaps those of 2 of the 2 others." in " ".join(notes)
    )
    # 1 (20, 9, 55) and 2 (30, 8, 54) trade; base loses to none in refused but to gated in all
    assert (
        "On the Pareto front of unsafe, refused, right (point estimates): base, safety expert, "
        "1, 2, 3." in notes
    )
    assert "Other settings that came to the very same table, measured once: 2: α = 0.3." in notes


def test_the_best_stands_alone_only_if_no_interval_reaches_it() -> None:
    found = [one for one in hand() if one.name != FIRST]
    notes = " ".join(ablation_table(found, "dev").notes)
    assert "Fewest unsafe: 1, whose interval overlaps no other's." in notes


def test_equal_bests_are_all_named() -> None:
    found = [replace(o, right=figure(50)) if o.name != GATED else o for o in hand()]
    found = [replace(o, unsafe=figure(9)) if o.name != GATED else o for o in found]
    notes = " ".join(ablation_table(found, "dev").notes)
    assert "Fewest unsafe: 1, 2, whose interval overlaps no other's." in notes
    found = [replace(o, right=figure(50)) for o in hand()]
    assert "Most right: all are equal." in " ".join(ablation_table(found, "dev").notes)


def test_what_does_not_vary_is_said_below() -> None:
    found = [
        *hand()[:3],
        candidate("sw", MINE, {"by": "layer", "tau": 0.01, "norms": "blend"}, 0.5),
    ]
    table = ablation_table(found, "test")
    assert [column.name for column in table.columns][:3] == ["candidate", "by", "τ, points"]
    assert "Not varied: norms = blend." in table.notes
    assert not any("Fewest" in note for note in table.notes)  # one candidate is no contest


def test_an_operator_has_a_column_where_it_varies() -> None:
    ties = {"name": "ties", "density": 0.2}
    found = [*hand(), candidate("sw", "uniform", {"alpha": 0.5}, 0.5, operator=ties)]
    table = ablation_table(found, "dev")
    column = [c.name for c in table.columns].index("operator")
    shown = [row.cells[column].text for row in table.rows if row.group != "made from"]
    assert shown == ["linear", "linear", "linear", "ties(density=0.2)"]


def test_a_missing_figure_is_not_a_number() -> None:
    found = [replace(o, refused=None) for o in hand()]
    table = ablation_table(found, "dev")
    assert {row.cells[-2].text for row in table.rows} == {"n/a"}
    assert {row.cells[-2].note for row in table.rows} == {
        "The suite has no such benchmark, or not all is judged yet."
    }
    # a figure that nobody has does not keep anyone off the front
    assert any("Pareto front of unsafe, right (point" in note for note in table.notes)


def test_several_languages_stand_side_by_side() -> None:
    other = [o for o in hand("te") if o.name not in (SECOND, GATED)]
    apart = one(SAME, "merged", (33, 3, 53), MINE, {"tau": 0.01, "alpha": 0.3}, (), "te")
    found = [*hand(), *(replace(o, aliases=()) for o in other), apart]
    table = ablation_table(found, "test")
    assert table.title == "Ablation: test questions"
    groups = [column.group for column in table.columns]
    assert groups == ["", *["settings"] * 3, *["sw"] * 3, *["te"] * 3]
    rows = {row.cells[0].key: row for row in table.rows if row.cells[0].key}
    assert [c.text for c in rows[SECOND].cells[-3:]] == ["n/a"] * 3
    assert {c.note for c in rows[SECOND].cells[-3:]} == {"Not measured in te."}
    assert [c.text for c in rows[SAME].cells[-3:]] == figures("33 3 53")
    # in sw, SAME was measured as FIRST
    assert [c.text for c in rows[SAME].cells[-6:-3]] == figures("30 8 54")
    number = rows[FIRST].cells[0].text
    said = f"In sw the very same table as candidate {number}, measured once."
    assert {c.note for c in rows[SAME].cells[-6:-3]} == {said}
    assert any(note.startswith("te: On the Pareto front") for note in table.notes)
    # in a narrow terminal the table falls into parts; the settings stay
    assert "questions: settings\n" in as_text(table, 90)


def test_the_csv_leads_from_every_row_to_its_arm() -> None:
    table = ablation_table(hand(), "dev")
    rows = list(csv.DictReader(io.StringIO(as_csv(table), newline="")))
    assert [row["candidate key"] for row in rows][3:] == [SECOND, FIRST, GATED]
    assert rows[3]["unsafe % ↓ key"] == f"sw/{SECOND}/unsafe"
    assert float(rows[3]["unsafe % ↓ value"]) == 20


def test_numbers_are_the_tables() -> None:
    found = [*sweep("sw"), *sweep("te", 1)]
    rows = [row for row in ablation_table(found, "dev").rows if row.group != "made from"]
    assert {row.cells[0].key: int(row.cells[0].text) for row in rows} == numbers(found)
    assert sorted(numbers(found).values()) == list(range(1, 81))


def test_a_name_that_its_settings_do_not_tell_is_shown() -> None:
    found = [*hand(), one("paper", "merged", (30, 8, 54), MINE)]
    names = [row.cells[0].text for row in ablation_table(found, "test").rows][3:]
    assert names == ["1: paper", "2", "3", "4"]  # settings as 2: τ 0.001 and α 0.5 are defaults


def test_without_candidates_there_is_no_table() -> None:
    for make in (lambda f: ablation_table(f, "dev"), matched_table, numbers):
        with pytest.raises(
            EvaluationError, match=r"no candidate .* \(base, safety, sw only\): run"
        ):
            make(hand()[:3])
        with pytest.raises(EvaluationError, match=r"\(nothing only\)"):
            make([])


def test_another_word_for_the_part_is_refused() -> None:
    with pytest.raises(EvaluationError, match="part 'tset' is unknown; did you mean 'test'"):
        ablation_table(hand(), "tset")  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match="part 'devel'"):
        matched_table(hand(), part="devel")  # type: ignore[arg-type]


# At matched ability -------------------------------------------------------------------------------


def test_matched_ability_by_hand() -> None:
    table = matched_table(hand())
    assert texts(table) == [
        ["sw", "base", "", "", "", "14.0", *figures("40 6 42")],
        ["sw", "safety expert", "", "", "", "16.0", *figures("10 20 40")],
        ["sw", "language expert", "", "", "", "0.0", *figures("55 7 56")],
        # 56 − 55 is exactly the point that may be lost; 54 loses two
        ["sw", MINE, "1", SECOND, "1 of 2", "1.0", *figures("20 9 55")],
        ["sw", "gated", "3", GATED, "1 of 1", "-1.0", *figures("45 6 57")],
    ]
    assert "1 point of ability" in table.title
    assert any("point estimates" in note for note in table.notes)


def test_a_method_that_loses_too_much_says_so() -> None:
    table = matched_table(hand(), loss=0.005)
    assert [cell.text for cell in table.rows[3].cells] == [MINE, "", "none", "0 of 2", *["n/a"] * 4]
    note = f"sw, {MINE}: none loses so little; the least is 1 point ({SECOND})."
    assert table.rows[3].cells[2].note == note
    assert "0.5 points of ability" in table.title


def test_more_loss_lets_more_candidates_in_and_the_least_unsafe_wins() -> None:
    found = [o if o.name != FIRST else replace(o, unsafe=figure(5)) for o in hand()]
    assert matched_table(found).rows[3].cells[2].text == SECOND
    row = matched_table(found, loss=0.02).rows[3]
    assert [cell.text for cell in row.cells[1:4]] == ["2", FIRST, "2 of 2"]


def test_of_equals_the_one_that_refuses_less_of_the_harmless() -> None:
    found = [o if o.name != FIRST else replace(o, unsafe=figure(20)) for o in hand()]
    assert matched_table(found, loss=0.02).rows[3].cells[2].text == FIRST  # 8 against 9


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sw": {"right": None}}, "sw, share-difference: no language expert with right answers"),
        ({FIRST: {"right": None}, SECOND: {"right": None}}, "right answers are measured"),
        ({SECOND: {"unsafe": None}}, "no candidate within the loss has an unsafe rate"),
    ],
)
def test_what_cannot_be_matched_says_why(change: dict[str, dict[str, None]], why: str) -> None:
    found = [replace(o, **change.get(o.name, {})) for o in hand()]
    row = matched_table(found).rows[3]
    assert row.cells[2].text == "none" and why in (row.cells[2].note or "")
    assert [cell.text for cell in row.cells[4:]] == ["n/a"] * 4


def test_a_candidate_counts_for_every_method_that_came_to_its_table() -> None:
    both = [
        replace(o, aliases=(alias("uniform", {"alpha": 0.5}),)) if o.name == SECOND else o
        for o in hand()
    ]
    rows = {
        row.cells[0].text: [cell.text for cell in row.cells] for row in matched_table(both).rows
    }
    assert rows["uniform"][1:4] == ["1", SECOND, "1 of 1"]
    assert rows["uniform"][4:] == rows[MINE][4:]


def test_every_language_has_its_own_expert() -> None:
    lower = [o if o.role != "language" else replace(o, right=figure(54)) for o in hand("te")]
    table = matched_table([*hand(), *lower])
    picked = {(row.group, row.cells[0].text): row.cells[3].text for row in table.rows}
    assert picked["sw", MINE] == "1 of 2" and picked["te", MINE] == "2 of 2"


def test_a_loss_below_zero_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"loss -0\.01: is a share"):
        matched_table(hand(), loss=-0.01)


# The Pareto front ---------------------------------------------------------------------------------

SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.3]) | st.none()
MODELS = st.lists(st.tuples(SHARES, SHARES, SHARES, st.sampled_from(["sw", "te"])), max_size=9)


def model_of(row: tuple[float | None, float | None, float | None, str]) -> CandidateResult:
    shares = [None if share is None else RateEstimate(share, share, share, 10) for share in row[:3]]
    unsafe, refused, right = shares
    return CandidateResult("x", row[3], "merged", unsafe=unsafe, refused=refused, right=right)


def beaten(one: CandidateResult, others: Sequence[CandidateResult], has: dict[str, bool]) -> bool:
    """The definition, written out: somebody is nowhere worse and somewhere better."""
    for other in others:
        worse = better = False
        comparable = True
        for kind in ("unsafe", "refused", "right"):
            if not has[kind]:
                continue
            mine, theirs = getattr(one, kind), getattr(other, kind)
            if theirs is None:
                comparable = False
                break
            gain = theirs.value - mine.value if kind == "right" else mine.value - theirs.value
            worse, better = worse or gain < 0, better or gain > 0
        if comparable and better and not worse:
            return True
    return False


@UNTIMED
@given(MODELS)
def test_the_front_is_who_nobody_beats(rows: list[Any]) -> None:
    found = [model_of(row) for row in rows]
    expected = []
    for mine in found:
        near = [o for o in found if o.language == mine.language]
        has = {
            k: any(getattr(o, k) is not None for o in near) for k in ("unsafe", "refused", "right")
        }
        complete = all(getattr(mine, k) is not None for k in has if has[k])
        if any(has.values()) and complete and not beaten(mine, near, has):
            expected.append(mine)
    front = pareto_front(found)
    assert [id(o) for o in front] == [id(o) for o in expected]


def test_the_front_of_two_figures_ignores_the_third() -> None:
    names = [o.name for o in pareto_front(hand(), (Measure.UNSAFE, Measure.ACCURACY))]
    assert names == ["safety", SECOND, GATED]
    assert pareto_front([]) == []
