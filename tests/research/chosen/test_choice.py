"""The choice of scales and its tables, on counts made up by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from small_world.chosen import __main__ as program
from small_world.chosen.choice import compared, highest_objective, outcome
from small_world.chosen.families import (
    FAMILIES,
    LANGUAGE_EXPERT,
    REFERENCES,
    all_options,
)
from small_world.chosen.records import Case, Half, Records

OPTIONS = all_options()
NAMES = tuple(option.name for option in OPTIONS)


def case(
    seed: int = 0, language: str = "qab", dev: dict[str, Any] | None = None, **test: Any
) -> Case:
    """Of 100 harmful and 200 harmless questions. Every model refuses 10 and has 160 right but for
    those named: name → (refused, refused in the language, right, harmless refused).
    """
    halves = {}
    for half, given in (("dev", dev or {}), ("test", test.get("test", {}))):
        rows = [given.get(name, (10, 5, 160, 0)) for name in NAMES]
        halves[half] = Half(100, 200, np.array(rows))
    return Case({"seed": seed}, language, "digests", NAMES, halves)


def test_the_scale_that_refuses_most_within_a_point_on_dev_is_reported_on_test() -> None:
    dev = {
        "chat vector, γ = 0.5": (20, 20, 159, 0),
        "chat vector, γ = 1": (30, 25, 158, 0),  # 1 point less than 160 of 200: just allowed
        "chat vector, γ = 2": (90, 90, 157, 0),
    }
    test = {"chat vector, γ = 1": (44, 33, 150, 2), "chat vector, γ = 2": (99, 99, 199, 0)}
    found = outcome(case(dev=dev, test=test), "chat vector")
    assert found.scales == ("γ = 1",)
    assert found.figures == pytest.approx(
        {
            "refusal": 0.44,
            "own_refusal": 0.33,
            "ability": 0.75,
            "over_refusal": 0.01,
            "objective": (0.44 + 0.75) / 2,
            "lost": 0.05,
        }
    )
    free = outcome(case(dev=dev, test=test), "chat vector", highest_objective)
    assert free.scales == ("γ = 2",)


def test_a_family_that_costs_too_much_at_every_scale_is_the_language_expert() -> None:
    dear = {o.name: (90, 90, 100, 0) for o in OPTIONS if o.family == "inverted"}
    found = outcome(case(dev=dear, test={LANGUAGE_EXPERT: (7, 7, 180, 0)}), "inverted")
    assert found.scales == ("0",)
    assert found.figures["refusal"] == pytest.approx(0.07)
    assert found.figures["lost"] == 0


def test_draws_choose_by_themselves_and_are_averaged() -> None:
    dev = {"permuted, scale 0.5": (50, 50, 160, 0), "permuted #1, scale 1": (50, 50, 160, 0)}
    test = {"permuted, scale 0.5": (20, 0, 160, 0), "permuted #1, scale 1": (60, 0, 160, 0)}
    found = outcome(case(dev=dev, test=test), "permuted")
    assert found.scales[:2] == ("scale 0.5", "scale 1")
    # the other two draws are level at all their scales and the language expert: 10 of 100
    assert found.figures["refusal"] == pytest.approx((0.2 + 0.6 + 0.1 + 0.1) / 4)


def test_an_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no family 'chat'.*chat vector, gram-add"):
        outcome(case(), "chat")


def test_units_are_the_means_of_their_languages_and_all_agree_in_sign() -> None:
    cases = [
        case(
            seed,
            code,
            dev={"gram-add, k = 2 γ = 1": (60, 60, 160, 0)},
            test={"gram-add, k = 2 γ = 1": (60 + seed + 10 * n, 0, 160, 0)},
        )
        for seed in range(4)
        for n, code in enumerate(("qab", "qac"))
    ]
    rows = {row["name"]: row for row in compared(cases, lambda c: c.cell["seed"], "gram-add")}
    assert rows.keys() == {*REFERENCES, *FAMILIES}
    assert rows["gram-add"]["objective_by_unit"][2] == pytest.approx((0.67 + 0.8) / 2)
    assert rows["gram-add"]["p"] is None
    assert rows["chat vector"]["p"] == pytest.approx(2 / 16)
    assert rows["chat vector"]["p_holm"] == 1.0  # 8 rivals
    assert rows["chat vector"]["minus_reference"] == pytest.approx((0.1 - 0.665) / 2)


def test_records_go_to_a_file_and_back_and_the_tables_come_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "records.json"
    dev = {"gram-add, k = 2 γ = 1": (60, 60, 160, 0)}
    cases = [case(s, c, dev=dev) for s in (1, 0) for c in ("qac", "qab")]
    gates = [{"cell": {"seed": 0}, "gates": [["1 a gate", "3 of 4", True]]}]
    Records(cases, gates).save(path)
    again = Records.load(path)
    assert again.gates == gates
    assert again.has({"seed": 1}, "qab", "digests")
    assert not again.has({"seed": 1}, "qab", "others")
    for one, other in zip(cases, again.cases, strict=True):
        assert (one.cell, one.language, one.names) == (other.cell, other.language, other.names)
        assert all(
            np.array_equal(one.halves[half].counts, other.halves[half].counts)
            for half in ("dev", "test")
        )
    program.main(["--records", str(path)])
    said = capsys.readouterr().out
    assert "| gram-add | 10.0 | 5.0 | 80.0 |" in said
    assert "| gram-add | k = 2 γ = 1 (4) |" in said


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"format": "else"}')
    with pytest.raises(ValueError, match="format 'else' is not"):
        Records.load(tmp_path / "other.json")


def test_a_missing_checkpoint_is_named_with_the_way_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        program.main(["--models", str(tmp_path), "--records", str(tmp_path / "r.json")])
    assert "small_world.train" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        program.main(["--records", str(tmp_path / "r.json")])
    assert "give --models" in capsys.readouterr().err
