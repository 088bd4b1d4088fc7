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
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from safeswap.errors import EvaluationError, listed, nearest
from safeswap.evaluation.benchmarks.named import (
    Found,
    advise_harmless,
    fetchable,
    find_files,
    say_origin,
)
from safeswap.evaluation.benchmarks.prompts import FORMS, PromptSet, with_instruction
from safeswap.evaluation.benchmarks.registry import (
    BENCHMARKS,
    HarnessTask,
    PromptBenchmark,
    TaskBenchmark,
    named_suites,
)
from safeswap.evaluation.benchmarks.suite import Benchmark, Suite, identities, of_prompts
from safeswap.evaluation.benchmarks.suite_file import NAME, read_suite
from safeswap.evaluation.measures import Measure
from safeswap.io.regular import is_file

_log = logging.getLogger("safeswap.evaluation")


def make_suite(
    spec: str,
    languages: Sequence[str],
    *,
    prompts: Mapping[str, Path | None] | None = None,
    files: Mapping[tuple[str, str], Path] | None = None,
    instruction: Path | None = None,
    allow_outside: bool = False,
    fetch: bool = True,
) -> Suite:
    """Resolve a suite for the languages.

    Args:
        spec: a named suite, benchmark names joined by commas, or the path of a YAML file.
        languages: codes; MultiJail's own, ISO 639-1, or FLORES-200 (``hau_Latn``) for BELEBELE.
        prompts: name of a prompt benchmark (``multijail``, or ``xstest/sw`` for one language) to
            its file; to None where the file of its authors is to be fetched.
        files: (benchmark, language) to a local file in the benchmark's own schema.
        instruction: adds the hostile mode (MultiJail's intentional one) with this instruction.
        allow_outside: a suite's YAML file may name files outside its own folder.
        fetch: False: nothing is fetched, and the benchmarks say what would be.

    Raises:
        EvaluationError: unknown suite, benchmark or key; a missing file, or one that cannot be
            fetched; a language that no benchmark of the suite has.
    """
    wanted = tuple(dict.fromkeys(languages))
    if not wanted:
        raise EvaluationError("no language is given: add --only, such as --only sw,te.")
    for code in wanted:
        if not NAME.fullmatch(code) or code == "all":
            raise EvaluationError(
                f"{code!r} is no language's code. Give codes such as sw or hau_Latn."
            )
    path = Path(spec)
    if path.suffix in (".yaml", ".yml"):
        _refuse_unused(prompts, files, instruction, (), wanted, spec)
        benchmarks = read_suite(path, wanted, allow_outside)
    else:
        names = _names(spec)
        _refuse_unused(prompts, files, instruction, names, wanted, spec)
        benchmarks = []
        for name in names:
            one = BENCHMARKS[name]
            if isinstance(one, PromptBenchmark):
                benchmarks += _prompt_benchmarks(one, wanted, prompts or {}, instruction, fetch)
            else:
                benchmarks.append(_harness_benchmark(one, wanted, files or {}))
    for code in wanted:
        if all(code in benchmark.absent for benchmark in benchmarks):
            reasons = "; ".join(f"{b.title}: {b.absent[code]}" for b in benchmarks)
            raise EvaluationError(
                f"no benchmark of the suite has the language {code!r} ({reasons})."
            )
    made = Suite(wanted, tuple(benchmarks), given=spec)
    if path.suffix not in (".yaml", ".yml"):
        advise_harmless(_asked(made, Measure.UNSAFE), _asked(made, Measure.OVER_REFUSAL))
    return made


def _asked(suite: Suite, measures: Measure) -> list[str]:
    """The languages in which prompts of a kind are asked."""
    return [
        code
        for code in suite.languages
        if any(b.measures == measures and code not in b.absent for b in suite.benchmarks)
    ]


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
    prompts: Mapping[str, Path | None] | None,
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
    prompts: Mapping[str, Path | None],
    instruction: Path | None,
    fetch: bool,
) -> list[Benchmark]:
    """The benchmark with its prompts; and its hostile mode, where an instruction is given."""
    chosen = {key: path for key, path in prompts.items() if key.partition("/")[0] == one.name}
    if not chosen:
        alone = f", or --prompts {one.name} to fetch it" if one.name in fetchable() else ""
        raise EvaluationError(
            f"{one.title} needs its file: --prompts {one.name}=FILE{alone}. It comes from "
            f"{one.source}."
        )
    found = find_files(one, chosen, wanted, fetch)
    joined = _all_prompts(one, found, wanted)
    made = [of_prompts(one.name, one.title, joined, wanted)]
    if instruction is not None and one.hostile_title:
        hostile = with_instruction(joined, instruction)
        made.append(of_prompts(hostile.name, one.hostile_title, hostile, wanted))
    return [_completed(benchmark, found) for benchmark in made]


def _completed(benchmark: Benchmark, found: Found) -> Benchmark:
    """The benchmark with what its authors' files lack, and what of them is not here yet."""
    absent = {
        code: found.absent.get(code, reason)
        for code, reason in benchmark.absent.items()
        if code not in found.to_fetch
    }
    return replace(benchmark, absent=absent, to_fetch=found.to_fetch)


def _all_prompts(one: PromptBenchmark, files: Found, wanted: Sequence[str]) -> PromptSet:
    """The prompts of several files together, all of the benchmark's kind and each only once.

    A file of which nothing is asked is said: who gave it expects to see it in the tables.
    """
    chosen = files.files
    sets = [one.read(path, one.name, key.partition("/")[2] or None) for key, path in chosen.items()]
    sets = [
        replace(found, prompts=found.in_languages(files.theirs.get(key, found.languages)))
        for key, found in zip(chosen, sets, strict=True)
    ]
    say_origin(one, [found for key, found in zip(chosen, sets, strict=True) if key in files.theirs])
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


__all__ = ["Benchmark", "Suite", "identities", "make_suite"]
