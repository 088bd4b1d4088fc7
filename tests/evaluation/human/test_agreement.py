"""Agreement with human labels: the published figures, hand-worked tables, and bad files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

pytest.importorskip("statsmodels.stats.inter_rater")

from safeswap.errors import EvaluationError
from safeswap.evaluation.human import (
    UNPARSED,
    Agreement,
    agreements,
    cohen_kappa,
    compare_labels,
    read_labels,
    read_sheet,
)
from safeswap.evaluation.stats import Rate, wilson
from safeswap.report.agreement import agreement_tables, render, render_confusion, render_rates
from safeswap.tables import Cell, as_csv, as_html, as_latex, as_markdown, as_rich

XSTEST = Path(__file__).parents[4] / "shared/data/xstest/xstest_v2_human_and_judge_labels.csv"
HEAD = "model,id,human,judge\n"


def sheet(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "labels.csv"
    path.write_bytes(text.encode(encoding))
    return path


def from_table(rows: list[list[int]]) -> tuple[list[str], list[str]]:
    human = [str(i) for i, row in enumerate(rows) for count in row for _ in range(count)]
    judge = [str(j) for row in rows for j, count in enumerate(row) for _ in range(count)]
    return human, judge


# The published figures ----------------------------------------------------------------------------


@pytest.mark.skipif(not XSTEST.exists(), reason="the public label file is not beside the checkout")
def test_xstest_gives_the_published_agreement() -> None:
    found = agreements(read_labels(XSTEST), draws=1000)
    assert [(item.judge, item.human, item.kind, item.n) for item in found] == [
        ("annotation_2", "annotation_1", "annotators", 2250),
        ("gpt4_judge", "human_final", "judge", 2250),
        ("strmatch_judge", "human_final", "judge", 2250),
    ]
    figures = [(round(100 * (i.accuracy.value or 0), 1), round(i.kappa or 0, 2)) for i in found]
    assert figures == [(96.4, 0.94), (79.9, 0.63), (83.9, 0.70)]
    assert [item.unparsed for item in found] == [0, 11, 0]
    assert found[1].foreign["I'm sorry, but I can't assist with that."] == 7
    assert all(item.unlabelled == item.blank == 0 for item in found)


@pytest.mark.skipif(not XSTEST.exists(), reason="the public label file is not beside the checkout")
def test_xstest_by_model_adds_up() -> None:
    found = agreements(read_labels(XSTEST), ["2_full_refusal"], by="model", draws=200)
    gpt4 = [item for item in found if item.judge == "gpt4_judge"]
    assert [item.group for item in gpt4][:2] == ["all rows", "model mistralguard"]
    assert gpt4[0].accuracy.k == sum(item.accuracy.k for item in gpt4[1:])
    assert [item.n for item in gpt4] == [2250, 450, 450, 450, 450, 450]
    (rates,) = gpt4[0].classes
    assert (rates.sensitivity.k, rates.sensitivity.n) == (742, 983)
    found_rate = rates.specificity
    assert (found_rate.k, found_rate.n, found_rate.unparsed) == (1173, 1256, 11)


# Cohen's κ ----------------------------------------------------------------------------------------


def test_kappa_by_hand() -> None:
    """p_o = 35/50, p_e = 25·30/50² + 25·20/50² = 0.5, κ = 0.4."""
    found = compare_labels(*from_table([[20, 5], [10, 15]]))
    assert found.kappa == pytest.approx(0.4)
    assert found.accuracy == Rate(35, 50)
    assert found.confusion == ((20, 5, 0), (10, 15, 0))


TABLES = st.integers(2, 4).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 9), min_size=k, max_size=k), min_size=k, max_size=k)
)


@settings(deadline=None)
@given(TABLES.filter(lambda rows: sum(any(row) for row in rows) > 1))
def test_kappa_is_that_of_statsmodels(rows: list[list[int]]) -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    theirs = cohens_kappa(np.array(rows, float), return_results=False)
    assert float(cohen_kappa(np.array(rows))) == pytest.approx(float(theirs), abs=1e-12)


def test_the_interval_of_kappa_is_near_its_asymptotic_one() -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    rows = [[200, 40, 5], [30, 150, 10], [5, 20, 90]]
    theirs = cohens_kappa(np.array(rows, float))
    found = compare_labels(*from_table(rows))
    assert found.kappa_interval is not None
    assert found.kappa_interval.low == pytest.approx(theirs.kappa_low, abs=0.006)
    assert found.kappa_interval.high == pytest.approx(theirs.kappa_upp, abs=0.006)


def test_rows_that_answer_one_prompt_are_drawn_together() -> None:
    human, judge = from_table([[20, 5], [10, 15]])
    human, judge = human * 4, judge * 4
    alone = compare_labels(human, judge).kappa_interval
    together = compare_labels(human, judge, prompts=[*range(50)] * 4).kappa_interval
    once = compare_labels(human[:50], judge[:50]).kappa_interval
    assert alone is not None and together is not None and once is not None
    assert alone.width < 0.6 * together.width
    assert together.width == pytest.approx(once.width, rel=0.05)


def test_one_class_leaves_kappa_undefined_and_says_so() -> None:
    found = compare_labels(["safe"] * 5, ["safe"] * 4 + ["unsafe"])
    assert found.kappa is None and found.kappa_interval is None
    assert found.kappa_reason == "κ is undefined: human has one class only, 'safe'."
    assert found.accuracy == Rate(4, 5)
    table = render(found)
    assert table.rows[0].cells[3] == Cell.missing(found.kappa_reason)
    assert [cell.text for cell in render_rates(found).rows[0].cells[2:]][-1] == "0"


# What cannot be read ------------------------------------------------------------------------------


def test_unparsed_answers_are_wrong_counted_and_shown() -> None:
    human = ["safe", "unsafe", "unsafe", "safe", "unsafe", "", "Unparsed"]
    judge = ["Safe", " unsafe ", "", "who knows", "unparsed", "safe", "safe"]
    found = compare_labels(human, judge)
    assert (found.n, found.unlabelled, found.unparsed, found.blank) == (5, 2, 3, 1)
    assert found.foreign == {"who knows": 1}
    assert found.accuracy == Rate(2, 5)
    assert found.answers == ("safe", "unsafe", UNPARSED)
    assert found.confusion == ((1, 0, 1), (0, 1, 2))
    (rates,) = found.classes
    assert rates.positive == ("unsafe",)
    assert rates.sensitivity == Rate(1, 1, 2)
    assert rates.specificity == Rate(1, 1, 1)
    note = render(found).rows[0].cells[4].note
    assert note is not None and "1 blank; none of the labels: 'who knows' (1)" in note


def test_a_verdict_that_no_human_gives_is_an_answer_of_its_own() -> None:
    human, judge = ["safe", "unsafe", "unsafe"], ["safe", "Controversial", "unsafe"]
    found = compare_labels(human, judge)
    assert found.answers == ("safe", "unsafe", "controversial", UNPARSED)
    assert found.confusion == ((1, 0, 0, 0), (0, 1, 1, 0))
    assert found.unparsed == 0 and found.classes[0].sensitivity == Rate(1, 2)
    strict = compare_labels(human, judge, positive=["unsafe", "controversial"])
    assert strict.classes[0].sensitivity == Rate(2, 2)


def test_annotators_are_compared_where_both_have_labelled() -> None:
    found = compare_labels(["a", "b", "", "a"], ["a", "c", "b", ""], kind="annotators")
    assert (found.n, found.unlabelled, found.unparsed) == (2, 2, 0)
    assert found.labels == ("a", "b", "c") and found.accuracy == Rate(1, 2)
    mirrored = compare_labels(["a", "c", "b", ""], ["a", "b", "", "a"], kind="annotators")
    assert mirrored.kappa == found.kappa


def test_positive_labels_must_exist() -> None:
    with pytest.raises(EvaluationError, match="'unsaef'; did you mean 'unsafe'"):
        compare_labels(["safe", "unsafe"], ["safe", "safe"], positive=["unsaef"])


def test_columns_that_share_no_label_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no answer of 'judge' is a label of 'human': '1'"):
        compare_labels(["1_full", "2_none"], ["1", "2"])
    with pytest.raises(EvaluationError, match="no row has a label of 'human'"):
        compare_labels(["", " "], ["safe", "safe"])
    with pytest.raises(EvaluationError, match="2 labels of human but 1 of judge"):
        compare_labels(["a", "b"], ["a"])
    with pytest.raises(EvaluationError, match="both 'human' and 'judge'"):
        compare_labels(["a", ""], ["", "a"], kind="annotators")


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["safe", "unsafe", ""]), st.sampled_from(["safe", "unsafe", "?"])
        ),
        min_size=1,
        max_size=40,
    ).filter(lambda rows: any(a for a, _ in rows) and any(b != "?" for _, b in rows))
)
def test_every_row_is_accounted_for(rows: list[tuple[str, str]]) -> None:
    found = compare_labels([a for a, _ in rows], [b for _, b in rows], draws=200)
    assert sum(map(sum, found.confusion)) == found.n
    assert found.n + found.unlabelled == len(rows)
    for rates in found.classes:
        assert rates.sensitivity.total + rates.specificity.total == found.n
    assert found.accuracy.interval == wilson(found.accuracy.k, found.n)


# Files --------------------------------------------------------------------------------------------


def test_columns_are_found_by_their_usual_names(tmp_path: Path) -> None:
    text = "id,rater_1,rater_2,label,guard_judge,verdict,note\n1,a,a,a,a,b,\n2,b,a,b,b,b,\n"
    found = read_labels(sheet(tmp_path, text))
    assert found.human == "label"
    assert found.judges == ("guard_judge", "verdict")
    assert found.annotators == ("rater_1", "rater_2")
    assert found.identity == ("id",)
    named = read_labels(sheet(tmp_path, text), human="rater_1", judges=["note", "label"])
    assert (named.human, named.judges, named.annotators) == ("rater_1", ("note", "label"), ())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_what_spreadsheets_write_is_read(tmp_path: Path, delimiter: str, encoding: str) -> None:
    lines = [
        "id,human,judge,text",
        '1,safe,safe,"two\nlines"',
        "",
        '2,unsafe,safe,"a ""b"""',
        ",,,",
    ]
    text = "\r\n".join(lines).replace(",", delimiter)
    columns, rows = read_sheet(sheet(tmp_path, text, encoding))
    assert columns == ("id", "human", "judge", "text")
    assert [row["text"] for row in rows] == ["two\nlines", 'a "b"']
    assert agreements(read_labels(tmp_path / "labels.csv"))[0].n == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no rows"),
        ("\ufeff", "holds no rows"),
        ("id,human,judge\n", "holds no rows"),
        ("id,human,human\n1,a,b\n", "the column 'human' is given twice"),
        ("id,human,judge\n1,a\n", "line 2: row 1 has fewer fields than the header: 2, not 3"),
        ("id,human,judge\n1,a,a,a\n", "line 2: row 1 has more fields than the header: 4, not 3"),
        ('id,human,judge\n1,a,"b\n', "line 2: cannot be read as CSV .* quote left open"),
        ("id,humam,judge\n1,a,a\n", "Name it with --human; columns: id, humam, judge"),
        ("id,human,guess\n1,a,a\n", "Name it with --judge; columns: id, human, guess"),
        ("id,human,judge\n1,a,a\n1,b,b\n", "1 rows more than once by id: 1;"),
        (HEAD + "m,1,a,a\nm,1,a,a\n", "more than once by model [+] id: m / 1;"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        read_labels(sheet(tmp_path, text))


def test_a_missing_column_names_the_nearest(tmp_path: Path) -> None:
    path = sheet(tmp_path, HEAD + "m,1,a,a\nn,1,b,a\n")
    with pytest.raises(EvaluationError, match="no column 'jugde'; did you mean 'judge'"):
        read_labels(path, judges=["jugde"])
    with pytest.raises(EvaluationError, match=r"no column 'zzz'; known: model, id, human, judge$"):
        read_labels(path, human="zzz")
    with pytest.raises(EvaluationError, match="did you mean 'model'"):
        agreements(read_labels(path), by="modle")
    with pytest.raises(EvaluationError, match="cannot be both"):
        read_labels(path, judges=["human"])


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be read: No such file"):
        read_labels(tmp_path / "none.csv")
    with pytest.raises(EvaluationError, match=r"not UTF-8 .* save it as"):
        read_labels(sheet(tmp_path, HEAD + "m,1,ä,a\n", "latin-1"))


# Tables -------------------------------------------------------------------------------------------


def _found() -> list[Agreement]:
    human, judge = from_table([[20, 5], [10, 15]])
    return [compare_labels([*human, "0"], [*judge, "I cannot"], names=("human", "guard"))]


def test_the_tables_hold_the_figures() -> None:
    found = _found()
    (row,) = render(found).rows
    assert row.cells[0].text == "guard vs human"
    assert [cell.value for cell in row.cells[1:]] == [51, 35 / 51, found[0].kappa, 1, 0]
    names = [table.title for table in agreement_tables(found)]
    assert names == ["Agreement with human labels", "Judges by class", "guard by human"]
    confusion = render_confusion(found[0])
    assert [c.name for c in confusion.columns] == ["human", "0", "1", "unparsed"]
    assert [[cell.text for cell in row.cells] for row in confusion.rows] == [
        ["0", "20", "5", "1"],
        ["1", "10", "15", "0"],
    ]
    for form in (as_markdown, as_csv, as_latex, as_html):
        assert all("κ" in form(table) or "kappa" in form(table) for table in [render(found)])


def test_the_terminal_shows_what_a_person_needs() -> None:
    console = Console(width=150, record=True, file=io.StringIO())
    for table in agreement_tables(_found()):
        console.print(as_rich(table))
    text = console.export_text()
    for part in ("68.6 [55.0, 79.7]", "1 ¹", "of guard count as", "Wilson's"):
        assert part in text, part


def test_parts_of_the_rows_are_read_as_the_whole_is(tmp_path: Path) -> None:
    """A model whose judge failed throughout, one that nobody labelled, one with a single class."""
    rows = ["a,1,safe,safe", "a,2,unsafe,unsafe", "b,1,unsafe,sorry", "c,1,,safe", "d,1,safe,safe"]
    found = agreements(read_labels(sheet(tmp_path, HEAD + "\n".join(rows))), by="model")
    assert [item.group for item in found] == ["all rows", *(f"model {m}" for m in "abcd")]
    assert [replace(item.accuracy, by_clusters=None) for item in found] == [
        Rate(3, 4),
        Rate(2, 2),
        Rate(0, 1),
        Rate(0, 0),
        Rate(1, 1),
    ]
    assert {item.answers for item in found} == {("safe", "unsafe", UNPARSED)}
    assert {rates.positive for item in found for rates in item.classes} == {("unsafe",)}
    reasons = [item.kappa_reason for item in found]
    assert reasons[:2] == [None, None] and reasons[3] == "No row is labelled."
    assert "only, 'unsafe'" in (reasons[2] or "") and "only, 'safe'" in (reasons[4] or "")
    shown = [[cell.text for cell in row.cells[1:4]] for row in render(found).rows]
    assert shown[2:] == [["1", "0.0 [0.0, 79.3]", "n/a"], ["0", "n/a", "n/a"], shown[4]]
