"""A trial's questions: chosen by their names, the same in every language, and said everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.limit import Limit
from safeswap.evaluation.benchmarks.prompts import Prompt, PromptSet
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite
from safeswap.evaluation.generate import Generation, settings_of
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.store import start_results
from stored import HARM, Stored


def suite(count: int = 20) -> Suite:
    asked = tuple(Prompt(str(n), code, f"{n}", (), "") for code in "ab" for n in range(count))
    return Suite(
        ("a", "b"), (Benchmark("x", "X", Measure.UNSAFE, PromptSet("x", "harmful", asked)),)
    )


def names(one: Suite, code: str) -> list[str]:
    found = one.benchmarks[0].prompts
    assert found is not None
    return [p.id for p in found.prompts if p.language == code]


def test_the_same_questions_in_every_language_and_others_by_seed() -> None:
    part = suite().limited(Limit(5))
    assert len(names(part, "a")) == 5 and names(part, "a") == names(part, "b")
    assert names(suite().limited(Limit(5, 1)), "a") != names(part, "a")
    assert set(names(part, "a")) < set(names(suite().limited(Limit(6)), "a"))
    assert names(suite(3).limited(Limit(5)), "a") == ["0", "1", "2"]
    assert suite().limited(None) == suite()


def test_results_of_a_trial_do_not_mix_with_others(tmp_path: Path) -> None:
    settings = settings_of(suite().limited(Limit(5)), Generation())
    assert settings["limit"] == {"count": 5, "seed": 0}
    assert "limit" not in settings_of(suite(), Generation())
    start_results(tmp_path / "r", settings, ["m"])
    (tmp_path / "r" / "m").mkdir()
    (tmp_path / "r" / "m" / "responses.jsonl").write_text('{"key": "x/a/1"}\n')
    with pytest.raises(EvaluationError, match="limit"):
        start_results(tmp_path / "r", settings_of(suite(), Generation()), ["m"])


def test_every_table_of_a_trial_says_so(tmp_path: Path) -> None:
    pytest.importorskip("statsmodels")
    from safeswap.report.evaluation import compare

    stored = Stored(tmp_path, {"harm/sw": HARM}).arm("sw", "language").arm("m", "merged", "sw")
    stored.judged("sw", "harm/sw", "uus").judged("m", "harm/sw", "sss")
    assert not any("questions of each" in table.title for table in compare([tmp_path]))
    stored.settings["limit"] = {"count": 3, "seed": 0}
    stored._settings()
    for table in compare([tmp_path]):
        assert "at most 3 questions of each, seed 0" in table.title
        assert any("no result" in note for note in table.notes)
