"""What an evaluation or a judge would do, without loading a model: records, and them in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safeswap.evaluation.backends import BackendOptions, find_backend
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite
from safeswap.evaluation.generate import Generation
from safeswap.evaluation.judging import JudgeConfig, unjudged
from safeswap.evaluation.models import EvaluatedModel, name_models
from safeswap.evaluation.results.journal import read_rows
from safeswap.evaluation.results.store import RESPONSES, find_model, open_results
from safeswap.io.progress import shown_bytes

Record = dict[str, Any]
LAST = "no model was loaded, and nothing asked or stored"


def evaluation_outlook(
    models: Sequence[str],
    suite: Suite,
    results: Path,
    *,
    backend: str,
    options: BackendOptions,
    generation: Generation,
) -> Record:
    """The models with the memory of their weights, and the questions of every cell.

    Raises:
        SafeswapError: a backend or model that is not there.
    """
    remote = find_backend(backend).remote
    named = name_models(models, backend, options.base_url)
    return {
        "kind": "outlook",
        "verb": "evaluate",
        "out": str(results),
        "models": [_model(model, results, suite, remote) for model in named],
        "cells": cells_of(suite),
        "split": None if suite.split is None else asdict(suite.split),
        "limit": None if suite.limit is None else suite.limit.as_dict(),
        "generation": generation.as_dict(),
    }


def judge_outlook(results: Path, config: JudgeConfig, models: Sequence[str] = ()) -> Record:
    """The judge with the memory of its weights, and how many responses it has not read.

    Raises:
        SafeswapError: no such judge, model or results folder.
    """
    find_backend(config.backend)
    store, judge = open_results(results), config.make()
    names = [find_model(store, name) for name in models] or store.models
    weights = None
    if judge.asks_model:
        named = [f"judge={config.spec}"]
        (asked,) = name_models(named, config.backend, config.options.base_url)
        weights = None if find_backend(config.backend).remote else _weights(Path(asked.location))
    return {
        "kind": "outlook",
        "verb": "judge",
        "out": str(results),
        "judge": {
            "source": config.spec,
            "name": config.name,
            "kind": judge.name,
            "version": judge.version,
            "asks_model": judge.asks_model,
            "weights_bytes": weights,
        },
        "models": [_to_judge(store, name, config) for name in names],
    }


def cells_of(suite: Suite) -> list[Record]:
    """Every benchmark in every language: prompts by number, tasks by name, or why it is empty."""
    return [one for benchmark in suite.benchmarks for one in _cells(benchmark, suite)]


def lines_of(record: Record) -> list[str]:
    """The record of an evaluation or a judge in words."""
    lines = [line for one in record["models"] for line in _model_line(record["verb"], one)]
    if "judge" in record:
        judge = record["judge"]
        weights = judge["weights_bytes"]
        held = "" if weights is None else f", weights {shown_bytes(weights)} in memory"
        return [f"judge {judge['name']}: {judge['source']} as {judge['kind']}{held}", *lines, LAST]
    lines += cell_lines(record["cells"])
    if any("fetch" in cell for cell in record["cells"]):
        lines.append("prompts that are to be fetched are not counted above")
    lines.append("generation: " + ", ".join(f"{k} {v}" for k, v in record["generation"].items()))
    if record["limit"] is not None:
        lines.append(f"a trial: at most {record['limit']['count']} questions of each cell")
    return [*lines, LAST]


def cell_lines(cells: Sequence[Record]) -> list[str]:
    """The cells of a suite in words."""
    found = []
    for cell in cells:
        name = f"{cell['title']}, {cell['language']}"
        if "absent" in cell:
            found.append(f"{name}: n/a ({cell['absent']})")
        elif "fetch" in cell:
            fetch = cell["fetch"]
            size = shown_bytes(fetch["bytes"])
            found.append(f"{name}: to be fetched ({size}, SHA-256 compared) from {fetch['url']}")
        elif "prompts" in cell:
            found.append(f"{name}: {cell['prompts']} prompts")
        else:
            place = f"from {cell['file']}" if cell["file"] else None
            place = place or "from its dataset on the hub or in cache"
            found.append(f"{name}: lm-eval's task {cell['task']}, {place}")
    return found


def _model(model: EvaluatedModel, results: Path, suite: Suite, remote: bool) -> Record:
    keys = {
        f"{benchmark.name}/{prompt.language}/{prompt.id}"
        for benchmark in suite.benchmarks
        for prompt in (benchmark.prompts.prompts if benchmark.prompts else ())
    }
    done = {row["key"] for row in read_rows(results / model.name / RESPONSES)}
    return {
        "name": model.name,
        "source": model.source,
        "weights_bytes": None if remote else _weights(Path(model.location)),
        "prompts": len(keys),
        "to_answer": len(keys - done),
    }


def _to_judge(store: Any, name: str, config: JudgeConfig) -> Record:
    rows = sum(1 for _ in read_rows(store.folder / name / RESPONSES))
    return {"name": name, "responses": rows, "to_judge": len(unjudged(store, name, config))}


def _model_line(verb: str, one: Record) -> Iterator[str]:
    if verb == "judge":
        yield f"{one['name']}: {one['to_judge']} of {one['responses']} responses to judge"
        return
    weights = one["weights_bytes"]
    held = "" if weights is None else f", weights {shown_bytes(weights)} in memory"
    answers = f"{one['to_answer']} of {one['prompts']} prompts to answer"
    yield f"{one['name']}: {one['source']}{held}; {answers}"


def _weights(folder: Path) -> int:
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


def _cells(benchmark: Benchmark, suite: Suite) -> Iterator[Record]:
    for code in suite.languages:
        cell: Record = {"benchmark": benchmark.name, "title": benchmark.title, "language": code}
        if code in benchmark.absent:
            yield {**cell, "absent": benchmark.absent[code]}
        elif code in benchmark.to_fetch:
            file = benchmark.to_fetch[code]
            yield {**cell, "fetch": {"url": file.url, "bytes": file.size, "sha256": file.sha256}}
        elif benchmark.prompts is not None:
            yield {**cell, "prompts": len(benchmark.prompts.in_languages([code]))}
        else:
            task = benchmark.tasks[code]
            yield {**cell, "task": task.task, "file": str(task.file) if task.file else None}
