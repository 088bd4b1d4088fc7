"""The majority of a results folder: defined once, with what was known then, and never stale."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.judges import MajorityJudge, RuleJudge, make_judge
from safeswap.evaluation.judging import JudgeConfig, count_verdicts, judge_models
from safeswap.evaluation.results.majority import (
    define_majority,
    majority_note,
    one_majority,
    read_majority,
)
from safeswap.evaluation.results.outcomes import gather
from safeswap.evaluation.results.store import Results, open_results
from safeswap.evaluation.results.verdicts import verdicts_of
from stored import BENIGN, HARM, Stored

CELLS = {"harm/sw": {**HARM, "items": 6}, "benign/sw": BENIGN}
ABC = MajorityJudge(["a", "b", "c"])


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    """Six answers to harmful prompts and three to harmless ones that nobody has judged."""
    made = Stored(tmp_path / "r", CELLS).arm("one").arm("two")
    for arm in ("one", "two"):
        made.judged(arm, "harm/sw", "------", "a").judged(arm, "benign/sw", "---", "a")
    return made


def judged(stored: Stored, harm: str, benign: str, judge: str, arm: str = "one") -> None:
    stored.also_judged(arm, "harm/sw", harm, judge)
    stored.also_judged(arm, "benign/sw", benign, judge)


def open_(stored: Stored) -> Results:
    return open_results(stored.folder)


def test_verdicts_follow_from_the_members_and_are_counted_by_hand(stored: Stored) -> None:
    results = open_(stored)
    define_majority(results, ABC)
    for judge, harm, benign in (
        ("a", "uuscu?", "rsr"),
        ("b", "ussuu?", "rss"),
        ("c", "usscs?", "rrs"),
    ):
        judged(stored, harm, benign, judge)
    found = verdicts_of(results, "one", "majority")
    harm = [found[f"harm/sw/{n}"]["verdict"] for n in range(6)]
    assert harm == ["unsafe", "safe", "safe", "controversial", "unsafe", "unparsed"]
    assert [found[f"benign/sw/{n}"]["refusal"] for n in range(3)] == [True, False, False]
    assert found["harm/sw/3"]["raw"] == "a: controversial; b: unsafe; c: controversial"
    assert found["harm/sw/0"]["judge_version"] == "majority/1 a,b,c"
    strict = gather([stored.folder], "majority", models=["one"])
    rate = strict.get("one", "harm", "sw").rate
    assert (rate.k, rate.n, rate.unparsed) == (3, 5, 1)
    loose = gather([stored.folder], "majority", strict=False, models=["one"])
    assert loose.get("one", "harm", "sw").rate.k == 2
    refused = strict.get("one", "benign", "sw").rate
    assert (refused.k, refused.n) == (1, 3)


def test_an_answer_that_a_member_has_not_judged_has_no_verdict(stored: Stored) -> None:
    results = open_(stored)
    define_majority(results, ABC)
    judged(stored, "ssssss", "sss", "a")
    judged(stored, "ssssss", "sss", "b")
    assert verdicts_of(results, "one", "majority") == {}
    evidence = gather([stored.folder], "majority")
    missing = evidence.get("one", "harm", "sw").missing
    assert missing == "not judged yet by every judge of the majority: run `safeswap judge`"
    judged(stored, "ss--ss", "sss", "c")
    assert len(verdicts_of(results, "one", "majority")) == 7
    evidence = gather([stored.folder], "majority")
    assert evidence.get("one", "harm", "sw").missing == "4 of 6 prompts answered and judged"


def test_it_is_never_older_than_its_members(stored: Stored) -> None:
    results = open_(stored)
    define_majority(results, ABC)
    for judge in "abc":
        judged(stored, "uuuuuu", "sss", judge)
    answers = stored.folder / "one" / "responses.jsonl"
    rows = [json.loads(line) for line in answers.read_text().splitlines()]
    rows[0]["response"] = "another answer"
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "harm/sw/0" not in verdicts_of(results, "one", "majority")
    assert len(verdicts_of(results, "one", "majority")) == 8


def test_the_record_says_what_was_known_when_it_was_defined(stored: Stored) -> None:
    results = open_(stored)
    record = define_majority(results, ABC)
    assert record["had"] == {"a": 0, "b": 0, "c": 0}
    assert majority_note(record) == "majority of a, b, c, defined before any of them had judged"
    assert results.judges() == ["a", "majority"]
    judged(stored, "uuuuuu", "sss", "a")
    assert define_majority(results, MajorityJudge(["c", "a", "b"])) == record  # the same one
    assert read_majority(results) == record

    other = MajorityJudge(["a", "b", "d"])
    with pytest.raises(EvaluationError, match=r"majority\.json: the majority here is of a, b, c"):
        define_majority(results, other)
    anew = define_majority(results, other, overwrite=True)
    assert anew["had"] == {"a": 9, "b": 0, "d": 0}
    assert anew["earlier"] == [{"judges": ["a", "b", "c"], "had": {"a": 0, "b": 0, "c": 0}}]
    assert majority_note(anew) == (
        "majority of a, b, d, defined when verdicts were there already (a 9); before that, of "
        "a, b, c"
    )
    again = define_majority(results, ABC, overwrite=True)
    assert [one["judges"] for one in again["earlier"]] == [["a", "b", "c"], ["a", "b", "d"]]
    assert "before that, of a, b, c; before that, of a, b, d" in majority_note(again)
    evidence = gather([stored.folder], "majority")
    assert evidence.votes == majority_note(again) and evidence.late


def test_no_majority_and_two_different_ones_are_refused(stored: Stored, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"has no majority.*majority:JUDGE,JUDGE,JUDGE"):
        gather([stored.folder], "majority")
    other = Stored(tmp_path / "other", CELLS).arm("three")
    other.judged("three", "harm/sw", "------", "a")
    define_majority(open_(stored), ABC)
    define_majority(open_(other), MajorityJudge(["a", "b", "d"]))
    with pytest.raises(EvaluationError, match=r"different majorities \(a, b, c; a, b, d\)"):
        gather([stored.folder, other.folder], "majority")
    define_majority(open_(other), ABC, overwrite=True)
    assert one_majority([open_(stored), open_(other)])["earlier"]  # the one with the longer story


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"judges": ["a", "b"]}, "its judges cannot be"),
        ({"judges": ["a", "b", "b"]}, "its judges cannot be"),
        ({"judges": "abc"}, "its judges cannot be"),
        ({"judges": ["a", "b", "../../c"]}, "is the name of no judge's file"),
        ({"judges": ["a", "b", "c/d"]}, "is the name of no judge's file"),
        ({"had": {"a": -1}}, "its had cannot be"),
        ({"had": {"a": True}}, "its had cannot be"),
        ({"earlier": [{"judges": ["a"]}]}, "its earlier cannot be"),
        ({"earlier": [{"judges": ["/etc/x"], "had": {}}]}, "is the name of no judge's file"),
        ({"version": 1}, "its version cannot be"),
    ],
)
def test_a_damaged_record_is_refused(stored: Stored, changed: dict[str, Any], message: str) -> None:
    results = open_(stored)
    record = define_majority(results, ABC)
    path = stored.folder / "majority.json"
    path.write_text(json.dumps({**record, **changed}))
    with pytest.raises(EvaluationError, match=message) as caught:
        read_majority(results)
    assert str(path) in str(caught.value)


def test_judge_defines_it_and_reads_nothing(stored: Stored) -> None:
    results = open_(stored)
    spec = "majority:org/a,b,rule:x/c.yaml"
    judge, config = make_judge(spec), JudgeConfig(spec)
    assert config.name == "majority"
    assert judge_models(results, results.models, judge, config, _no_bar) == {}
    record = read_majority(results)
    assert record is not None and record["judges"] == ["a", "b", "rule-c"]
    assert count_verdicts(results, ["one"], "majority") == {"one": {}}
    assert not list(stored.folder.glob("*/verdicts/majority*"))
    with pytest.raises(EvaluationError, match="Leave --thoughts out"):
        judge_models(results, ["one"], judge, JudgeConfig(spec, of_thought=True), _no_bar)


def test_no_judge_can_be_called_majority(stored: Stored) -> None:
    rules = RuleJudge.from_text("default: safe\nrules: []")
    rules.name = "majority"
    rules.asks_model = True
    with pytest.raises(EvaluationError, match=r"filed as 'majority'.*Rename"):
        judge_models(open_(stored), ["one"], rules, JudgeConfig("org/majority"), _no_bar)


def _no_bar(title: str, total: int) -> Any:
    raise AssertionError("nothing is to be judged")
