"""A suite, resolved: benchmarks in a fixed order, in fixed languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.limit import Limit
from safeswap.evaluation.benchmarks.origins import OriginFile
from safeswap.evaluation.benchmarks.prompts import PromptSet
from safeswap.evaluation.benchmarks.registry import (
    HarnessTask,
)
from safeswap.evaluation.benchmarks.splits import Split
from safeswap.evaluation.measures import Measure


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark of a suite: prompts of ours, or tasks of lm-eval; and what it lacks.

    ``absent`` has the reason for each language asked for that the benchmark does not have,
    ``to_fetch`` the file of each language whose prompts are not here, in a suite that only looks.
    """

    name: str
    title: str
    measures: Measure
    prompts: PromptSet | None = None
    tasks: Mapping[str, HarnessTask] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    to_fetch: Mapping[str, OriginFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suite:
    """Benchmarks in a fixed order, in fixed languages.

    It holds one side of a ``Split`` of their questions, or all of them.
    """

    languages: tuple[str, ...]
    benchmarks: tuple[Benchmark, ...]
    split: Split | None = None
    limit: Limit | None = None
    given: str = ""
    """How it was asked for: a name, names joined by commas, or the path of a file."""

    def limited(self, limit: Limit | None) -> Suite:
        """The suite with a part of its questions: prompts leave now, lm-eval's later."""
        if limit is None:
            return self
        return replace(
            self, benchmarks=tuple(_limited(b, limit) for b in self.benchmarks), limit=limit
        )

    def on(self, split: Split | None) -> Suite:
        """The suite with the questions of one side only; prompts leave now, lm-eval's later.

        Raises:
            EvaluationError: no prompt of a benchmark is on that side.
        """
        return replace(
            self, benchmarks=tuple(_on_side(b, split) for b in self.benchmarks), split=split
        )


def _limited(benchmark: Benchmark, limit: Limit) -> Benchmark:
    if benchmark.prompts is None:
        return benchmark
    all_of = benchmark.prompts
    asked = {
        code: limit.chosen(p.id for p in all_of.prompts if p.language == code)
        for code in all_of.languages
    }
    kept = tuple(p for p in all_of.prompts if p.id in asked[p.language])
    return replace(benchmark, prompts=replace(all_of, prompts=kept))


def identities(suite: Suite) -> dict[str, list[str]]:
    """What tells a suite's prompts again, per ``BENCHMARK/LANGUAGE``; none for lm-eval's tasks."""
    found: dict[str, list[str]] = {}
    for benchmark in suite.benchmarks:
        for prompt in benchmark.prompts.prompts if benchmark.prompts else ():
            found.setdefault(f"{benchmark.name}/{prompt.language}", []).extend(prompt.identities)
    return {cell: sorted(set(digests)) for cell, digests in found.items()}


def _on_side(benchmark: Benchmark, split: Split | None) -> Benchmark:
    if split is None or benchmark.prompts is None:
        return benchmark
    all_of = benchmark.prompts
    kept = tuple(prompt for prompt in all_of.prompts if split.holds(prompt.id))
    for code in all_of.languages:
        if not any(prompt.language == code for prompt in kept):
            raise EvaluationError(
                f"{benchmark.title}, {code}: none of its prompts is on the side {split}. Choose "
                "another part of dev questions or another seed, or add prompts."
            )
    return replace(benchmark, prompts=replace(all_of, prompts=kept))


def of_prompts(name: str, title: str, prompts: PromptSet, wanted: Sequence[str]) -> Benchmark:
    """A benchmark of prompts in the wanted languages, with those that it lacks."""
    has = ", ".join(prompts.languages) or "other languages"
    absent = {
        code: f"the prompts are in {has} only" for code in wanted if code not in prompts.languages
    }
    kept = PromptSet(name, prompts.kind, prompts.in_languages(wanted))
    measures = Measure.UNSAFE if prompts.kind == "harmful" else Measure.OVER_REFUSAL
    return Benchmark(name, title, measures, prompts=kept, absent=absent)
