"""A search on real small models: what is proposed, measured, shared among workers, reported."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("optuna")

import optuna

import safeswap
from evaluation.standin import FLOAT32, NAME, Commands, alive, answer, lines, serving
from heard import heard
from safeswap.demo import models_folder
from safeswap.demo.suite import write_suite
from safeswap.errors import EvaluationError, PlanError
from safeswap.evaluation import pipeline
from safeswap.evaluation.results.candidates import CandidateResult, read_measured
from safeswap.evaluation.results.store import read_json
from safeswap.plan import Plan
from safeswap.report.evaluation import compare
from safeswap.search import study as optuna_study
from safeswap.search.candidates import table_digest
from safeswap.search.search import Searched, read_search, run_search
from safeswap.search.study import SearchStudy, Seeded, working

WORLD = models_folder()
PROMPTS = 14
START = [{"method": "share-difference", "by": ["module", "layer"]}, {"method": "gated"}]


def shorten(path: Path, where: str = "") -> None:
    rows = list(csv.reader(path.open(encoding="utf-8-sig", newline="")))
    kept = [row for row in rows[1:] if not where or row[-1] == where][:PROMPTS]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *kept])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search by some of the world's harmful and harmless prompts; no ability, so it is quick."""
    folder = tmp_path_factory.mktemp("search")
    write_suite(folder)
    shorten(folder / "harm.csv")
    shorten(folder / "benign.csv", "qac")
    benchmarks = yaml.safe_load((folder / "suite.yaml").read_text())["benchmarks"]
    kept = {name: benchmarks[name] for name in ("harm", "benign")}
    (folder / "suite.yaml").write_text(yaml.safe_dump({"benchmarks": kept}))
    write(folder)
    return folder


def write(folder: Path, name: str = "search.yaml", **changes: Any) -> Path:
    content = {
        "base": str(WORLD / "base"),
        "safety": str(WORLD / "safety"),
        "languages": {"qac": str(WORLD / "qac")},
        "suite": "suite.yaml",
        "judge": "rule:rules.yaml",
        "choose": {"loss": 100, "refused": 100},
        "max_new_tokens": 3,
        "start": START,
        **changes,
    }
    (folder / name).write_text(yaml.safe_dump(content))
    return folder / name


def search(place: Path, results: Path, trials: int, **more: Any) -> Searched:
    read = read_search(place / "search.yaml", more.pop("group", "kind"))
    (found,) = run_search(read, results, trials=trials, options=FLOAT32, **more)
    return found


def figures(one: CandidateResult) -> tuple[float, float]:
    assert one.unsafe is not None and one.refused is not None
    return one.unsafe.value, one.refused.value


