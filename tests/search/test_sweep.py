"""A sweep on real small models: what is asked, what is chosen, what may be reported."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("lm_eval")

import safeswap
from evaluation.standin import FLOAT32, Commands, lines, wait_for_lines
from heard import heard
from safeswap.cluster import ClusterOptions
from safeswap.demo import models_folder
from safeswap.demo.suite import write_suite
from safeswap.errors import EvaluationError
from safeswap.evaluation import pipeline
from safeswap.evaluation.records import Alias, CandidateRecord
from safeswap.evaluation.results.candidates import read_measured
from safeswap.evaluation.results.journal import read_rows
from safeswap.evaluation.results.store import read_json
from safeswap.plan import Plan
from safeswap.report.evaluation import compare
from safeswap.search.sweep import run_sweep
from safeswap.search.sweep_config import read_sweep

WORLD = models_folder()
GRID: list[dict[str, Any]] = [
    {"method": "share-difference", "tau": [0.001, 9, 10]},  # 9 and 10 are the same table
    {"method": "gated", "gamma": 1},
]


def shorten(path: Path, count: int) -> None:
    rows = list(csv.reader(path.open(encoding="utf-8-sig", newline="")))
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([rows[0], *rows[1 : count + 1]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of the world's harmful prompts and sums, few of each, in two languages."""
    place = tmp_path_factory.mktemp("sweep")
    write_suite(place)
    shorten(place / "harm.csv", 12)
    benchmarks = yaml.safe_load((place / "suite.yaml").read_text())["benchmarks"]
    kept = {name: benchmarks[name] for name in ("harm", "sums")}
    (place / "suite.yaml").write_text(yaml.safe_dump({"benchmarks": kept}))
    content = {
        "base": str(WORLD / "base"),
        "safety": str(WORLD / "safety"),
        "languages": {code: str(WORLD / code) for code in ("qab", "qac")},
        "suite": "suite.yaml",
        "judge": "rule:rules.yaml",
        "choose": {"loss": 100, "refused": 100},
        "max_new_tokens": 4,
        "harness_tokens": 4,
        "grid": GRID,
    }
    (place / "sweep.yaml").write_text(yaml.safe_dump(content))
    return place


@pytest.fixture(scope="module")
def swept(folder: Path) -> Path:
    sweep = read_sweep(folder / "sweep.yaml")
    with heard() as said:
        run_sweep(sweep, folder / "r", options=FLOAT32)
    assert said[0] == "qab: 4 cells, 3 different tables"
    return folder / "r"


def test_cells_of_one_table_are_asked_once(swept: Path) -> None:
    settings = read_json(swept / "dev" / "qab" / "settings.json")
    assert settings["split"] == {"part": "dev", "fraction": 0.5, "seed": 0}
    found = {one.name: one for one in read_measured(swept / "dev" / "qab", "qab")}
    assert set(found) == {
        "base",
        "safety",
        "qab",
        "share-difference+tau-0.001",
        "share-difference+tau-9",
        "gated+gamma-1",
    }
    (alias,) = found["share-difference+tau-9"].aliases
    assert alias == Alias(
        "share-difference+tau-10", CandidateRecord("share-difference", {"tau": 10})
    )
    assert found["gated+gamma-1"].settings == {"gamma": 1}
    assert (found["qab"].role, found["base"].role, found["safety"].role) == (
        "language",
        "base",
        "safety",
    )


def test_each_table_answers_as_its_written_merge(swept: Path, tmp_path: Path) -> None:
    """An independent way to the same rows: merge, then `safeswap evaluate`."""
    for name in ("share-difference+tau-0.001", "gated+gamma-1"):
        plan = Plan.load(swept / "plans" / "qac" / f"{name}.yaml")
        (merged,) = safeswap.merge_plans([plan], tmp_path / name, figure=False)
        suite = pipeline.make_suite(str(swept.parent / "suite.yaml"), ["qac"])
        pipeline.evaluate(
            [f"m={merged.folder}"],
            suite,
            tmp_path / f"results-{name}",
            options=FLOAT32,
            generation=pipeline.Generation(4, 4),
        )
        for file in ("responses.jsonl", "scores.jsonl"):
            whole = answers(tmp_path / f"results-{name}" / "m" / file)
            part = answers(swept / "dev" / "qac" / name / file)
            assert part and part.items() <= whole.items()


