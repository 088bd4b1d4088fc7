"""The benchmarks: each is registered by its own file, or by a user's module.

Two kinds: ``PromptBenchmark`` reads prompts of ours from a CSV file, ``TaskBenchmark`` names tasks
of lm-evaluation-harness. What they are in a run, with their questions, is a ``Benchmark`` of a
``Suite``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from safeswap.evaluation.benchmarks.origins import Origin
from safeswap.evaluation.benchmarks.prompts import HOSTILE, Kind, PromptSet, read_prompts
from safeswap.registry import Registry


@dataclass(frozen=True, slots=True)
class HarnessTask:
    """One lm-evaluation-harness task in one language.

    Attributes:
        language: as the user names it.
        task: lm-eval's name of the task or group.
        settings: lm-eval settings that override the task's own (empty: none).
        file: a local file instead of the task's dataset.
        cluster: field of the document that groups questions about one text.
        numbers: the answer is a number: our reader's verdict is reported beside lm-eval's.
        label: said in tables where the task stands in for another one.
        folder: where lm-eval keeps it, below its ``tasks``; empty where that is not known.
    """

    language: str
    task: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None
    cluster: str | None = None
    numbers: bool = False
    label: str = ""
    folder: str = ""


@dataclass(frozen=True, slots=True)
class PromptBenchmark:
    """Prompts from a file: harmful ones measure unsafe answers, harmless ones refusals.

    Attributes:
        name: on the command line, in results and tables' data.
        title: in tables.
        kind: ``harmful`` or ``harmless``.
        source: where the file comes from, for whoever has not given one.
        read: ``read(path, name, language)`` gives the prompts; ``language`` is what the user names
            the file's language, or None.
        suites: the named suites that it belongs to.
        hostile_title: the title of its mode with a malicious instruction; empty where it has none.
        origin: the files that are fetched where it is named alone; None where none are known.
    """

    name: str
    title: str
    kind: Kind
    source: str
    read: Callable[[Path, str, str | None], PromptSet] = read_prompts
    suites: tuple[str, ...] = ()
    hostile_title: str = ""
    origin: Origin | None = None

    @property
    def hostile_name(self) -> str:
        """The name of its mode with a malicious instruction; empty where it has none."""
        return f"{self.name}{HOSTILE}" if self.hostile_title else ""


@dataclass(frozen=True, slots=True)
class TaskBenchmark:
    """Tasks of lm-evaluation-harness, which measure right answers.

    Attributes:
        name, title, suites: as of a ``PromptBenchmark``.
        languages: the codes that it has.
        task: the task in the language of a code, or the reason why there is none.
    """

    name: str
    title: str
    languages: tuple[str, ...]
    task: Callable[[str], HarnessTask | str]
    suites: tuple[str, ...] = ()


Registered = PromptBenchmark | TaskBenchmark
One = TypeVar("One", PromptBenchmark, TaskBenchmark)

BENCHMARKS: Registry[Registered] = Registry("benchmark")
"""Every benchmark by its name, in the order in which suites hold them."""


def register(benchmark: One, origin: str) -> One:
    """Register a benchmark.

    Args:
        origin: the module that does so: ``__name__``.

    Raises:
        ConfigError: another module has a benchmark of this name.
    """
    BENCHMARKS.add(benchmark.name, benchmark, origin)
    return benchmark


def named_suites() -> dict[str, tuple[str, ...]]:
    """Every named suite with its benchmarks."""
    found: dict[str, tuple[str, ...]] = {}
    for name, one in BENCHMARKS.items():
        for suite in one.suites:
            found[suite] = (*found.get(suite, ()), name)
    return found


def whose_prompts(name: str) -> str:
    """The benchmark whose prompts the one of this name asks: a hostile mode asks its own one's.

    Results and plans have names alone; what is not registered asks its own.
    """
    for one in BENCHMARKS.values():
        if isinstance(one, PromptBenchmark) and name and name == one.hostile_name:
            return one.name
    return name


def folder_of(task: str) -> str:
    """The folder of lm-eval's tasks that has this one, where a benchmark knows it; else empty."""
    for one in BENCHMARKS.values():
        if isinstance(one, TaskBenchmark):
            for code in one.languages:
                found = one.task(code)
                if isinstance(found, HarnessTask) and found.task == task:
                    return found.folder
    return ""