def trials_of(results: Path) -> list[Any]:
    url = f"sqlite:///{results / 'search.db'}"
    (summary,) = optuna.get_all_study_summaries(url)
    trials: list[Any] = optuna.load_study(study_name=summary.study_name, storage=url).trials
    return trials


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each model was asked, by the folder of the results and its name."""
    counted: Counter[str] = Counter()
    ask = pipeline.answer

    def counting(results: Any, arm: Any, *rest: Any) -> Any:
        counted[f"{results.folder.parent.name}/{arm.name}"] += 1
        return ask(results, arm, *rest)

    monkeypatch.setattr(pipeline, "answer", counting)
    return counted


def test_a_search_goes_on_to_its_total(place: Path, tmp_path: Path, asked: Counter[str]) -> None:
    with heard() as said:
        first = search(place, tmp_path, 3)
    assert said[0] == "qac: 3 trials, 3 weights by kind, 6 models and tables to start from"
    assert said[1] == "qac: not an objective, the suite lacks it: right answers"
    assert first.trials == 3 and first.objectives == ("unsafe", "refused")
    found = search(place, tmp_path, 9)
    assert found.trials == 9
    states = Counter(trial.state.name for trial in trials_of(tmp_path))
    assert states == {"COMPLETE": 9}
    assert set(asked.values()) == {1}  # no table of either side was asked twice

    # An independent way to the set: all stored rows, each compared with each.
    stored = read_measured(tmp_path / "dev" / "qac", "qac")
    assert len(stored) == found.tables == len({k for k in asked if k.startswith("dev/")})
    pairs = {one.name: figures(one) for one in stored}

    def beaten(one: tuple[float, float]) -> bool:
        return any(o[0] <= one[0] and o[1] <= one[1] and o != one for o in pairs.values())

    best = {name for name, pair in pairs.items() if not beaten(pair)}
    assert {one.name for one in found.front} == best
    assert found.pareto is not None
    assert {path.stem for path in found.pareto.glob("*.yaml")} == best
    record = read_json(found.pareto / "pareto.json")
    assert record["trials"] == 9 and record["tables"] == found.tables
    assert {c["name"]: (c["unsafe"]["value"], c["refused"]["value"]) for c in record["candidates"]}
    for one in record["candidates"]:
        plan = Plan.load(found.pareto / one["plan"])
        model = read_json(tmp_path / "dev" / "qac" / one["name"] / "model.json")
        assert table_digest(plan) == model["digest"]
        chosen = plan.as_dict()["chosen"]
        assert chosen.pop("prompts")  # what tells the questions again under other names
        assert chosen == {"split": record["split"], "cells": record["cells"]}
        assert record["split"]["part"] == "dev"

    one = next(path for path in found.pareto.glob("table-*.yaml"))
    (merged_one,) = safeswap.merge_plans([Plan.load(one)], tmp_path / "merged", figure=False)
    assert safeswap.verify_merge(merged_one.folder).edited == ()

    # What is chosen is the safest of the merges, and it is reported on the other questions.
    merged = [one for one in stored if one.role == "merged"]
    assert found.choice is not None and found.plan is not None and found.test is not None
    safest = min(figures(one)[0] for one in merged)
    assert pairs[found.choice.name][0] == safest
    assert read_json(found.test / "settings.json")["split"]["part"] == "test"
    reported = {one.name for one in read_measured(found.test, "qac")}
    assert {"base", "safety", "qac", "paper", found.choice.name} <= reported
    compare([found.test], reference="qac")
    with pytest.raises(EvaluationError, match="chosen by figures on questions"):
        compare([tmp_path / "dev" / "qac"])


def test_figures_known_to_the_database_are_not_made_again(
    place: Path, tmp_path: Path, asked: Counter[str]
) -> None:
    """Workers on several machines may have folders of their own."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    one = search(place, tmp_path / "one", 5, storage=url, group="band")
    asked.clear()
    two = search(place, tmp_path / "two", 5, storage=url, group="band")
    assert not [name for name in asked if name.startswith("dev/")]
    assert (two.front, two.choice) == (one.front, one.choice)
    assert two.plan is not None and one.plan is not None
    assert two.plan.read_text() == one.plan.read_text()


# Workers ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Commands]]:
    folder = tmp_path_factory.mktemp("logs")
    made = [Commands(folder / str(n)) for n in range(2)]
    yield made
    for one in made:
        one.close()


def test_killed_and_then_two_at_once(place: Path, tmp_path: Path, commands: list[Commands]) -> None:
    results = tmp_path / "r"
    path = write(place, "short.yaml", start=[{"method": "gated"}])
    line = ["search", path, "--out", results, "--trials", 6]
    line += ["--group", "layer", "--dtype", "float32", "--device", "cpu"]
    process = commands[0].start(*line)
    while not list(results.glob("dev/qac/table-*")) and alive(process):
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    assert commands[0].wait() == -signal.SIGKILL

    for one in commands:
        one.start(*line)
    assert [one.wait() for one in commands] == [0, 0], [one.log.read_text() for one in commands]
    printed = [one.log.read_text() for one in commands]
    assert any("Pareto set, qac" in text and "safeswap merge --plan" in text for text in printed)

    trials = trials_of(results)
    states = Counter(trial.state.name for trial in trials)
    assert states["COMPLETE"] == 6 and set(states) <= {"COMPLETE", "FAIL"}
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    done = [trial.params for trial in complete]
    lost = [trial.params for trial in trials if trial.state.name == "FAIL"]
    assert all(params in done for params in lost if params)
    assert len({trial.user_attrs["worker"] for trial in complete}) >= 2
    for folder in (results / "dev" / "qac").glob("*/"):
        assert lines(folder / "responses.jsonl") == lines(results / "dev/qac/base/responses.jsonl")
    assert not list((results / "workers").iterdir()) or lost


