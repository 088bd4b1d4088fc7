"""A row per method, by what merges' records say of themselves and not by their names."""

from __future__ import annotations

from pathlib import Path

from safeswap.evaluation.results.outcomes import gather
from safeswap.report.by_method import methods_table
from safeswap.tables import Table
from stored import HARM, READING, Stored


def shown(table: Table) -> dict[str, dict[str, str]]:
    names = [column.full_name for column in table.columns][1:]
    return {
        row.cells[0].text: dict(zip(names, (c.text for c in row.cells[1:]), strict=True))
        for row in table.rows
    }


def test_a_method_is_one_row_with_each_language_s_own_models(tmp_path: Path) -> None:
    """Names say nothing of it: the two of one method are called otherwise."""
    cells = {"harm/sw": HARM, "harm/te": HARM, "reading/te": READING}
    stored = Stored(tmp_path, cells).arm("base", "base")
    letters = {"sw": "uuus", "te": "ssss"}
    stored.judged("base", "harm/sw", "usss").judged("base", "harm/te", "uuuu")
    for code, name in (("sw", "one"), ("te", "by-module-te")):
        stored.arm(f"{code}-expert", "language", language=code)
        stored.arm(name, "merged", f"{code}-expert", code, "share-difference", by="layer", tau=0.1)
        stored.judged(f"{code}-expert", f"harm/{code}", letters[code])
        stored.judged(name, f"harm/{code}", "uuss")
    stored.arm("other", "merged", "te-expert", "te", "share-difference", by="module", tau=0.1)
    stored.judged("other", "harm/te", "usss")
    stored.arm("joined", "merged", "te-expert", "te", "uniform", "ties").judged(
        "joined", "harm/te", "uuuu"
    )
    table = methods_table(gather([tmp_path]))
    assert table is not None
    found = shown(table)
    harm = "Harm, unsafe % ↓ · "
    assert {
        name: [row[harm + code].split(" ")[0] for code in ("sw", "te")]
        for name, row in found.items()
    } == {
        "base": ["25.0", "100.0"],
        "language expert": ["75.0", "0.0"],
        "share-difference (by=layer)": ["50.0", "50.0"],
        "share-difference (by=module)": ["n/a", "25.0"],
        "uniform, ties": ["n/a", "100.0"],
    }
    assert "Harm, sw: no such model of this language" in table.cell_notes
    keys = [cell.key for cell in table.rows[1].cells[1:3]]
    assert keys == ["harm/sw/sw-expert", "harm/te/te-expert"]


def test_two_models_of_one_kind_keep_their_names(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM, "harm/te": HARM})
    for name, code in (("a", "sw"), ("again", "sw"), ("b", "te")):
        stored.arm(name, "merged", "", code, "gated").judged(name, f"harm/{code}", "us")
    table = methods_table(gather([tmp_path]))
    assert table is not None and [row.cells[0].text for row in table.rows] == ["gated", "again"]


def test_what_does_not_say_how_it_was_made_keeps_its_name(tmp_path: Path) -> None:
    """Folders by earlier versions: nothing is read out of ``by-layer-sw``."""
    stored = Stored(tmp_path, {"harm/sw": HARM, "harm/te": HARM})
    for code in ("sw", "te"):
        stored.arm(f"{code}-expert", "language", language=code)
        stored.judged(f"{code}-expert", f"harm/{code}", "us")
        stored.arm(f"by-layer-{code}", "merged", "", code)
        stored.judged(f"by-layer-{code}", f"harm/{code}", "us")
    table = methods_table(gather([tmp_path]))
    assert table is not None
    assert [row.cells[0].text for row in table.rows] == [
        "language expert",
        "by-layer-sw",
        "by-layer-te",
    ]


def test_with_one_language_a_method_is_a_model(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM}).arm("sw", "language", language="sw")
    stored.arm("merge", "merged", "sw", "sw", "gated").judged("merge", "harm/sw", "us")
    assert methods_table(gather([tmp_path])) is None
