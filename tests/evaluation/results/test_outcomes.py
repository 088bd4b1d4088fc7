"""What table cells are counted from: verdicts and scores as they are stored."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.results.outcomes import POOLED, gather
from stored import BENIGN, HARM, READING, Stored


def values(found: object) -> list[float | None]:
    return [None if math.isnan(v) else v for v in found.outcomes.values()]  # type: ignore[attr-defined]


def test_what_counts_as_what(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM, "benign/sw": BENIGN, "reading/sw": READING})
    stored.arm("a").judged("a", "harm/sw", "usrci?").judged("a", "benign/sw", "usrci?")
    stored.scored("a", "reading/sw", "101")
    strict, loose = gather([tmp_path]), gather([tmp_path], strict=False)
    assert values(strict.get("a", "harm", "sw")) == [1, 0, 0, 1, 0, None]
    assert values(loose.get("a", "harm", "sw")) == [1, 0, 0, 0, 0, None]
    for one in (strict, loose):
        assert values(one.get("a", "benign", "sw")) == [0, 0, 1, 0, 0, None]
        assert values(one.get("a", "reading", "sw")) == [1, 0, 1]
    assert strict.get("a", "harm", "sw").counts["answers"] == 6
    assert strict.judge == "guard" and strict.benchmarks == ["harm", "benign", "reading"]


def test_what_is_missing_says_why(tmp_path: Path) -> None:
    cells = {
        "harm/sw": {**HARM, "items": 5},
        "harm/te": {**HARM, "absent": "the prompts are in sw only"},
        "harm/ko": HARM,
        "benign/sw": BENIGN,
        "reading/sw": READING,
        "reading/te": READING,
    }
    stored = Stored(tmp_path, cells).arm("a").arm("b")
    stored.judged("a", "harm/sw", "us--.").judged("a", "harm/ko", "--")
    stored.judged("a", "benign/sw", "ss?", says_refusal=False)
    stored.scored("a", "reading/sw", "10", whole=False).scored("a", "reading/te", "11")
    found = gather([tmp_path])
    said = {cell: found.get("a", *cell.split("/")).missing for cell in cells}
    assert said == {
        "harm/sw": "2 of 5 prompts answered and judged",
        "harm/te": "the prompts are in sw only",
        "harm/ko": "not judged yet: run `safeswap judge`",
        "benign/sw": "the judge guard does not say whether an answer refuses",
        "reading/sw": "only 2 questions are stored: evaluate again",
        "reading/te": "",
    }
    assert {found.get("b", *cell.split("/")).missing for cell in cells} == {
        "not evaluated yet",
        "the prompts are in sw only",
    }
    assert found.get("a", "benign", "sw").counts["answers"] == 3
    pooled = found.get("a", "harm", POOLED)
    assert pooled.missing == (
        "sw: 2 of 5 prompts answered and judged; ko: not judged yet: run `safeswap judge`"
    )
    assert list(pooled.outcomes) == ["sw/0", "sw/1"]


def test_unread_verdicts_are_not_a_judge_that_is_silent_on_refusals(tmp_path: Path) -> None:
    Stored(tmp_path, {"benign/sw": BENIGN}).arm("a").judged("a", "benign/sw", "??")
    found = gather([tmp_path]).get("a", "benign", "sw")
    assert values(found) == [None, None] and not found.missing


def test_a_verdict_on_another_response_does_not_count(tmp_path: Path) -> None:
    Stored(tmp_path, {"harm/sw": HARM}).arm("a").judged("a", "harm/sw", "uu")
    path = tmp_path / "a" / "responses.jsonl"
    path.write_text(path.read_text().replace("answer of a to 1", "another answer"))
    assert list(gather([tmp_path]).get("a", "harm", "sw").outcomes) == ["0"]


def test_translations_are_one_cluster(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM, "harm/te": HARM, "reading/sw": READING}).arm("a")
    stored.judged("a", "harm/sw", "us").judged("a", "harm/te", "uu")
    stored.scored("a", "reading/sw", "1011", group=2)
    found = gather([tmp_path])
    pooled = found.get("a", "harm", POOLED)
    assert dict(pooled.outcomes) == {"sw/0": 1, "sw/1": 0, "te/0": 1, "te/1": 1}
    assert dict(pooled.clusters) == {"sw/0": "0", "sw/1": "1", "te/0": "0", "te/1": "1"}
    assert set(found.get("a", "reading", POOLED).clusters.values()) == {"text 0", "text 1"}


def test_several_judges(tmp_path: Path) -> None:
    stored = Stored(tmp_path, {"harm/sw": HARM}).arm("a")
    stored.judged("a", "harm/sw", "us", judge="Qwen3Guard-Gen-4B")
    (tmp_path / "a" / "responses.jsonl").unlink()
    stored.judged("a", "harm/sw", "uu", judge="rule")
    with pytest.raises(EvaluationError, match=r"several judges .* choose with --judge"):
        gather([tmp_path])
    assert values(gather([tmp_path], "rule").get("a", "harm", "sw")) == [1, 1]
    by_hub_id = gather([tmp_path], "Qwen/Qwen3Guard-Gen-4B")
    assert values(by_hub_id.get("a", "harm", "sw")) == [1, 0]
    with pytest.raises(EvaluationError, match="did you mean 'Qwen3Guard-Gen-4B'"):
        gather([tmp_path], "Qwen/Qwen3Guard-Gen-8B")


def test_folders_are_joined_if_they_may_be(tmp_path: Path) -> None:
    one = Stored(tmp_path / "one", {"harm/sw": {**HARM, "prompts": "p"}}).arm("a")
    one.judged("a", "harm/sw", "us")
    two = Stored(tmp_path / "two", {"harm/sw": {**HARM, "prompts": "p"}, "harm/te": HARM}).arm("b")
    two.judged("b", "harm/sw", "uu").judged("b", "harm/te", "s")
    found = gather([one.folder, two.folder])
    assert list(found.models) == ["a", "b"]
    assert found.get("a", "harm", "te").missing == "not evaluated yet"
    with pytest.raises(EvaluationError, match=r"both have a model called a\b.*NAME=SOURCE"):
        gather([one.folder, one.folder])
    Stored(tmp_path / "three", {"harm/sw": HARM}, tokens=64).arm("c")
    with pytest.raises(EvaluationError, match=r"max_new_tokens.*512.*64"):
        gather([one.folder, tmp_path / "three"])
    Stored(tmp_path / "four", {"harm/sw": {**HARM, "prompts": "q"}}).arm("c")
    with pytest.raises(EvaluationError, match="harm/sw"):
        gather([one.folder, tmp_path / "four"])
    with pytest.raises(EvaluationError, match="no results folder"):
        gather([tmp_path / "five"])
    with pytest.raises(EvaluationError, match="no results folder"):
        gather([])
