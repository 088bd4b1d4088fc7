"""A blind sample out and its labels back: nothing shown that should not be, nothing lost."""

from __future__ import annotations

import csv
import errno
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("statsmodels.stats.proportion")

from safeswap.cli import main
from safeswap.errors import EvaluationError
from safeswap.evaluation.human import (
    COLUMNS,
    Annotation,
    Annotations,
    key_of,
    read_annotations,
    sample_for_annotation,
    stratum,
    weighted_error_rates,
    write_sample,
)
from safeswap.evaluation.stats import Rate, rogan_gladen, wilson
from safeswap.io.files import write_atomically

Rows = list[dict[str, Any]]
VERDICTS = ("safe", "unsafe", "controversial", "invalid", "unparsed")


def response(number: int, **fields: Any) -> dict[str, Any]:
    row = {
        "key": f"merged/multijail/sw/{number}",
        "arm": "merged",
        "benchmark": "multijail",
        "language": "sw",
        "prompt": f"swali {number}",
        "response": f"jibu {number}",
        "verdict": "safe",
        "flags": [],
    }
    return row | fields


def responses() -> Rows:
    """Two arms, two languages: 80 safe, 16 unsafe, 3 unparsed and one flagged of each."""
    rows = []
    for arm in ("base", "merged"):
        for language in ("sw", "te"):
            for number in range(100):
                verdict = "safe" if number < 80 else "unsafe" if number < 96 else "unparsed"
                flags = ["empty"] if number == 99 else []
                verdict = "safe" if flags else verdict
                key = f"{arm}/multijail/{language}/{number}"
                rows.append(
                    response(number, key=key, arm=arm, language=language, verdict=verdict)
                    | {"flags": flags}
                )
    return rows