def answers(path: Path) -> dict[str, Any]:
    return {row["key"]: row.get("response") for row in read_rows(path) if "items" not in row}


def test_dev_and_test_share_no_question(swept: Path) -> None:
    for code in ("qab", "qac"):
        for file in ("responses.jsonl", "scores.jsonl"):
            dev, test = (
                set(answers(swept / part / code / "base" / file)) for part in ("dev", "test")
            )
            assert dev and test and not dev & test
        everything = answers(swept / "dev" / code / "base" / "responses.jsonl")
        assert (
            len(everything) + len(answers(swept / "test" / code / "base" / "responses.jsonl")) == 12
        )


def test_the_lowest_on_dev_is_chosen_and_reported_on_test(swept: Path) -> None:
    found = [m for m in read_measured(swept / "dev" / "qac", "qac") if m.role == "merged"]
    lowest = min(m.unsafe.value for m in found if m.unsafe is not None)
    chosen = Plan.load(swept / "chosen-qac.yaml")
    assert chosen.chosen is not None and chosen.chosen.cells == ("harm/qac", "sums/qac")
    arms = {m.name: m for m in read_measured(swept / "test" / "qac", "qac")}
    assert set(arms) - {"base", "safety", "qac", "paper"} <= {m.name for m in found}
    picked = [m for m in found if m.name in arms]
    assert [m.unsafe.value for m in picked if m.unsafe is not None] == [lowest]
    tables = compare([swept / "test" / "qac"])
    assert any("paired" in table.title.lower() or "harm" in table.title for table in tables)


def test_dev_figures_are_no_result(swept: Path) -> None:
    with pytest.raises(EvaluationError, match=r"--split test:0\.5:0.*--dev"):
        compare([swept / "dev" / "qab"])
    tables = compare([swept / "dev" / "qab"], dev=True)
    assert all(table.title.endswith("(dev)") for table in tables)
    assert all("No test result" in table.notes[0] for table in tables)


def test_a_chosen_merge_is_not_reported_on_what_it_was_chosen_on(
    swept: Path, tmp_path: Path
) -> None:
    plan = Plan.load(swept / "chosen-qab.yaml")
    (merged,) = safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    assert "--split test:0.5:0" in (merged.folder / "README.md").read_text()
    safeswap.verify_merge(merged.folder)
    suite = pipeline.make_suite(str(swept.parent / "suite.yaml"), ["qab"])
    rules = f"rule:{swept.parent / 'rules.yaml'}"
    short = pipeline.Generation(4, 4)
    pipeline.evaluate(
        [str(merged.folder)], suite, tmp_path / "all", options=FLOAT32, generation=short
    )
    pipeline.judge(tmp_path / "all", rules)
    with pytest.raises(EvaluationError, match=r"out: chosen by figures on questions that these"):
        compare([tmp_path / "all"])
    from safeswap.evaluation.benchmarks.splits import Split

    held = suite.on(Split("test"))
    pipeline.evaluate(
        [str(merged.folder)], held, tmp_path / "held", options=FLOAT32, generation=short
    )
    pipeline.judge(tmp_path / "held", rules)
    assert compare([tmp_path / "held"])


def test_the_same_command_asks_nothing_again(swept: Path, folder: Path) -> None:
    before = {path: path.read_bytes() for path in swept.rglob("*.jsonl")}
    run_sweep(read_sweep(folder / "sweep.yaml"), swept, options=FLOAT32)
    assert {path: path.read_bytes() for path in swept.rglob("*.jsonl")} == before


