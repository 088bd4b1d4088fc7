"""Ability through lm-evaluation-harness 0.4.13: its tasks and metrics, our storage and bookkeeping.

What lm-eval would get wrong here is kept away from it:

* its request cache does not know which model an answer came from; ours (``StoredModel``) files each
  answer under the model's digest, the templated prompt and the generation settings, and goes on
  after a stop;
* its default of 256 new tokens cuts reasoning off; ours is 1024, and cut answers are counted;
* what does not fit into a model's positions it cuts at the left with a warning; here it is counted;
* its MGSM filter knows only the digits 0 to 9 and reads 18.00 as 1800; ``numbers.final_number``
  gives a verdict of its own beside lm-eval's metric;
* the tag ``mgsm_cot_native`` would run English too; tasks are named one by one;
* local files replace a task's dataset by an override inside an inline group, the only place where
  0.4.13 heeds one; every row of a file must be asked, none is dropped for a subject nobody knows;
* ``datasets`` reads "None" or "007" in a CSV as nothing and as 7; files are read as text here;
* its templates run in Jinja's open environment, and a suite is a file that somebody may have sent:
  ``templates`` renders them in a bounded sandbox, ``task_settings`` says what a suite may set;
* its standard errors are 0 at 0 % and 100 %; intervals are made from the stored rows instead.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lm_eval
import pyarrow.parquet  # type: ignore[import-untyped]
from datasets.exceptions import DatasetsError
from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from lm_eval.tasks import TaskManager

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.backends import Backend
from safeswap.evaluation.benchmarks.registry import HarnessTask, folder_of
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite
from safeswap.evaluation.generate import Generation, ShowProgress
from safeswap.evaluation.harness.at_hand import refuse_missing
from safeswap.evaluation.harness.cached_lm import StoredModel
from safeswap.evaluation.harness.local_data import as_parquet
from safeswap.evaluation.harness.task_rows import cluster_of, score_rows
from safeswap.evaluation.harness.task_settings import check_settings
from safeswap.evaluation.harness.task_specs import spec_of
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.results.journal import Journal, read_rows
from safeswap.evaluation.results.rows import CompleteRow
from safeswap.evaluation.results.store import REQUESTS, SCORES, Results
from safeswap.evaluation.templates import installed

_COMPLETE = "complete"
_LOADING = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, TemplateError,
    DatasetsError,
)  # fmt: skip
"""What lm-eval raises for a dataset that cannot be had, or one with other columns."""


def missing_tasks(
    results: Results, model: str, suite: Suite
) -> list[tuple[Benchmark, HarnessTask]]:
    """What lm-eval has not scored yet for a model."""
    done = {row["key"] for row in read_rows(results.folder / model / SCORES)}
    return [
        (benchmark, task)
        for benchmark in suite.benchmarks
        for code, task in benchmark.tasks.items()
        if f"{benchmark.name}/{code}/{_COMPLETE}" not in done
    ]


def refuse_missing_datasets(results: Results, models: Sequence[str], suite: Suite) -> None:
    """Refuse, before a model is loaded, tasks whose dataset can be had from nowhere.

    Raises:
        EvaluationError: names the cells and the ways out.
    """
    todo = {
        f"{benchmark.name}/{task.language}": task
        for model in models
        for benchmark, task in missing_tasks(results, model, suite)
    }
    unfiled = {cell: task for cell, task in todo.items() if task.file is None}
    if unfiled:
        refuse_missing(unfiled, _manager(list(unfiled.values())))


def score_tasks(
    results: Results,
    model: EvaluatedModel,
    suite: Suite,
    engine: Backend,
    generation: Generation,
    progress: ShowProgress,
) -> int:
    """Run what is missing, one task after the other; how many questions were scored.

    Zero-shot; the chat template is on for every model or off for every model.

    Raises:
        EvaluationError: lm-eval knows no such task, its dataset cannot be had, the backend cannot
            score choices.
    """
    todo = missing_tasks(results, model.name, suite)
    if not todo:
        return 0
    for benchmark, task in todo:
        check_settings(task.settings, f"{benchmark.name}, {task.language}: {task.task}")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager([task for _, task in todo])
    folder, count = results.folder / model.name, 0
    with (
        Journal(folder / REQUESTS) as requests,
        Journal(folder / SCORES) as scores,
        _no_other_output(),
        installed(),
        TemporaryDirectory(prefix="safeswap-tasks-") as scratch,
    ):
        inner, form = engine.harness(), generation.template
        if generation.told is not None:
            _tell_template(inner, generation.told)
            form += f", thinking {generation.thinking}"
        if generation.cut_thoughts:
            inner.thought_limit = generation.think_tokens
            form += f", thoughts cut after {generation.think_tokens}"
        stored = StoredModel(inner, requests, model.digest, form, progress)
        for benchmark, task in todo:
            samples = _evaluate(stored, manager, task, generation, Path(scratch), suite)
            rows = list(score_rows(benchmark, task, samples, stored))
            prefix = f"{benchmark.name}/{task.language}"
            scores.add(row for row in rows if row["key"] not in scores)
            done: CompleteRow = {"key": f"{prefix}/{_COMPLETE}", "items": len(rows)}
            scores.add([done])
            count += len(rows)
    return count


def _manager(tasks: Sequence[HarnessTask]) -> TaskManager:
    """An index of the task folders that are needed; of all where one is not known, which takes ten
    seconds in 0.4.13.
    """
    root = Path(lm_eval.__file__).parent / "tasks"
    folders: set[str] = set()
    for task in tasks:
        if "output_type" in task.settings:
            continue  # a whole task of the user's own
        folder = task.folder or folder_of(task.task)
        if not folder:
            return TaskManager()
        folders.add(str(root / folder))
    return TaskManager(include_defaults=False, include_path=sorted(folders))


def _tell_template(model: Any, thinking: bool) -> None:
    """Tell the chat template of lm-eval's model whether to think.

    Not by its own switch: that refuses every task that scores choices.
    """
    known = getattr(model, "chat_template_args", None) or {}
    model.chat_template_args = {**known, "enable_thinking": thinking}
    if not thinking and hasattr(model, "enable_thinking"):
        model.enable_thinking = False


def _evaluate(
    model: StoredModel,
    manager: TaskManager,
    task: HarnessTask,
    generation: Generation,
    scratch: Path,
    suite: Suite,
) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's samples, by its task names; of one side of a split, of a part, or all."""
    known = manager.all_tasks
    if task.task not in known and "output_type" not in task.settings:
        raise EvaluationError(
            f"lm-eval {lm_eval.__version__} has no task {task.task!r}{nearest(task.task, known)}"
        )
    local = None if task.file is None else as_parquet(task.file, scratch)
    try:
        spec = spec_of(manager, task, local)
        chosen = None
        if suite.split is not None or suite.limit is not None:
            chosen = _chosen(manager, spec, task, suite, local)
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[spec],
            task_manager=manager,
            samples=chosen,
            num_fewshot=0,
            log_samples=True,
            apply_chat_template=generation.template != "off",
            gen_kwargs={"max_gen_toks": generation.harness_tokens + generation.think_tokens},
            bootstrap_iters=0,
        )
    except SecurityError as error:
        raise EvaluationError(
            f"lm-eval's task {task.task}: a template of it is refused: {error}. A suite is data: "
            "its templates may only put a question's fields into words: remove the rest."
        ) from error
    except _LOADING as error:
        place = "its dataset at hand (network or cache)" if local is None else f"{task.file} in the"
        place += "" if local is None else " columns that the task reads"
        raise EvaluationError(
            f"lm-eval's task {task.task}: {type(error).__name__}: {error}. Is {place}?"
        ) from error
    samples: dict[str, list[dict[str, Any]]] = found["samples"]
    if chosen is not None:  # lm-eval asks everything where it is given an empty list
        return {name: listed for name, listed in samples.items() if chosen[name]}
    asked = sum(len({sample["doc_id"] for sample in listed}) for listed in samples.values())
    _refuse_lost(task, local, asked)
    return samples


