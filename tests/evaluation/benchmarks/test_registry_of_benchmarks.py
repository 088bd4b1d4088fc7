"""The registered benchmarks: their suites, their folders, and one that a user adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from safeswap.errors import ConfigError, EvaluationError
from safeswap.evaluation.benchmarks import (
    BENCHMARKS,
    HarnessTask,
    PromptBenchmark,
    TaskBenchmark,
    register,
)
from safeswap.evaluation.benchmarks.registry import folder_of, named_suites
from safeswap.evaluation.benchmarks.suites import make_suite


@pytest.fixture
def restored() -> Iterator[None]:
    before = set(BENCHMARKS)
    yield
    for name in set(BENCHMARKS) - before:
        BENCHMARKS.remove(name)


def test_the_named_suites_are_what_the_benchmarks_say() -> None:
    assert named_suites() == {
        "paper": ("multijail", "xstest", "mmmlu", "belebele", "mgsm"),
        "safety": ("multijail", "xstest"),
        "ability": ("mmmlu", "belebele", "mgsm"),
        "mergebench": ("m_mmlu", "arc", "hellaswag"),
        "low-resource": ("sib200", "xcopa", "afrimgsm", "afrimmlu", "include"),
    }


def test_every_language_of_a_task_benchmark_has_its_task_and_folder() -> None:
    for one in BENCHMARKS.values():
        if isinstance(one, TaskBenchmark):
            tasks = [one.task(code) for code in one.languages]
            assert all(isinstance(task, HarnessTask) for task in tasks)
            assert isinstance(one.task("xx"), str)
    assert folder_of("mmmlu_sw_ke") == "openai-mmmlu"
    assert folder_of("global_mmlu_full_te") == "global_mmlu"
    assert folder_of("belebele_swh_Latn") == "belebele"
    assert folder_of("mgsm_native_cot_te") == "mgsm" and folder_of("hellaswag") == ""
    assert folder_of("m_mmlu_fr") == "okapi/mmlu_multilingual"
    assert folder_of("include_base_44_telugu") == "include/default/Telugu"


@pytest.mark.usefixtures("restored")
def test_a_users_benchmarks_join_suites_and_are_refused_alike(tmp_path: Path) -> None:
    mine = PromptBenchmark("mine", "Mine", "harmful", "my desk", suites=("safety", "own"))
    register(mine, __name__)
    register(TaskBenchmark("sums", "Sums", ("sw",), lambda code: f"no {code}"), __name__)
    assert named_suites()["own"] == ("mine",) and named_suites()["safety"][-1] == "mine"
    with pytest.raises(
        EvaluationError, match=r"Mine needs its file: --prompts mine=FILE. It comes from my desk"
    ):
        make_suite("own", ["sw"])
    (tmp_path / "mine.csv").write_text("id,sw\n1,Iba?\n")
    given = {"mine": tmp_path / "mine.csv"}
    (made,) = make_suite("mine", ["sw"], prompts=given).benchmarks
    assert (made.title, made.measures) == ("Mine", "unsafe")
    with pytest.raises(EvaluationError, match="--instruction is for MultiJail, which the suite"):
        make_suite("mine", ["sw"], prompts=given, instruction=tmp_path / "mine.csv")
    with pytest.raises(EvaluationError, match=r"no benchmark of the suite .* \(Sums: no sw\)"):
        make_suite("sums", ["sw"])
    with pytest.raises(ConfigError, match="the benchmark 'mgsm' is registered already"):
        register(PromptBenchmark("mgsm", "M", "harmful", ""), __name__)