def test_other_backends_are_refused_first(folder: Path, tmp_path: Path) -> None:
    sweep = read_sweep(folder / "sweep.yaml")
    for backend, reload in (("vllm", False), ("api", True), ("api", False)):
        with pytest.raises(EvaluationError, match=f"--backend {backend}"):
            run_sweep(sweep, tmp_path / "no", backend=backend, reload=reload)
    assert not (tmp_path / "no").exists()


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    found = Commands(tmp_path_factory.mktemp("log") / "out.txt")
    yield found
    found.close()


def test_killed_and_gone_on_with(commands: Commands, folder: Path, swept: Path) -> None:
    command: list[str | Path] = ["sweep", folder / "sweep.yaml", "--out", folder / "k"]
    command += ["--dtype", "float32", "--device", "cpu", "--quiet"]
    for watched in ("dev/qab/base/responses.jsonl", "dev/qac/gated+gamma-1/responses.jsonl"):
        process = commands.start(*command)
        wait_for_lines(folder / "k" / watched, 1, process)
        os.kill(process, signal.SIGKILL)
        assert commands.wait() == -signal.SIGKILL, commands.log.read_text()
    printed = commands.run(*command)
    assert "next: safeswap merge --plan" in printed
    for path in swept.rglob("*.jsonl"):
        other = folder / "k" / path.relative_to(swept)
        assert lines(other) == lines(path)
        assert answers(other) == answers(path)
    one, other = (json.loads((f / "profile.json").read_text()) for f in (swept, folder / "k"))
    assert one == other


def test_overwrite_removes_plans_that_the_grid_no_longer_has(
    folder: Path, swept: Path, tmp_path: Path
) -> None:
    shutil.copytree(swept, tmp_path / "r")
    plans = tmp_path / "r" / "plans" / "qab"
    (plans / "mine.yaml").write_text("a: note\n")
    old = next(path for path in plans.iterdir() if path.name.startswith("share-difference"))
    (plans / "link.yaml").symlink_to(swept / "plans" / "qab" / old.name)
    content = yaml.safe_load((folder / "sweep.yaml").read_text()) | {"grid": GRID[1:]}
    (folder / "less.yaml").write_text(yaml.safe_dump(content))
    run_sweep(read_sweep(folder / "less.yaml"), tmp_path / "r", options=FLOAT32, overwrite=True)
    left = {path.name for path in plans.iterdir()}
    assert not old.exists() and {"mine.yaml", "link.yaml"} < left
    assert len(left) == 3  # and the one cell's
    assert Plan.load(swept / "plans" / "qab" / old.name)


def test_a_cluster_measures_the_same(folder: Path, swept: Path) -> None:
    """Candidates exchanged in two workers: the same rows, the same choice; and they are kept."""
    ray = pytest.importorskip("ray")
    content = yaml.safe_load((folder / "sweep.yaml").read_text())
    content["languages"] = {"qab": content["languages"]["qab"]}
    (folder / "one.yaml").write_text(yaml.safe_dump(content))
    sweep, out = read_sweep(folder / "one.yaml"), folder / "many"
    many = replace(FLOAT32, cluster=ClusterOptions("local", workers=2, cpus=0.5, gpus=0))
    try:
        (one,) = run_sweep(sweep, out, options=many)
    finally:
        ray.shutdown()
    for part in ("dev/qab", "test/qab"):
        names = sorted(path.parent.name for path in (swept / part).glob("*/model.json"))
        assert names == sorted(path.parent.name for path in (out / part).glob("*/model.json"))
        for name in names:
            for file in ("responses.jsonl", "scores.jsonl"):
                found = [
                    {row["key"]: row for row in read_rows(place / part / name / file)}
                    for place in (swept, out)
                ]
                assert found[0] == found[1] and found[0]
    chosen = [Plan.load(place / "chosen-qab.yaml") for place in (swept, out)]
    assert one.plan == out / "chosen-qab.yaml" and chosen[0].units == chosen[1].units
    # asked for again, nothing is: no cluster is needed
    (again,) = run_sweep(sweep, out, options=many)
    assert again.choice == one.choice and not ray.is_initialized()
    with pytest.raises(EvaluationError, match="--reload with --cluster"):
        run_sweep(sweep, out, options=many, reload=True)
