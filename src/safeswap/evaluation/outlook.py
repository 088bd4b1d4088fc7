"""What an evaluation would ask, of which models, without loading one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from safeswap.evaluation.backends import BackendOptions, find_backend
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite
from safeswap.evaluation.models import EvaluatedModel, name_models
from safeswap.evaluation.results.journal import read_rows
from safeswap.evaluation.results.store import RESPONSES
from safeswap.io.progress import shown_bytes


def outlook(
    models: Sequence[str], suite: Suite, results: Path, backend: str, options: BackendOptions
) -> list[str]:
    """The models with the memory of their weights, and the questions of every cell.

    Raises:
        SafeswapError: a backend or model that is not there.
    """
    remote = find_backend(backend).remote
    arms = name_models(models, backend, options.base_url)
    lines = [_model_line(arm, results, suite, remote) for arm in arms]
    lines += [line for benchmark in suite.benchmarks for line in _cells(benchmark, suite)]
    if suite.limit is not None:
        lines.append(f"a trial: at most {suite.limit.count} questions of each cell")
    return [*lines, "no model was loaded, and nothing asked or stored"]


def _model_line(arm: EvaluatedModel, results: Path, suite: Suite, remote: bool) -> str:
    keys = {
        f"{benchmark.name}/{prompt.language}/{prompt.id}"
        for benchmark in suite.benchmarks
        for prompt in (benchmark.prompts.prompts if benchmark.prompts else ())
    }
    done = {row["key"] for row in read_rows(results / arm.name / RESPONSES)}
    weights = "" if remote else f", weights {shown_bytes(_weights(Path(arm.location)))} in memory"
    return f"{arm.name}: {arm.source}{weights}; {len(keys - done)} of {len(keys)} prompts to answer"


def _weights(folder: Path) -> int:
    files = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    return sum(file.stat().st_size for file in files)


def _cells(benchmark: Benchmark, suite: Suite) -> Iterator[str]:
    for code in suite.languages:
        if code in benchmark.absent:
            yield f"{benchmark.title}, {code}: n/a ({benchmark.absent[code]})"
        elif benchmark.prompts is not None:
            count = len(benchmark.prompts.in_languages([code]))
            yield f"{benchmark.title}, {code}: {count} prompts"
        else:
            task = benchmark.tasks[code]
            place = f"from {task.file}" if task.file else "from its dataset on the hub or in cache"
            yield f"{benchmark.title}, {code}: lm-eval's task {task.task}, {place}"
