"""Suites: which benchmarks are run in which languages, and why a cell stays empty.

A suite is a name that benchmarks are registered with (``paper``), names of suites and benchmarks
joined by commas, or a YAML file::

    benchmarks:
      harm:   {prompts: my_prompts.csv}                    # MultiJail's or XSTest's columns
      benign: {prompts: xstest_sw.csv, language: sw}
      reading:
        tasks:                                             # language → lm-evaluation-harness task
          sw: {task: belebele_swh_Latn, file: reading_sw.jsonl}
          yo: belebele_yor_Latn
        cluster: link                                # the document field that groups questions

Paths are relative to that file. A task is a name, or a mapping of lm-eval's own task settings;
``file`` takes the place of its dataset.

Coverage is uneven and is stated, not hidden: a language that a benchmark lacks is an ``Absent``
with its reason, and prints as "n/a".
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError, listed, nearest
from safeswap.evaluation.benchmarks.limit import Limit
from safeswap.evaluation.benchmarks.prompts import FORMS, PromptSet, read_prompts, with_instruction
from safeswap.evaluation.benchmarks.registry import (
    BENCHMARKS,
    HarnessTask,
    PromptBenchmark,
    TaskBenchmark,
    named_suites,
)
from safeswap.evaluation.benchmarks.splits import Split
from safeswap.evaluation.measures import Measure
from safeswap.io.keys import check_keys
from safeswap.io.regular import is_file, is_there
from safeswap.io.yamlfile import read_yaml

_log = logging.getLogger("safeswap.evaluation")
_NAME = re.compile(r"[\w.+-]+")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One benchmark of a suite: prompts of ours, or tasks of lm-eval; and what it lacks.

    ``absent`` has the reason for each language asked for that the benchmark does not have.
    """

    name: str
    title: str
    measures: Measure
    prompts: PromptSet | None = None
    tasks: Mapping[str, HarnessTask] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Suite:
    """Benchmarks in a fixed order, in fixed languages.

    It holds one side of a ``Split`` of their questions, or all of them.
    """

    languages: tuple[str, ...]
    benchmarks: tuple[Benchmark, ...]
    split: Split | None = None
    limit: Limit | None = None

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


def make_suite(
    spec: str,
    languages: Sequence[str],
    *,
    prompts: Mapping[str, Path] | None = None,
    files: Mapping[tuple[str, str], Path] | None = None,
    instruction: Path | None = None,
) -> Suite:
    """Resolve a suite for the languages.

    Args:
        spec: a named suite, benchmark names joined by commas, or the path of a YAML file.
        languages: codes; MultiJail's own, ISO 639-1, or FLORES-200 (``hau_Latn``) for BELEBELE.
        prompts: name of a prompt benchmark (``multijail``, or ``xstest/sw`` for one language) to
            its CSV file.
        files: (benchmark, language) to a local file in the benchmark's own schema.
        instruction: adds the hostile mode (MultiJail's intentional one) with this instruction.

    Raises:
        EvaluationError: unknown suite, benchmark or key; a missing file; a language that no
            benchmark of the suite has.
    """
    wanted = tuple(dict.fromkeys(languages))
    if not wanted:
        raise EvaluationError("no language is given: add --only, such as --only sw,te.")
    for code in wanted:
        if not _NAME.fullmatch(code) or code == "all":
            raise EvaluationError(
                f"{code!r} is no language's code. Give codes such as sw or hau_Latn."
            )
    path = Path(spec)
    if path.suffix in (".yaml", ".yml"):
        _refuse_unused(prompts, files, instruction, (), wanted, spec)
        benchmarks = _read_suite(path, wanted)
    else:
        names = _names(spec)
        _refuse_unused(prompts, files, instruction, names, wanted, spec)
        benchmarks = []
        for name in names:
            one = BENCHMARKS[name]
            if isinstance(one, PromptBenchmark):
                benchmarks += _prompt_benchmarks(one, wanted, prompts or {}, instruction)
            else:
                benchmarks.append(_harness_benchmark(one, wanted, files or {}))
    for code in wanted:
        if all(code in benchmark.absent for benchmark in benchmarks):
            reasons = "; ".join(f"{b.title}: {b.absent[code]}" for b in benchmarks)
            raise EvaluationError(
                f"no benchmark of the suite has the language {code!r} ({reasons})."
            )
    return Suite(wanted, tuple(benchmarks))