def study(folder: Path, worker: str, kind: str = "tpe", name: str = "s") -> SearchStudy:
    url = f"sqlite:///{folder / f'{name}.db'}"
    return SearchStudy(url, name, ["minimize", "maximize"], Seeded(kind, 3), worker, folder / "w")


def values(trial: Any) -> list[float]:
    a, b = trial.params["a"], trial.params["b"]
    return [(a - 3) ** 2 + b, float(a * b)]


RANGES = {"a": 20, "b": 20}


@pytest.mark.parametrize(("kind", "count"), [("tpe", 12), ("nsga2", 10)])
def test_a_search_that_was_stopped_proposes_what_it_would_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, count: int
) -> None:
    """Also past the point from which proposals follow from what was measured."""
    monkeypatch.setattr(optuna_study, "POPULATION", 4)
    whole = study(tmp_path, "w1", kind, "whole")
    for _ in range(count):
        whole.run_one(values, RANGES, count)
    for number in range(2):
        parts = study(tmp_path, f"w{number}", kind, "parts")
        for _ in range(count // 2):
            parts.run_one(values, RANGES, count)
    proposed = [trial.params for trial in whole.complete()]
    assert [trial.params for trial in parts.complete()] == proposed
    assert len({tuple(p.values()) for p in proposed}) > count // 2  # not one all along


_DYING = """
import os, signal, sys
from pathlib import Path
from safeswap.search.study import SearchStudy, Seeded, working
folder = Path(sys.argv[1])
with working(folder / "w") as name:
    url = f"sqlite:///{folder / 's.db'}"
    made = SearchStudy(url, "s", ["minimize", "maximize"], Seeded("tpe", 3), name, folder / "w")
    made.run_one(lambda trial: os.kill(os.getpid(), signal.SIGKILL), {"a": 20, "b": 20}, 9)
"""


def test_the_trial_of_a_dead_worker_is_taken_over_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    child = subprocess.run([sys.executable, "-c", _DYING, str(tmp_path)], check=False)
    assert child.returncode == -signal.SIGKILL
    with working(tmp_path / "w") as name:
        mine = study(tmp_path, name)
        (lost,) = mine._study.trials
        assert mine.tally().running == 1 and lost.state.name == "RUNNING"
        assert mine.take_over() == 1 and mine.tally().running == 0

        def trying(trial: Any) -> list[float]:
            assert mine.take_over() == 0  # this one lives
            return values(trial)

        mine.run_one(trying, RANGES, 9)
        assert [trial.params for trial in mine.complete()] == [lost.params]


def test_a_failed_trial_is_tried_again_but_not_for_ever(tmp_path: Path) -> None:
    mine = study(tmp_path, "w")

    def failing(trial: Any) -> list[float]:
        raise EvaluationError("the server went away")

    for _ in range(6):
        with pytest.raises(EvaluationError, match="server went away"):
            mine.run_one(failing, RANGES, 9)
    tried = Counter(json.dumps(trial.params) for trial in mine._study.trials if trial.params)
    assert sorted(tried.values()) == [2, 4]
    mine.run_one(values, RANGES, 9)
    assert mine.tally().complete == 1


def test_no_trial_beyond_the_total(tmp_path: Path) -> None:
    """Where two workers both took the last one."""
    mine = study(tmp_path, "w")
    for total in (1, 2, 2, 2):
        mine.run_one(values, RANGES, total)
    assert mine.tally().complete == 2


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sampler": "nsga"}, "no sampler is called 'nsga'; did you mean 'nsga2'?"),
        ({"trials": 0}, "--trials 0"),
        ({"languages": ["qad"]}, "the search has no language 'qad'; did you mean 'qac'?"),
        ({"backend": "vllm"}, "vllm needs --reload"),
        ({"storage": "search.db"}, "is no database URL"),
        ({"storage": "sqlite:////no/such/folder/s.db"}, "cannot be used .unable to open"),
        ({"storage": "nosuchdb://u:secret@host/x"}, r"nosuchdb://u:\*\*\*@host/x: its driver"),
    ],
)
def test_what_cannot_be(place: Path, tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    read = read_search(place / "search.yaml")
    with pytest.raises(EvaluationError, match=told) as caught:
        run_search(read, tmp_path / "r", options=FLOAT32, **settings)
    assert "secret" not in str(caught.value)


def test_a_judge_that_would_be_loaded_here_is_refused(place: Path, tmp_path: Path) -> None:
    path = write(place, "guard.yaml", judge="Qwen/Qwen3Guard-Gen-0.6B")
    with pytest.raises(EvaluationError, match="share memory with the one under test"):
        run_search(read_search(path), tmp_path / "r", options=FLOAT32)
    with pytest.raises(EvaluationError, match="Give --judge-url URL"):
        run_search(read_search(path), tmp_path / "r", options=FLOAT32, judge_backend="api")
    assert not (tmp_path / "r").exists()


def test_a_judge_on_a_server(place: Path, tmp_path: Path) -> None:
    """It reads each table's answers before the next is proposed; one objective is enough."""
    benchmarks = yaml.safe_load((place / "suite.yaml").read_text())["benchmarks"]
    (place / "harm.yaml").write_text(yaml.safe_dump({"benchmarks": {"harm": benchmarks["harm"]}}))
    path = write(
        place, "served.yaml", judge=NAME, judge_kind="threeway", suite="harm.yaml", start=[]
    )
    message = {"role": "assistant", "content": "safe"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    said = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": NAME,
        "choices": [choice],
    }
    with serving() as server:
        server.trouble = lambda number, body: answer(200, said)
        (found,) = run_search(
            read_search(path, "kind"),
            tmp_path,
            trials=1,
            options=FLOAT32,
            judge_backend="api",
            judge_options=replace(FLOAT32, base_url=server.url),
        )
        asked = len(server.asked)
    assert found.objectives == ("unsafe",)
    assert {one.unsafe.value for one in found.front if one.unsafe} == {0.0}
    assert found.test is not None and found.tables == len(found.front)
    prompts = {
        folder: lines(folder / "base" / "responses.jsonl") for folder in (found.dev, found.test)
    }
    tested = len(read_measured(found.test, "qac"))
    assert asked == found.tables * prompts[found.dev] + tested * prompts[found.test]


def test_a_judge_that_says_nothing_of_refusals_ends_the_search_at_once(
    place: Path, tmp_path: Path
) -> None:
    rules = "default: safe\nrules:\n  - {pattern: '^$', verdict: invalid}\n"
    (place / "mute.yaml").write_text(rules)
    path = write(place, "mute-search.yaml", judge="rule:mute.yaml")
    with pytest.raises(EvaluationError, match="no figure for harmless prompts refused"):
        run_search(read_search(path, "kind"), tmp_path, trials=1, options=FLOAT32)


def test_a_start_that_was_asked_for_must_fit_the_model(place: Path, tmp_path: Path) -> None:
    path = write(place, "band.yaml", start=[{"method": "band", "bottom": 99}])
    with pytest.raises(PlanError, match="none of the 6 layers"):
        run_search(read_search(path), tmp_path / "r", options=FLOAT32)
