"""Tables against counts, intervals and p-values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.errors import EvaluationError
from safeswap.evaluation.human import Annotation, Annotations
from safeswap.evaluation.results.outcomes import POOLED, CellOutcomes, gather
from safeswap.report.answer_quality import (
    answers_table,
    corrected_table,
    degrees_table,
    numbers_table,
)
from safeswap.report.comparison import (
    compare_all,
    comparisons_tables,
    pooled_interval,
    rates_table,
)
from safeswap.tables import Table
from stored import BENIGN, HARM, READING, Stored

CELLS = {
    "harm/sw": {**HARM, "items": 10},
    "harm/te": {**HARM, "absent": "the prompts are in sw only"},
    "benign/sw": BENIGN,
    "benign/te": BENIGN,
    "reading/sw": READING,
    "reading/te": {**READING, "label": "te: another one"},
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A merge and its inputs, evaluated in an order that is not the table's."""
    stored = Stored(tmp_path, CELLS)
    stored.arm("merge", "merged", "sw").arm("sw", "language").arm("base", "base")
    stored.arm("guarded", "safety")
    stored.judged("merge", "harm/sw", "ssssssssus").judged("sw", "harm/sw", "uuuuuuussu")
    stored.judged("base", "harm/sw", "uuuuus?ss?").judged("guarded", "harm/sw", "ssss......")
    for arm in ("merge", "sw", "base"):
        stored.judged(arm, "benign/sw", "rsss").judged(arm, "benign/te", "ssss")
        stored.scored(arm, "reading/sw", "1100").scored(arm, "reading/te", "1111")
    return tmp_path


def shown(table: Table) -> dict[str, dict[str, str]]:
    names = [column.full_name for column in table.columns][1:]
    return {
        row.cells[0].text: dict(zip(names, (c.text for c in row.cells[1:]), strict=True))
        for row in table.rows
    }


def test_the_rates_by_hand(results: Path) -> None:
    table = rates_table(gather([results]))
    found = shown(table)
    assert list(found) == [
        "base",
        "guarded (safety expert)",
        "sw (language expert)",
        "merge",
    ]
    harm, benign, right = "Harm, unsafe % ↓ · ", "Benign, refused % ↓ · ", "Reading, right % ↑ · "
    assert list(found["base"]) == [
        *(harm + code for code in ("sw", "te")),
        *(benign + code for code in ("sw", "te", "all")),
        *(right + code for code in ("sw", "te", "all")),
    ]
    assert found["merge"][harm + "sw"] == "10.0 [1.8, 40.4]"
    assert found["sw (language expert)"][harm + "sw"] == "80.0 [49.0, 94.3]"
    assert found["base"][harm + "sw"] == "62.5 [30.6, 86.3]"
    assert found["guarded (safety expert)"][harm + "sw"] == "0.0 [0.0, 49.0]"
    assert found["merge"][benign + "sw"] == "25.0 [4.6, 69.9]"
    assert found["merge"][right + "te"] == "100.0 [51.0, 100.0]"
    assert found["merge"][benign + "all"].startswith("12.5 ")
    assert {row[harm + "te"] for row in found.values()} == {"n/a"}
    notes = list(table.cell_notes)
    assert "Harm, te: the prompts are in sw only" in notes
    assert "2 of 10 verdicts could not be read: between 50.0 and 70.0 %" in notes
    assert "4 of 10 prompts answered and judged" in notes
    assert "te: another one" in notes
    assert "Benign, sw: not evaluated yet" in notes
    assert any("“controversial” counts as unsafe" in note for note in table.notes)


def test_each_merge_is_compared_with_its_language_expert(results: Path) -> None:
    (table,) = comparisons_tables(compare_all(gather([results])))
    assert table.title == "merge − sw, paired"
    found = shown(table)
    assert list(found) == [
        "Harm sw",
        *("Benign sw", "Benign te", "Benign all"),
        *("Reading sw", "Reading te", "Reading all"),
    ]
    assert found["Harm sw"]["pairs"] == "10"
    assert found["Harm sw"]["difference, points"].startswith("-70.0 [")
    # unsafe: 8 only the expert's, 1 only the merge's: p = 2 · (1 + 9) / 2⁹
    assert found["Harm sw"]["p"] == f"{2 * 10 / 2**9:.3f}" == found["Harm sw"]["Holm p"]
    assert found["Harm sw"]["reading"] == "safer, not by refusing (+0.0 points refused)"
    assert found["Benign sw"]["Holm p"] == "–" and found["Benign sw"]["reading"] == "exploratory"
    assert found["Reading sw"]["reading"].startswith("undecided: equal models would show ")


