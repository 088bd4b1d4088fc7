"""CSV from people and spreadsheets, against Python's own writer; and every fault with its line."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeswap.errors import ConfigError, EvaluationError
from safeswap.evaluation.benchmarks.prompts import read_prompts
from safeswap.evaluation.human import read_sheet
from safeswap.io.csvfile import need_column, read_bare_csv, read_csv, read_tsv

LONG = "x" * 131_073
"""One character more than csv reads unless it is told to."""


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "file.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def said(path: Path, spreadsheet: bool = False) -> str:
    with pytest.raises(EvaluationError) as caught:
        read_csv(path, spreadsheet=spreadsheet, error=EvaluationError)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b\n1,2\n\xff,4\n", "line 3 is not UTF-8 (byte 8)"),
        ("ä,b\n".encode("latin-1"), "line 1 is not UTF-8 (byte 0)"),
        ("a,b\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "line 1 has a NUL byte"),
        (b"a,b\n1,2\n3,\0\n", "line 3 has a NUL byte, which no text has"),
        ("a,b,a\n", "the column 'a' is given twice in the header"),
        ('a,b\n"1\n2",3\n4\n', "line 4: row 2 has fewer fields than the header: 1, not 2"),
        ("a,b\n\n1,2,3\n", "line 3: row 1 has more fields than the header: 3, not 2"),
        ('a,b\n1,2\n"3,4\n5,6\n', "line 3: cannot be read as CSV"),
        ('a,b\n"1"2,3\n', "line 2: cannot be read as CSV"),
    ],
)
@pytest.mark.parametrize("spreadsheet", [False, True])
def test_every_fault_names_its_line(
    tmp_path: Path, content: bytes | str, words: str, spreadsheet: bool
) -> None:
    assert words in said(written(tmp_path, content), spreadsheet)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe or device" in said(tmp_path / "pipe")


def test_cells_of_any_length_are_read_and_csvs_own_limit_stays(tmp_path: Path) -> None:
    kept = csv.field_size_limit()
    assert len(LONG) > kept
    path = written(tmp_path, f"id,prompt,label\n1,{LONG},safe\n")
    assert read_prompts(path, "mine").prompts[0].text == LONG
    assert read_sheet(path)[1][0]["prompt"] == LONG
    assert read_tsv(written(tmp_path, f"{LONG}\t1\n")) == [(1, [LONG, "1"])]
    assert csv.field_size_limit() == kept


def test_what_only_spreadsheets_write_is_data_elsewhere(tmp_path: Path) -> None:
    path = written(tmp_path, " a ;b\n1;2\n;\n3;4,5\n")
    assert read_csv(path, spreadsheet=True) == (
        ["a", "b"],
        [(2, {"a": "1", "b": "2"}), (4, {"a": "3", "b": "4,5"})],
    )
    path = written(tmp_path, " a ,b\n,\n")
    assert read_csv(path) == ([" a ", "b"], [(2, {" a ": "", "b": ""})])


def test_a_file_without_header_or_quoting(tmp_path: Path) -> None:
    path = written(tmp_path, '\ufeff"How many?\t1\n\nx\n')
    assert read_tsv(path) == [(1, ['"How many?', "1"]), (2, []), (3, ["x"])]


def test_a_csv_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffone\n\n"two, ""2""\nand more"\na,b\n', encoding="utf-8")
    assert read_bare_csv(path) == [
        (1, ["one"]),
        (2, []),
        (3, ['two, "2"\nand more']),
        (5, ["a", "b"]),
    ]
    path.write_text('one\n"two\n')
    with pytest.raises(EvaluationError, match="line 2: cannot be read as CSV"):
        read_bare_csv(path, EvaluationError)


def test_a_missing_column_names_the_nearest() -> None:
    assert need_column("label", ["id", "label"], "file") == "label"
    with pytest.raises(ConfigError, match="no column 'lable'; did you mean 'label'"):
        need_column("lable", ["id", "label"], "file")


cells = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=4))
def test_what_pythons_writer_wrote_is_read_back(rows: list[list[str]]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["a", "b"], *rows])
    with tempfile.TemporaryDirectory() as folder:
        columns, found = read_csv(written(Path(folder), out.getvalue()))
    assert columns == ["a", "b"]
    assert [list(row.values()) for _, row in found] == rows