def label(path: Path, choose: Callable[[dict[str, str]], str]) -> None:
    """Fill the label column of a sheet as a person with a spreadsheet would."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["label"] = choose(row)
    rewrite(path, rows)


def rewrite(path: Path, rows: list[dict[str, str]], delimiter: str = ",") -> None:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


# The sample ---------------------------------------------------------------------------------------


def test_the_sample_is_proportional_and_leaves_no_stratum_out() -> None:
    sample = sample_for_annotation(responses(), 100, seed=3)
    assert len(sample.rows) == 100
    assert sample.strata["base / multijail / sw / safe"] == 80
    assert sample.strata["base / multijail / sw / safe, flagged"] == 1
    assert sum(sample.strata.values()) == 400
    for name, count in sample.drawn.items():
        verdict = name.split(" / ")[3]
        assert count in {"safe": (19, 20), "unsafe": (3, 4)}.get(verdict, (1,))
    drawn = Counter(stratum(row) for row in sample.rows)
    assert drawn == Counter(sample.drawn)


def test_the_sample_depends_on_rows_and_seed_only() -> None:
    rows = responses()
    one = sample_for_annotation(rows, 60, seed=1)
    assert one == sample_for_annotation(rows[::-1], 60, seed=1)
    assert one.rows != sample_for_annotation(rows, 60, seed=2).rows


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(VERDICTS), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 80),
)
def test_every_stratum_has_between_one_and_all_of_its_rows(
    kinds: list[tuple[str, bool]], count: int
) -> None:
    rows = [
        response(n, verdict=verdict, flags=["echo"] * flagged)
        for n, (verdict, flagged) in enumerate(kinds)
    ]
    strata = {stratum(row) for row in rows}
    if count < len(strata):
        with pytest.raises(EvaluationError, match=f"all {len(strata)} strata"):
            sample_for_annotation(rows, count)
        return
    sample = sample_for_annotation(rows, count)
    assert len(sample.rows) == min(count, len(rows))
    assert len({row["key"] for row in sample.rows}) == len(sample.rows)
    for name in strata:
        assert 1 <= sample.drawn[name] <= sample.strata[name]


def test_responses_that_cannot_be_sampled_are_refused() -> None:
    with pytest.raises(EvaluationError, match="no judged responses"):
        sample_for_annotation([], 10)
    with pytest.raises(EvaluationError, match="'merged/multijail/sw/1' has no text in verdict"):
        sample_for_annotation([response(1, verdict=None)], 10)
    with pytest.raises(EvaluationError, match="more than once: merged/multijail/sw/1"):
        sample_for_annotation([response(1), response(1)], 10)


# The sheet ----------------------------------------------------------------------------------------


def test_the_sheet_is_blind(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    key = write_sample(sample_for_annotation(responses(), 100), path)
    content = path.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") and key == tmp_path / "sheet.csv.key.json"
    text = content.decode("utf-8-sig")
    for hidden in ("merged", "base", "multijail", "unsafe", "unparsed", "flagged"):
        assert hidden not in text
    rows = rows_of(path)
    assert tuple(rows[0]) == COLUMNS
    assert {row["arm_blinded"] for row in rows} == {"model 1", "model 2"}
    assert all(row["label"] == row["note"] == "" for row in rows)
    by_model = [row["arm_blinded"] for row in rows]
    assert by_model != sorted(by_model)  # shuffled: the place says nothing either
    held = json.loads(key.read_text())
    assert held["strata"]["base / multijail / sw / safe"] == {
        "size": 80,
        "sampled": 20,
        "weight": 4,
    }
    assert {row["row_key"] for row in rows} == set(held["rows"])


def test_labels_are_never_overwritten(tmp_path: Path) -> None:
    sample = sample_for_annotation(responses(), 30)
    write_sample(sample, tmp_path / "sheet.csv")
    with pytest.raises(EvaluationError, match=r"sheet\.csv exists already"):
        write_sample(sample, tmp_path / "sheet.csv")
    (tmp_path / "sheet.csv").unlink()
    with pytest.raises(EvaluationError, match=r"is the key of another sample.*renamed.*--out"):
        write_sample(sample_for_annotation(responses(), 30, seed=1), tmp_path / "sheet.csv")


@pytest.mark.parametrize("fails", [1, 2])
def test_a_full_disk_leaves_nothing_that_is_refused_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    """Whichever of the two files meets it, the same command goes on afterwards."""
    sample, sheet = sample_for_annotation(responses(), 30), tmp_path / "sheet.csv"
    whole = write_sample(sample, tmp_path / "whole.csv")
    calls = []

    def full(path: Path, data: bytes, **settings: Any) -> None:
        calls.append(path)
        if len(calls) == fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomically(path, data, **settings)

    with monkeypatch.context() as patched:
        patched.setattr("safeswap.evaluation.human.sampling.write_atomically", full)
        with pytest.raises(EvaluationError, match=r"No space left.*Free some space"):
            write_sample(sample, sheet)
    assert not sheet.exists()
    key = write_sample(sample, sheet)
    assert sheet.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert json.loads(key.read_text())["rows"] == json.loads(whole.read_text())["rows"]


def test_an_answer_of_any_length_comes_back(tmp_path: Path) -> None:
    rows = [response(1, response="neno " * 40_000), response(2)]
    sheet = tmp_path / "sheet.csv"
    write_sample(sample_for_annotation(rows, 2), sheet)
    found = read_annotations(sheet)
    assert (found.unlabelled, found.missing) == (2, 0)


def test_a_renamed_sheet_is_explained_and_read_with_its_key(tmp_path: Path) -> None:
    key = write_sample(sample_for_annotation(responses(), 30), tmp_path / "sheet.csv")
    renamed = (tmp_path / "sheet.csv").rename(tmp_path / "labelled by me.csv")
    with pytest.raises(EvaluationError, match=r"--key FILE.*keys in this folder: sheet.csv.key"):
        read_annotations(renamed)
    assert read_annotations(renamed, key).unlabelled == 30
    said = CliRunner().invoke(main, ["label", "agreement", str(renamed)])
    assert said.exit_code == 1 and "--key FILE" in said.output


HOSTILE = ["=cmd|' /C calc'!A0", "+1", "-x", "@SUM(A1)", "\t=1", "'quoted", "a\r\nb\n\nc", '"', ""]


def test_no_cell_is_a_formula_and_line_breaks_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    rows = [response(n, response=text, prompt=text) for n, text in enumerate(HOSTILE)]
    write_sample(sample_for_annotation(rows, 99), path)
    seen = {row["response"] for row in rows_of(path)}
    assert not [text for text in seen if text.lstrip()[:1] in ("=", "-", "@")]
    assert "a\r\nb\n\nc" in seen and "'=cmd|' /C calc'!A0" in seen


# Back ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(st.text(max_size=20) | st.sampled_from(HOSTILE), min_size=1, max_size=8))
def test_any_text_makes_the_round_trip(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("round") / "sheet.csv"
    rows = [response(n, response=text, prompt=text) for n, text in enumerate(texts)]
    write_sample(sample_for_annotation(rows, 99), path)
    label(path, lambda row: "unsafe")
    found = read_annotations(path)
    assert (found.unlabelled, found.missing, found.changed) == (0, 0, 0)
    assert {row.key for row in found.labelled} == {row["key"] for row in rows}
    assert {row.human for row in found.labelled} == {"unsafe"}


def test_labels_come_back_with_what_was_hidden(tmp_path: Path) -> None:
    path, rows = tmp_path / "sheet.csv", responses()
    write_sample(sample_for_annotation(rows, 40), path)
    label(path, lambda row: " Unsafe" if row["response"].endswith("1") else "safe")
    held = {row["key"]: row for row in rows}
    found = read_annotations(path)
    assert len(found.labelled) == 40
    for item in found.labelled:
        row = held[item.key]
        ours = (item.arm, item.benchmark, item.language, item.verdict, item.stratum)
        theirs = (row["arm"], row["benchmark"], row["language"], row["verdict"], stratum(row))
        assert ours == theirs
        assert item.human == ("unsafe" if row["response"].endswith("1") else "safe")


def test_a_sheet_saved_by_a_spreadsheet_is_the_same_sheet(tmp_path: Path) -> None:
    """Semicolons, other line breaks, a column more, columns moved, the leading ' gone."""
    path = tmp_path / "sheet.csv"
    rows = [response(n, response=text, prompt="a\nb") for n, text in enumerate(HOSTILE)]
    write_sample(sample_for_annotation(rows, 99), path)
    edited = []
    for row in rows_of(path)[::-1]:
        row = {"label": "invalid", "mine": "x"} | {k: v for k, v in row.items() if k != "label"}
        row["response"] = row["response"].removeprefix("'").replace("\r\n", "\n")
        edited.append(row)
    rewrite(path, edited, delimiter=";")
    found = read_annotations(path)
    assert len(found.labelled) == len(HOSTILE) and found.changed == 0


