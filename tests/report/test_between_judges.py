"""Judges beside each other: counts, shares and κ worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from safeswap.evaluation.judges import MajorityJudge
from safeswap.evaluation.results.majority import define_majority
from safeswap.evaluation.results.outcomes import gather
from safeswap.evaluation.results.store import open_results
from safeswap.report.between_judges import judges_table
from safeswap.report.comparison import rates_table
from safeswap.report.evaluation import compare, facts
from safeswap.tables import Table
from stored import BENIGN, HARM, READING, Stored

CELLS = {
    "harm/sw": {**HARM, "items": 10},
    "harm/te": {**HARM, "items": 4},
    "benign/sw": BENIGN,
    "reading/sw": READING,
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two models, of which three judges say this and that."""
    stored = Stored(tmp_path, CELLS).arm("one").arm("two")
    first = {"one": ("uuuusssss?", "usss", "rrss"), "two": ("ssssssuu", "ssss", "rsss")}
    second = {"one": ("uucssssuuu", "uss-", "rsrs"), "two": ("s-ss?suu", "ssus", "ssss")}
    for arm, (sw, te, benign) in first.items():
        stored.judged(arm, "harm/sw", sw, "alpha").judged(arm, "harm/te", te, "alpha")
        stored.judged(arm, "benign/sw", benign, "alpha").scored(arm, "reading/sw", "10")
    for arm, (sw, te, benign) in second.items():
        stored.also_judged(arm, "harm/sw", sw, "beta").also_judged(arm, "harm/te", te, "beta")
        stored.also_judged(arm, "benign/sw", benign, "beta")
    stored.also_judged("one", "harm/te", "ssss", "gamma")
    return tmp_path


def shown(table: Table | None) -> dict[tuple[str, str, str], list[str]]:
    assert table is not None
    return {
        (str(row.group).split(":")[0], row.cells[0].text, row.cells[1].text): [
            cell.text for cell in row.cells[2:]
        ]
        for row in table.rows
    }


HARMFUL, HARMLESS = "Answers to harmful prompts", "Answers to harmless prompts"


def kappa(both: int, first: int, second: int, neither: int) -> float:
    """Cohen's κ of two judges with two labels, from its definition."""
    n = both + first + second + neither
    seen = (both + neither) / n
    chance = (both + first) * (both + second) / n**2
    chance += (second + neither) * (first + neither) / n**2
    return (seen - chance) / (1 - chance)


def test_counts_shares_and_kappa_by_hand(results: Path) -> None:
    table = judges_table([results], gather([results], "alpha"))
    found = shown(table)
    # sw, strict: model one, of 9 read by both (the tenth alpha cannot read): uu uu uc us s…s su su
    #   both unsafe 3, only alpha 1, only beta 2, neither 3; model two, of 6: both 2, neither 4
    own = found[(HARMFUL, "sw", "alpha / beta")]
    assert own[0] == "15" and own[3:] == ["1", "2", "3"]
    assert own[1].startswith("80.0 [")
    assert own[2].startswith(f"{kappa(5, 1, 2, 7):.2f} [")
    # te: one: u/u s/s s/s (the fourth beta has not judged); two: ss ss su ss
    assert found[(HARMFUL, "te", "alpha / beta")][0] == "7"
    assert found[(HARMFUL, "te", "alpha / beta")][3:] == ["0", "1", "1"]
    together = found[(HARMFUL, "all", "alpha / beta")]
    assert together[0] == "22" and together[3:] == ["1", "3", "4"]
    assert together[2].startswith(f"{kappa(6, 1, 3, 12):.2f} [")
    refused = found[(HARMLESS, "sw", "alpha / beta")]
    # one: rr rs sr ss; two: rs ss ss ss
    assert refused[0] == "8" and refused[3:] == ["2", "1", "0"]
    assert refused[2].startswith(f"{kappa(1, 2, 1, 4):.2f} [")
    # gamma has judged four answers in te, and calls everything safe
    assert found[(HARMFUL, "te", "alpha / gamma")][0] == "4"
    assert found[(HARMFUL, "te", "alpha / gamma")][3:] == ["1", "0", "4"]
    assert (HARMFUL, "sw", "alpha / gamma") not in found
    assert not any(group == HARMLESS and "gamma" in pair for group, _, pair in found if group)


def test_loose_counts_controversial_as_safe(results: Path) -> None:
    found = shown(judges_table([results], gather([results], "alpha", strict=False)))
    own = found[(HARMFUL, "sw", "alpha / beta")]
    assert own[0] == "15" and own[3:] == ["2", "2", "3"]


def test_only_models_of_the_evidence_are_counted(results: Path) -> None:
    found = shown(judges_table([results], gather([results], "alpha", models=["two"])))
    assert found[(HARMFUL, "sw", "alpha / beta")][0] == "6"


def test_one_judge_has_nobody_beside_it(tmp_path: Path) -> None:
    stored = Stored(tmp_path, CELLS).arm("one")
    stored.judged("one", "harm/sw", "ss", "alpha")
    evidence = gather([tmp_path], "alpha")
    assert judges_table([tmp_path], evidence) is None
    stored.also_judged("one", "harm/sw", "uu", "alpha-prompt")
    stored.also_judged("one", "harm/sw", "uu", "alpha-thought")
    define_majority(open_results(tmp_path), MajorityJudge(["alpha", "b", "c"]))
    assert judges_table([tmp_path], evidence) is None  # none of these is about answers


def test_it_is_a_table_of_compare_and_the_majority_says_when_it_was_defined(
    results: Path,
) -> None:
    define_majority(open_results(results), MajorityJudge(["alpha", "beta", "gamma"]))
    tables = {table.name: table for table in compare([results], judge="majority")}
    assert list(shown(tables["judges"])) == list(
        shown(judges_table([results], gather([results], "alpha")))
    )
    note = (
        "It is the majority of alpha, beta, gamma, defined when verdicts were there already (alpha "
        "34, beta 32, gamma 4)."
    )
    assert note in tables["rates"].notes
    late = note.replace("It is the", "By the")
    assert all(table.notes[0] == late for name, table in tables.items() if name != "rates")
    own = compare([results], judge="alpha")
    assert not any("majority" in line for table in own for line in table.notes)
    assert rates_table(gather([results], "alpha")).notes[0].startswith("Judge: alpha;")
    told = dict(facts([results], judge="majority"))["judge"]
    assert told.startswith("majority of alpha, beta, gamma, defined when")


def test_intervals_hold_the_figure_and_go_by_prompts(results: Path) -> None:
    table = judges_table([results], gather([results], "alpha"))
    assert table is not None
    for row in table.rows:
        for cell in row.cells[3:5]:
            if cell.value is not None:
                assert cell.low is not None and cell.high is not None
                assert cell.low <= cell.value + 1e-9 and cell.value <= cell.high + 1e-9
                assert np.isfinite([cell.low, cell.high]).all()