def _refuse_lost(task: HarnessTask, local: Path | None, asked: int) -> None:
    """Raise where a task has no questions, or passes over rows of a file."""
    if not asked:
        raise EvaluationError(f"lm-eval's task {task.task}: its dataset holds no questions.")
    if local is not None and asked != (rows := pyarrow.parquet.read_metadata(local).num_rows):
        raise EvaluationError(
            f"{task.file}: {asked} of its {rows} rows are asked by lm-eval's task {task.task}; the "
            "others belong to none of its parts. Check the column Subject, or domain."
        )


def _chosen(
    manager: TaskManager,
    spec: str | dict[str, Any],
    task: HarnessTask,
    suite: Suite,
    local: Path | None,
) -> dict[str, list[int]]:
    """The numbers of the questions that are asked, by lm-eval's names of the tasks: those on one
    side of a split, and of these as many as a limit says (at least one of each part of a task).
    """
    split, limit = suite.split, suite.limit
    loaded = manager.load([spec])["tasks"]
    _refuse_lost(task, local, sum(len(one.eval_docs) for one in loaded.values()))
    sides = {
        name: [
            number
            for number, doc in enumerate(one.eval_docs)
            if split is None or split.holds(cluster_of(task, name, number, doc))
        ]
        for name, one in loaded.items()
    }
    if not any(sides.values()):
        raise EvaluationError(
            f"lm-eval's task {task.task}: none of its questions is on the side {split}. Choose "
            "another part of dev questions or another seed."
        )
    if limit is not None:
        each = max(1, -(-limit.count // len(sides)))
        for name, numbers in sides.items():
            kept = limit.chosen(map(str, numbers), each)
            sides[name] = [number for number in numbers if str(number) in kept]
    return sides


@contextmanager
def _no_other_output() -> Iterator[None]:
    """No progress bars of ``datasets`` and lm-eval between ours, and nothing asked of git and pip:
    lm-eval lists every installed package for each task, which takes it longer than a small one.
    """
    import datasets
    from lm_eval import evaluator
    from lm_eval.api import task

    shown = datasets.is_progress_bar_enabled()
    quiet: dict[tuple[Any, str], Any] = {
        (task, "tqdm"): partial(task.tqdm, disable=True),
        (evaluator, "get_git_commit_hash"): lambda: None,
        (evaluator, "add_env_info"): lambda storage: None,
    }
    kept = {place: getattr(*place) for place in quiet}
    datasets.disable_progress_bars()
    for (module, name), other in quiet.items():
        setattr(module, name, other)
    try:
        yield
    finally:
        for (module, name), own in kept.items():
            setattr(module, name, own)
        if shown:
            datasets.enable_progress_bars()