def test_blank_missing_and_changed_rows_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    write_sample(sample_for_annotation(responses(), 40), path)
    label(path, lambda row: "safe")
    rows = rows_of(path)
    rows[0]["label"] = " "
    rows[1]["response"] = "something else"
    rewrite(path, rows[:-3])
    found = read_annotations(path)
    assert (found.unlabelled, found.missing, found.changed) == (1, 3, 1)
    assert len(found.labelled) == 35


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    write_sample(sample_for_annotation(responses(), 40, seed=0), path)
    rows = rows_of(path)
    rewrite(path, [rows[0] | {"label": "unsfe"}, *rows[1:]])
    with pytest.raises(
        EvaluationError, match=r"row r.*: 'unsfe' is no label; did you mean 'unsafe"
    ):
        read_annotations(path)
    rewrite(path, [*rows, rows[0]])
    with pytest.raises(EvaluationError, match=f"more than once: {rows[0]['row_key']}"):
        read_annotations(path)
    rewrite(path, [{k: v for k, v in row.items() if k != "label"} for row in rows])
    with pytest.raises(EvaluationError, match="no column 'label'; known: row_key"):
        read_annotations(path)
    other = tmp_path / "other.csv"
    write_sample(sample_for_annotation(responses(), 40, seed=1), other)
    rewrite(path, rows)
    with pytest.raises(EvaluationError, match="40 of 40 rows are not in its key"):
        read_annotations(path, key_of(other))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{", "not JSON"),
        ("[]", "not a key written by this version"),
        ('{"format": "other"}', "not a key written by this version"),
        ('{"format": "safeswap annotation key 1"}', "damaged"),
        ('{"format": "safeswap annotation key 1", "rows": {"r": {}}, "strata": {}}', "damaged"),
        ('{"format": "safeswap annotation key 1", "rows": [], "strata": {}}', "damaged"),
        ('{"format": "safeswap annotation key 1", "rows": {}, "strata": {"a": {}}}', "damaged"),
    ],
)
def test_a_bad_key_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "sheet.csv"
    key = write_sample(sample_for_annotation(responses(), 40), path)
    key.unlink()
    if content is not None:
        key.write_text(content)
    with pytest.raises(EvaluationError, match=message):
        read_annotations(path)


# Error rates --------------------------------------------------------------------------------------


def annotated(entries: list[tuple[str, str, str]], strata: dict[str, int]) -> Annotations:
    rows = [
        Annotation(str(n), "a", "b", "sw", human, verdict, name)
        for n, (human, verdict, name) in enumerate(entries)
    ]
    return Annotations(tuple(rows), strata, 0, 0, 0)


