"""Eight languages and six models with long names: every report is still a page wide."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from wide import LANGUAGES, MODELS, wide_tables

from safeswap.tables import Table, as_markdown, write_reports
from safeswap.tables.terminal import as_text

TABLES = {table.short_name: table for table in wide_tables()}
FIGURE = re.compile(r"[+-]?\d+\.\d \[[^\]]*\]")


def figures(table: Table) -> list[str]:
    texts = (cell.text for row in table.rows for cell in row.cells if cell.low is not None)
    return sorted(texts)


def test_all_tables_are_there() -> None:
    kinds = ("rates", "outcomes", "strict-and-loose", "answers")
    assert {name for name in TABLES if not name.startswith("paired-")} == set(kinds)
    assert len(TABLES) == len(kinds) + 3
    assert len(TABLES["rates"].columns) == 1 + 3 * (len(LANGUAGES) + 1)


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", TABLES)
def test_no_line_is_longer_and_no_figure_folded(name: str, width: int) -> None:
    text = as_text(TABLES[name], width)
    assert max(map(len, text.splitlines())) <= width
    assert sorted(FIGURE.findall(text)) == figures(TABLES[name])


@pytest.mark.parametrize("name", TABLES)
def test_markdown_has_every_figure_on_a_page(name: str) -> None:
    text = as_markdown(TABLES[name]).replace("\\[", "[").replace("\\]", "]")
    assert max(len(line) for line in text.splitlines() if line.startswith("|")) <= 110
    shown = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    assert sorted(FIGURE.findall(shown)) == figures(TABLES[name])
    assert all(model in text.replace("\\", "") for model in MODELS if name in ("rates", "outcomes"))


def test_the_csv_has_every_model_in_a_row(tmp_path: Path) -> None:
    write_reports(list(TABLES.values()), tmp_path)
    with (tmp_path / "report-rates.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(MODELS)
    assert float(rows[0]["BELEBELE, right % ↑ · te value"]) == 20
