"""What lm-eval is given for a task: its name, or an inline group that overrides its settings."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow.parquet  # type: ignore[import-untyped]
from lm_eval.tasks import TaskManager

from safeswap.evaluation.benchmarks.registry import HarnessTask


def spec_of(manager: TaskManager, task: HarnessTask, local: Path | None) -> str | dict[str, Any]:
    """What lm-eval is given: the task's name, or an inline group that overrides its settings."""
    if local is None and not task.settings:
        return task.task
    overrides = deepcopy(dict(task.settings))  # lm-eval writes into what it is given
    if local is not None:
        splits = dict.fromkeys(("test", "train", "validation", "val", "dev"), str(local))
        overrides |= {
            "dataset_path": "parquet",
            "dataset_name": None,
            # a cache of its own: nothing is left behind, and no file is taken for an older one
            "dataset_kwargs": {"data_files": splits, "cache_dir": str(local.parent)},
        }
    if "output_type" in overrides:  # a whole task of the user's own: nothing to override
        return {"task": task.task, **overrides}
    leaves = [name for name in manager.all_subtasks if name.startswith(f"{task.task}_")]
    if local is not None and (subjects := _subjects(local)):
        # lm-eval fails on a part without questions; a subject that nobody knows is counted later
        leaves = [n for n in leaves if n.removeprefix(f"{task.task}_") in subjects] or leaves
    names = [task.task] if task.task in manager.all_subtasks or not leaves else leaves
    return {
        "group": f"safeswap_{task.task}",
        "task": [{"task": name, **overrides} for name in names],
    }


def _subjects(local: Path) -> set[str]:
    """The subjects in a file of MMMLU's or Global-MMLU's columns, less what follows the name; the
    domains in one of INCLUDE's, as its parts are called.
    """
    names = set(pyarrow.parquet.read_schema(local).names)
    for column in ({"domain"} & names) or ({"Subject", "subject"} & names):
        values = pyarrow.parquet.read_table(local, columns=[column])[column].to_pylist()
        if column == "domain":
            return {re.sub(r" (& )?", "_", str(value).lower()) for value in values}
        return {str(value).partition("_test")[0] for value in values}
    return set()