def test_error_rates_are_weighted_back_to_all_responses() -> None:
    """90 called safe, 10 labelled, 1 wrongly; 10 called unsafe, all labelled, 2 wrongly.

    Of all: unsafe and called so 8, unsafe and called safe 9 · 1, safe and called so 81, safe and
    called unsafe 2. Sensitivity 8/17, specificity 81/83.
    """
    entries = [("safe", "safe", "s")] * 9 + [("unsafe", "safe", "s")]
    entries += [("unsafe", "unsafe", "u")] * 8 + [("invalid", "unsafe", "u")] * 2
    found = weighted_error_rates(annotated(entries, {"s": 90, "u": 10, "x": 7}))
    assert found.sensitivity.value == pytest.approx(8 / 17)
    assert found.specificity.value == pytest.approx(81 / 83)
    assert (found.sensitivity.labels, found.specificity.labels) == (9, 11)
    assert found.sensitivity.effective == pytest.approx(17**2 / (8 + 81))
    assert found.sensitivity.value in found.sensitivity.interval
    assert (found.unparsed, found.uncovered) == (0, 7)
    unweighted = annotated(entries, {}).agreement(["unsafe"]).classes[0]
    assert unweighted.sensitivity == Rate(8, 9)


def test_equal_weights_give_the_plain_rates() -> None:
    entries = [("safe", "safe", "s")] * 12 + [("unsafe", "safe", "s")] * 3
    entries += [("unsafe", "controversial", "s")] * 2 + [("unsafe", "unparsed", "s")]
    held = annotated(entries, {"s": 18})
    loose, strict = (
        weighted_error_rates(held),
        weighted_error_rates(held, judge_positive=["unsafe", "controversial"]),
    )
    assert (loose.sensitivity.value, strict.sensitivity.value) == (0, pytest.approx(0.4))
    assert strict.sensitivity.counts == pytest.approx((2, 5))
    assert strict.sensitivity.interval == wilson(2, 5)
    assert strict.specificity.value == 1 and strict.unparsed == 1


def test_a_benchmark_is_a_stratum_of_its_own() -> None:
    rows = [response(n) for n in range(9)] + [{**response(9), "benchmark": "other"}]
    assert sorted(sample_for_annotation(rows, 2).drawn.values()) == [1, 1]


def test_what_is_not_among_the_labelled_is_said(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    write_sample(sample_for_annotation(responses(), 100), path)
    assert read_annotations(path).left_out == "100 not labelled yet"
    label(path, lambda row: "safe")
    assert read_annotations(path).left_out == ""
    first, _, *others = rows_of(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows([{**first, "response": "another"}, *others])
    assert read_annotations(path).left_out == (
        "1 left out, for their text is not the one handed out; 1 handed out and not in the sheet"
    )


def test_without_labels_of_a_class_there_is_no_rate() -> None:
    found = weighted_error_rates(annotated([("safe", "safe", "s")], {"s": 5}))
    assert found.sensitivity.value is None and found.sensitivity.counts == (0, 0)
    corrected = rogan_gladen((3, 10), found.sensitivity.counts, found.specificity.counts)
    assert corrected.reason is not None and "positive class" in corrected.reason
    with pytest.raises(EvaluationError, match="did you mean 'unsafe'"):
        weighted_error_rates(annotated([], {}), positive=["unsave"])


def test_the_whole_way_finds_the_true_rate(tmp_path: Path) -> None:
    """Out, labelled, back, weighted and corrected: nearer the truth than what the judge said."""
    generator = np.random.default_rng(5)
    truth = generator.random(2000) < 0.3
    called = np.where(truth, generator.random(2000) < 0.5, generator.random(2000) < 0.05)
    rows = [response(n, verdict="unsafe" if said else "safe") for n, said in enumerate(called)]
    write_sample(sample_for_annotation(rows, 400), tmp_path / "sheet.csv")
    right = {f"swali {n}": "unsafe" if unsafe else "safe" for n, unsafe in enumerate(truth)}
    label(tmp_path / "sheet.csv", lambda row: right[row["prompt"]])
    rates = weighted_error_rates(read_annotations(tmp_path / "sheet.csv"))
    found = rogan_gladen(
        (int(called.sum()), 2000), rates.sensitivity.counts, rates.specificity.counts
    )
    assert found.value is not None and found.interval is not None
    assert abs(found.value - truth.mean()) < abs(called.mean() - truth.mean()) / 2
    assert truth.mean() in found.interval