def _names(spec: str) -> tuple[str, ...]:
    """The benchmarks of a list of suites and benchmarks, each once."""
    names: list[str] = []
    suites = named_suites()
    known = (*suites, *BENCHMARKS)
    for name in (part.strip() for part in spec.split(",")):
        if name not in known:
            raise EvaluationError(f"no suite or benchmark is called {name!r}{nearest(name, known)}")
        names += suites.get(name, (name,))
    return tuple(dict.fromkeys(names))


def _refuse_unused(
    prompts: Mapping[str, Path] | None,
    files: Mapping[tuple[str, str], Path] | None,
    instruction: Path | None,
    names: Sequence[str],
    wanted: Sequence[str],
    spec: str,
) -> None:
    """Raise for inputs that the suite would pass over in silence."""
    held = [BENCHMARKS[name] for name in names]
    of_prompts = [one.name for one in held if isinstance(one, PromptBenchmark)]
    for key in prompts or {}:
        name = key.partition("/")[0]
        if name not in of_prompts:
            raise EvaluationError(
                f"--prompts {key}: the suite {spec} asks no prompts of this name"
                f"{nearest(name, of_prompts)}"
            )
    cells = [
        f"{one.name}/{code}" for one in held if isinstance(one, TaskBenchmark) for code in wanted
    ]
    for name, code in files or {}:
        if f"{name}/{code}" not in cells:
            raise EvaluationError(
                f"--data {name}/{code}: is no cell of the suite {spec} in the languages "
                f"{', '.join(wanted)}{nearest(f'{name}/{code}', cells)}"
            )
    if instruction is not None:
        _refuse_no_hostile_mode(held, spec)


def _refuse_no_hostile_mode(held: Sequence[PromptBenchmark | TaskBenchmark], spec: str) -> None:
    able = [one for one in BENCHMARKS.values() if _has_hostile_mode(one)]
    if not any(one in able for one in held):
        raise EvaluationError(
            f"--instruction is for {', '.join(one.title for one in able)}, which the suite {spec} "
            f"does not hold. Leave it out, or add {able[0].name} to --suite."
        )


def _has_hostile_mode(one: PromptBenchmark | TaskBenchmark) -> bool:
    return isinstance(one, PromptBenchmark) and bool(one.hostile_title)


def _prompt_benchmarks(
    one: PromptBenchmark,
    wanted: Sequence[str],
    prompts: Mapping[str, Path],
    instruction: Path | None,
) -> list[Benchmark]:
    """The benchmark with its prompts; and its hostile mode, where an instruction is given."""
    chosen = {key: path for key, path in prompts.items() if key.partition("/")[0] == one.name}
    if not chosen:
        raise EvaluationError(
            f"{one.title} needs its CSV file: --prompts {one.name}=FILE. It comes from "
            f"{one.source}."
        )
    joined = _all_prompts(one, chosen, wanted)
    made = [_of_prompts(one.name, one.title, joined, wanted)]
    if instruction is not None and one.hostile_title:
        hostile = with_instruction(joined, instruction)
        made.append(_of_prompts(hostile.name, one.hostile_title, hostile, wanted))
    return made


def _all_prompts(
    one: PromptBenchmark, chosen: Mapping[str, Path], wanted: Sequence[str]
) -> PromptSet:
    """The prompts of several files together, all of the benchmark's kind and each only once.

    A file of which nothing is asked is said: who gave it expects to see it in the tables.
    """
    sets = [one.read(path, one.name, key.partition("/")[2] or None) for key, path in chosen.items()]
    for path, found in zip(chosen.values(), sets, strict=True):
        if found.kind != one.kind:
            raise EvaluationError(
                f"{path}: has the columns of {FORMS[found.kind]}, whose prompts are {found.kind}; "
                f"{one.name} needs {one.kind} ones. Check --prompts."
            )
    for key, found in zip(chosen, sets, strict=True):
        if not set(found.languages) & set(wanted):
            has = ", ".join(found.languages)
            _log.warning(
                f"--prompts {key}={chosen[key]}: its prompts are in {has}, and none of them is "
                f"asked. To ask them too, add --only {found.languages[0]}."
            )
    joined = PromptSet(one.name, one.kind, tuple(p for found in sets for p in found.prompts))
    counts = Counter((p.language, p.id) for p in joined.prompts)
    if twice := [f"{id_} ({code})" for (code, id_), count in counts.items() if count > 1]:
        raise EvaluationError(
            f"{', '.join(map(str, chosen.values()))}: prompts stand in several of these files: "
            f"{listed(twice)}. Name the language of each: --prompts {one.name}/LANGUAGE=FILE."
        )
    return joined


