"""The YAML file of a suite, read strictly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.prompts import read_prompts
from safeswap.evaluation.benchmarks.registry import (
    HarnessTask,
)
from safeswap.evaluation.benchmarks.suite import Benchmark, of_prompts
from safeswap.evaluation.measures import Measure
from safeswap.io.keys import check_keys
from safeswap.io.regular import is_file, is_there
from safeswap.io.yamlfile import read_yaml

NAME = re.compile(r"[\w.+-]+")


def read_suite(path: Path, wanted: Sequence[str], outside: bool) -> list[Benchmark]:
    """The benchmarks of a suite's file.

    Args:
        outside: it may name files outside its own folder.

    Raises:
        EvaluationError: what is wrong at which key.
    """
    if not is_there(path):
        raise EvaluationError(f"{path}: there is no such suite. Check --suite.")
    loaded = read_yaml(path, error=EvaluationError)
    top = _mapping(loaded, f"{path}", ("benchmarks",))
    entries = top.get("benchmarks")
    if not isinstance(entries, dict) or not entries:
        raise EvaluationError(f"{path}: needs `benchmarks:` with at least one benchmark under it.")
    return [_suite_entry(path, name, entry, wanted, outside) for name, entry in entries.items()]


def _named_file(path: Path, where: str, given: Any, outside: bool) -> Path:
    """A file that a suite names, relative to it: below its folder, unless the user said otherwise.

    Raises:
        EvaluationError: it lies elsewhere, or is reached by a link that leads elsewhere.
    """
    file = path.parent / str(given)
    if not outside:
        try:
            inside = file.resolve().is_relative_to(path.parent.resolve())
        except (OSError, RuntimeError, ValueError):  # links in a circle, names that no file has
            inside = False
        if not inside:
            raise EvaluationError(
                f"{where}: names {str(given)[:200]!r}, which is not below the suite's own folder. "
                "A suite may come from somebody else, and is no leave to read other files. Put "
                "the file beside it; or say --allow-outside if the suite is yours."
            )
    return file


def _suite_entry(
    path: Path, name: str, entry: Any, wanted: Sequence[str], outside: bool
) -> Benchmark:
    where = f"{path}: benchmarks.{name}"
    if not NAME.fullmatch(name):
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
        prompts = read_prompts(
            _named_file(path, f"{where}.prompts", settings["prompts"], outside), name, code
        )
        return of_prompts(name, title, prompts, wanted)
    _mapping(entry, f"{where}, with tasks", ("tasks", "cluster", "numbers", "title"))
    if not isinstance(settings["tasks"], dict) or not settings["tasks"]:
        raise EvaluationError(f"{where}.tasks: is a mapping from language to task.")
    given = settings["tasks"]
    tasks = {
        code: _suite_task(path, f"{where}.tasks.{code}", code, given[code], settings, outside)
        for code in wanted
        if code in given
    }
    absent = {
        code: f"{title} is in {', '.join(given)} only" for code in wanted if code not in given
    }
    return Benchmark(name, title, Measure.ACCURACY, tasks=tasks, absent=absent)


def _suite_task(
    path: Path, where: str, code: str, entry: Any, settings: Mapping[str, Any], outside: bool
) -> HarnessTask:
    if isinstance(entry, str):
        entry = {"task": entry}
    if not isinstance(entry, dict) or not isinstance(entry.get("task"), str):
        raise EvaluationError(f"{where}: is a task's name, or a mapping with `task:`.")
    rest = {key: value for key, value in entry.items() if key not in ("task", "file")}
    file = _named_file(path, where, entry["file"], outside) if "file" in entry else None
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
