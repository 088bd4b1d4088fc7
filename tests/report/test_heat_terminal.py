"""Maps in the terminal: every layer once, no line too long, values told apart without colour."""

from __future__ import annotations

import io
import re

from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from safeswap.report.heat_terminal import HeatMap, HeatRow, bars, short_names

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
names = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=30)


def drawn(heat: HeatMap, width: int, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding, errors="replace", newline="\n")
    Console(file=out, width=width).print(heat)
    out.flush()
    return raw.getvalue().decode(encoding).splitlines()


@example(layers=129, experts=["0"], width=141)  # no room for 128
@given(
    st.integers(1, 140), st.lists(names, min_size=1, max_size=4, unique=True), st.integers(34, 170)
)
def test_every_layer_stands_once_below_its_number(
    layers: int, experts: list[str], width: int
) -> None:
    marks = [(LETTERS[n % 26], "") for n in range(layers)]
    rows = [HeatRow("attention", name, marks) for name in experts]
    lines = drawn(HeatMap([str(n) for n in range(layers)], rows), width)
    assert max(map(cell_len, lines)) <= width
    blocks = len(lines) // (len(rows) + 1)
    assert blocks * (len(rows) + 1) == len(lines)
    for at in range(len(rows)):
        said = [lines[(len(rows) + 1) * block + 1 + at] for block in range(blocks)]
        assert "".join(line.rpartition(" ")[2] for line in said) == "".join(m for m, _ in marks)
    for block in range(blocks):
        ruler, row = lines[(len(rows) + 1) * block], lines[(len(rows) + 1) * block + 1]
        assert ruler.split()[0] == "layer"
        for found in re.finditer(r"\d+", ruler):
            column, number = cell_len(ruler[: found.start()]), found.group()
            shift = cell_len(row) - len(row)  # wide letters in names take two columns
            assert row[column - shift] == LETTERS[int(number) % 26]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_larger_value_has_no_lower_block(values: list[float]) -> None:
    shown = [mark for mark, _ in bars(values, max(values), "#c8553d")]
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [shown[n] for n in order] == sorted(shown, key="▁▂▃▄▅▆▇█".index)
    if max(values):
        assert shown[order[-1]] == "█"


def test_what_is_not_there_is_empty() -> None:
    assert [mark for mark, _ in bars([0.0, float("nan"), 1.0], 1.0, "#c8553d")] == ["▁", " ", "█"]


@given(st.lists(names, max_size=30, unique=True), st.integers(6, 14))
def test_short_names_are_told_apart_and_fit(given_: list[str], longest: int) -> None:
    short = short_names(given_, longest)
    assert len({*short.values()}) == len(given_)
    assert all(cell_len(one) <= longest for one in short.values())
    assert all(short[name] == name for name in given_ if cell_len(name) <= longest - 6)


def test_a_terminal_without_blocks_has_signs() -> None:
    row = HeatRow("mlp", "", bars([0.0, 0.5, 1.0], 1.0, "#c8553d"))
    line = drawn(HeatMap(["0", "1", "2"], [row]), 40, "ascii")[1]
    assert line == "  mlp .+@"
