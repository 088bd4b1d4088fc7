"""The tables of an attribution."""

from __future__ import annotations

import io

from rich.console import Console

from attributions import make_attribution
from safeswap.report.attribution import record, sums_table, units_table
from safeswap.tables import print_tables


def cells(table: object) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]  # type: ignore[attr-defined]


def test_units_stand_in_the_order_in_which_they_are_taken() -> None:
    assert cells(units_table(make_attribution())) == [
        ["0.mlp", "+2.000", "+0.100", "+0.100", "free", "2.000", "0.000"],
        ["1.attention", "+1.000", "+0.400", "-0.100", "10.0", "3.000", "0.100"],
        ["0.attention", "+0.500", "0.000", "-0.200", "2.5", "3.500", "0.300"],
    ]
    few = units_table(make_attribution(), 2)
    assert len(few.rows) == 2
    assert few.notes[0] == "3 of 4 units bring refusing; the best 2 are here, --units prints all"
    last = cells(units_table(make_attribution(), None))[-1]
    assert last == ["1.mlp", "0.000", "0.000", "0.000", "", "", ""], "never taken"


def test_sums_stand_beside_the_difference() -> None:
    """By hand: 3.5 of 4 nats; 0.5 of 0.5; −0.2 of −0.2."""
    found = cells(sums_table(make_attribution()))
    assert found[0] == ["refusing", "-3.000", "1.000", "4.000", "3.500", "12.5"]
    assert [row[-1] for row in found[1:]] == ["0.0", "0.0"]
    still = make_attribution(after=make_attribution().before)
    assert cells(sums_table(still))[0][-1] == "no change"
    assert record(still)["error"]["refusing"] is None


def test_a_terminal_of_80_columns_has_it_in_one_piece() -> None:
    text = io.StringIO()
    print_tables([units_table(make_attribution())], Console(file=text, width=80))
    assert text.getvalue().count("0.mlp") == 1