def _of_prompts(name: str, title: str, prompts: PromptSet, wanted: Sequence[str]) -> Benchmark:
    has = ", ".join(prompts.languages)
    absent = {
        code: f"the prompts are in {has} only" for code in wanted if code not in prompts.languages
    }
    kept = PromptSet(name, prompts.kind, prompts.in_languages(wanted))
    measures = Measure.UNSAFE if prompts.kind == "harmful" else Measure.OVER_REFUSAL
    return Benchmark(name, title, measures, prompts=kept, absent=absent)


def _harness_benchmark(
    one: TaskBenchmark, wanted: Sequence[str], files: Mapping[tuple[str, str], Path]
) -> Benchmark:
    tasks: dict[str, HarnessTask] = {}
    absent: dict[str, str] = {}
    for code in wanted:
        file = files.get((one.name, code))
        if file is not None and not is_file(file):
            raise EvaluationError(
                f"{file}: there is no such file. Check --data {one.name}/{code}=FILE."
            )
        found = one.task(code)
        if isinstance(found, HarnessTask):
            tasks[code] = replace(found, file=file)
        else:
            absent[code] = found
    return Benchmark(one.name, one.title, Measure.ACCURACY, tasks=tasks, absent=absent)


def _read_suite(path: Path, wanted: Sequence[str]) -> list[Benchmark]:
    if not is_there(path):
        raise EvaluationError(f"{path}: there is no such suite. Check --suite.")
    loaded = read_yaml(path, error=EvaluationError)
    top = _mapping(loaded, f"{path}", ("benchmarks",))
    entries = top.get("benchmarks")
    if not isinstance(entries, dict) or not entries:
        raise EvaluationError(f"{path}: needs `benchmarks:` with at least one benchmark under it.")
    return [_suite_entry(path, name, entry, wanted) for name, entry in entries.items()]


def _suite_entry(path: Path, name: str, entry: Any, wanted: Sequence[str]) -> Benchmark:
    where = f"{path}: benchmarks.{name}"
    if not _NAME.fullmatch(name):
        raise EvaluationError(f"{where}: a name holds letters, digits, . _ + and - only.")
    settings = _mapping(
        entry, where, ("prompts", "language", "tasks", "cluster", "numbers", "title")
    )
    if ("prompts" in settings) == ("tasks" in settings):
        raise EvaluationError(f"{where}: needs either `prompts:` (a CSV file) or `tasks:`.")
    title = str(settings.get("title", name))
    if "prompts" in settings:
        _mapping(entry, f"{where}, with prompts", ("prompts", "language", "title"))
        language = settings.get("language")
        code = None if language is None else str(language)
        prompts = read_prompts(path.parent / str(settings["prompts"]), name, code)
        return _of_prompts(name, title, prompts, wanted)
    _mapping(entry, f"{where}, with tasks", ("tasks", "cluster", "numbers", "title"))
    if not isinstance(settings["tasks"], dict) or not settings["tasks"]:
        raise EvaluationError(f"{where}.tasks: is a mapping from language to task.")
    given = settings["tasks"]
    tasks = {
        code: _suite_task(path, f"{where}.tasks.{code}", code, given[code], settings)
        for code in wanted
        if code in given
    }
    absent = {
        code: f"{title} is in {', '.join(given)} only" for code in wanted if code not in given
    }
    return Benchmark(name, title, Measure.ACCURACY, tasks=tasks, absent=absent)


def _suite_task(
    path: Path, where: str, code: str, entry: Any, settings: Mapping[str, Any]
) -> HarnessTask:
    if isinstance(entry, str):
        entry = {"task": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("task"), str):
        raise EvaluationError(f"{where}: is a task's name, or a mapping with `task:`.")
    rest = {key: value for key, value in entry.items() if key not in ("task", "file")}
    file = path.parent / str(entry["file"]) if "file" in entry else None
    if file is not None and not is_file(file):
        raise EvaluationError(
            f"{where}: there is no file {file}. Paths are relative to the suite's."
        )
    cluster, numbers = settings.get("cluster"), settings.get("numbers", False)
    if not isinstance(numbers, bool):
        raise EvaluationError(f"{where}: numbers is true or false, not {numbers!r}.")
    return HarnessTask(
        language=code,
        task=entry["task"],
        settings=rest,
        file=file,
        cluster=None if cluster is None else str(cluster),
        numbers=numbers,
    )


def _mapping(value: Any, where: str, keys: Sequence[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EvaluationError(f"{where}: is a mapping with the keys {', '.join(keys)}.")
    check_keys(value, keys, where, EvaluationError)
    return value