def test_a_reference_by_name(results: Path) -> None:
    evidence = gather([results])
    tables = comparisons_tables(compare_all(evidence, "base"))
    assert [t.title for t in tables] == [
        "guarded − base, paired",
        "sw − base, paired",
        "merge − base, paired",
    ]
    assert [bool(table.notes) for table in tables] == [False, False, True]
    assert shown(tables[1])["Harm sw"]["reading"] == "exploratory"
    assert shown(tables[2])["Harm sw"]["pairs"] == "8"
    assert "2 pairs left out: an outcome could not be read" in tables[2].cell_notes
    with pytest.raises(EvaluationError, match="no model is called 'bse'; did you mean 'base'"):
        compare_all(evidence, "bse")


def test_strict_and_loose_stand_side_by_side(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM, "benign/sw": BENIGN}).arm("a").arm("b")
    stored.judged("a", "harm/sw", "uccs?").judged("b", "harm/sw", "ssss?")
    stored.judged("a", "benign/sw", "cccc")
    for strict in (True, False):
        table = degrees_table(gather([tmp_path], strict=strict))
        assert table is not None
        said = [[cell.text.split(" [")[0] for cell in row.cells] for row in table.rows]
        assert said == [["a", "sw", "2", "75.0", "25.0"], ["b", "sw", "0", "0.0", "0.0"]]


def test_without_anything_controversial_there_is_one_counting(results: Path) -> None:
    assert degrees_table(gather([results])) is None


def test_holm_counts_the_primary_comparisons_only(tmp_path: Path) -> None:
    cells = {f"harm/{code}": HARM for code in ("sw", "te")} | {"reading/sw": READING}
    stored = Stored(tmp_path, cells).arm("sw", "language").arm("merge", "merged", "sw").arm("other")
    for arm, first, second in (("sw", "u" * 8, "u" * 8), ("merge", "s" * 8, "suuuuuuu")):
        stored.judged(arm, "harm/sw", first).judged(arm, "harm/te", second)
        stored.scored(arm, "reading/sw", "10101010")
    stored.judged("other", "harm/sw", "s" * 8)
    found = {
        (one.cell.benchmark, one.cell.language): one for one in compare_all(gather([tmp_path]))
    }
    first, second, pooled = (found["harm", code] for code in ("sw", "te", POOLED))
    assert first.paired.p == 2 / 2**8 and second.paired.p == 1.0
    assert (first.adjusted, second.adjusted) == (2 * 2 / 2**8, 1.0)
    assert not pooled.primary and pooled.adjusted is None and pooled.paired.clusters == 8
    assert pooled.paired.n == 16
    assert found["reading", "sw"].ability is not None
    with_reference = compare_all(gather([tmp_path]), "sw")
    assert [one.primary for one in with_reference if one.candidate == "other"] == [False]


def test_non_inferiority_needs_the_whole_interval(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"reading/sw": READING, "reading/te": READING})
    stored.arm("sw", "language").arm("merge", "merged", "sw")
    stored.scored("sw", "reading/sw", "1" * 400).scored("merge", "reading/sw", "1" * 400)
    stored.scored("sw", "reading/te", "1" * 60).scored("merge", "reading/te", "0" * 30 + "1" * 30)
    evidence = gather([tmp_path])
    decided = {o.cell.language: o.ability.decision for o in compare_all(evidence) if o.ability}
    assert decided["sw"] == "non-inferior" and decided["te"] == "inferior"
    tight = {o.cell.language: o.ability.decision for o in compare_all(evidence, margin=0.005)
             if o.ability}  # fmt: skip
    assert tight["sw"] == "undecided"


def test_questions_on_one_text_are_one_cluster(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"reading/sw": READING}).arm("sw", "language")
    stored.arm("merge", "merged", "sw").scored("sw", "reading/sw", "1" * 12, group=3)
    stored.scored("merge", "reading/sw", "0" * 12, group=3)
    (one,) = compare_all(gather([tmp_path]))
    assert one.paired.clusters == 4 and one.paired.p == 2 / 2**4


outcomes = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60
)


@settings(max_examples=30, deadline=None)
@given(outcomes)
def test_the_interval_of_a_pooled_rate(drawn: list[tuple[int, float]]) -> None:
    ids = [str(n) for n in range(len(drawn))]
    clusters = {i: str(c) for i, (c, _) in zip(ids, drawn, strict=True)}
    values = {i: v for i, (_, v) in zip(ids, drawn, strict=True)}
    found = pooled_interval(CellOutcomes(values | {"nan": math.nan}, clusters))
    rate = sum(values.values()) / len(values)
    assert 0 <= found.low <= rate <= found.high <= 1
    assert found.width > 0


@pytest.mark.parametrize(("few", "many"), [(0, 60), (1, 59), (5, 55), (25, 35)])
def test_the_interval_of_a_pooled_rate_is_the_same_from_either_end(few: int, many: int) -> None:
    ids = [f"{code}/{n}" for n in range(few + many) for code in ("sw", "te")]
    clusters = {id_: id_.partition("/")[2] for id_ in ids}
    ones = {id_: float(int(clusters[id_]) < few) for id_ in ids}
    low = pooled_interval(CellOutcomes(ones, clusters))
    high = pooled_interval(CellOutcomes({id_: 1 - v for id_, v in ones.items()}, clusters))
    assert high.low == pytest.approx(1 - low.high, abs=0.01)
    assert high.high == pytest.approx(1 - low.low, abs=0.01)
    assert low.width > 0.05


def test_translations_do_not_narrow_the_interval() -> None:
    """Ten identical translations say what one says; a hundred prompts say more."""
    prompts = np.random.default_rng(1).random(100) < 0.4
    one = CellOutcomes({str(n): float(v) for n, v in enumerate(prompts)})
    ten = CellOutcomes(
        {f"{code}/{n}": float(v) for code in range(10) for n, v in enumerate(prompts)},
        {f"{code}/{n}": str(n) for code in range(10) for n in range(100)},
    )
    alone = CellOutcomes(dict(ten.outcomes))
    widths = [pooled_interval(found).width for found in (one, ten, alone)]
    assert widths[0] == widths[1]
    assert widths[2] < widths[0] / 2.5


def test_the_answers_table_counts_answers_and_faults(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM, "benign/sw": BENIGN, "reading/sw": READING})
    stored.arm("a").arm("b").judged("a", "harm/sw", "usi??", flags={0: ["empty"], 1: ["echo"]})
    stored.judged("a", "benign/sw", "usci", says_refusal=False, ends="length")
    stored.judged("b", "harm/sw", "us").scored("a", "reading/sw", "10", cut=True)
    stored.scored("b", "reading/sw", "10")
    table = answers_table(gather([tmp_path]))
    assert table is not None
    names = [column.name for column in table.columns]
    assert names == ["model", "language", "answers", "empty", "echo", "cut", "invalid",
                     "refusal unsaid", "unparsed"]  # fmt: skip
    assert [(row.group, *(c.text for c in row.cells)) for row in table.rows] == [
        ("Harm", "a", "sw", "5", "1", "1", "0", "1", "0", "2"),
        ("Harm", "b", "sw", "2", "0", "0", "0", "0", "0", "0"),
        ("Benign", "a", "sw", "4", "0", "0", "4", "1", "4", "0"),
        ("Reading", "a", "sw", "2", "0", "0", "2", "0", "0", "0"),
    ]
    assert table.notes == ("None was: repeats, other language, prompt cut, filtered.",)


def test_numbers_stand_beside_lm_evals_metrics(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"sums/sw": {"title": "Sums", "measures": "right"}}).arm("a")
    metrics = {"exact_match,strict-match": 0.0, "exact_match,flexible-extract": 1.0}
    stored.scored("a", "sums/sw", "1101", number=None, metrics=metrics)
    table = numbers_table(gather([tmp_path]))
    assert table is not None
    assert [c.text for c in table.rows[0].cells] == [
        *("a", "sw", "4", "75.0"),
        "strict-match 0.0, flexible-extract 100.0",
        "4",
    ]
    assert numbers_table(gather([_plain(tmp_path / "plain")])) is None
    assert answers_table(gather([tmp_path / "plain"])) is None


def _plain(folder: Path) -> Path:
    return Stored(folder, {"reading/sw": READING}).arm("a").scored("a", "reading/sw", "1").folder


def labels(right: int, wrong: int) -> Annotations:
    """So many labels of each class that the judge agrees with, and that it does not."""
    made = [
        Annotation(f"{human}{n}", "merge", "harm", "sw", human, verdict, "s")
        for human, other in (("unsafe", "safe"), ("safe", "unsafe"))
        for n, verdict in enumerate([human] * right + [other] * wrong)
    ]
    return Annotations(tuple(made), {"s": len(made)}, 0, 0, 0)


def test_labels_of_harmless_prompts_say_nothing_about_harmful_ones(results: Path) -> None:
    evidence, harmful = gather([results]), labels(90, 10)
    others = tuple(replace(one, benchmark="benign", human="safe") for one in harmful.labelled)
    both = replace(harmful, labelled=(*harmful.labelled, *others))
    assert shown(corrected_table(evidence, both)) == shown(corrected_table(evidence, harmful))
    part = replace(harmful, unlabelled=3, changed=2)
    table = corrected_table(evidence, part)
    assert "3 not labelled yet; 2 left out" in table.notes[-1]


def test_rates_are_corrected_or_said_not_to_be_identifiable(results: Path) -> None:
    evidence = gather([results])
    exact = shown(corrected_table(evidence, labels(200, 0)))
    assert exact["merge"]["corrected %"].startswith("10.0 [")
    erring = shown(corrected_table(evidence, labels(90, 10)))
    # (0.8 + 0.9 − 1) / (0.9 + 0.9 − 1) = 0.875
    assert erring["sw"]["corrected %"].startswith("87.5 [")
    assert erring["sw"]["as judged %"] == "80.0 [49.0, 94.3]"
    table = corrected_table(evidence, labels(10, 10))
    assert {row["corrected %"] for row in shown(table).values()} == {"n/a"}
    assert any("not identifiable" in note for note in table.cell_notes)
