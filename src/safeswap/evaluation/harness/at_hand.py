"""Can the datasets of lm-eval's tasks be had? Asked before a model is loaded, and of each once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
from lm_eval.tasks import TaskManager

from safeswap.errors import EvaluationError, listed
from safeswap.evaluation.benchmarks.registry import HarnessTask

_SECONDS = 10.0
"""How long the hub may take to say that it is there."""
_LOADERS = ("parquet", "json", "csv", "text", "arrow")
"""What `datasets` reads from files: nothing to fetch."""


def refuse_missing(tasks: Mapping[str, HarnessTask], manager: TaskManager) -> None:
    """Refuse tasks whose dataset is neither in the cache nor to be fetched.

    Args:
        tasks: cell (``benchmark/language``) → its task.

    Raises:
        EvaluationError: names the cells and datasets, why, and the ways out.
    """
    wanted: dict[str, list[str]] = {}
    for cell, task in tasks.items():
        if task.file is None:
            for path in _datasets_of(task, manager):
                wanted.setdefault(path, []).append(cell)
    missing = [path for path in wanted if not _is_here(path)]
    reason, gone = _why_not(missing)
    if not gone:
        return
    cells = list(dict.fromkeys(cell for path in gone for cell in wanted[path]))
    raise EvaluationError(
        f"{listed(cells)}: the datasets {listed(gone)} are not in the cache and cannot be fetched "
        f"({reason}). Give local files in their place (--data {cells[0]}=FILE), or ask without "
        "them: --suite safety."
    )


def _datasets_of(task: HarnessTask, manager: TaskManager) -> Iterator[str]:
    """The datasets that a task reads, by their ids on the hub; those of its parts for a group."""
    index: Mapping[str, Any] = manager.task_index
    names = [task.task, *(name for name in index if name.startswith(f"{task.task}_"))]
    seen: set[str] = set()
    for name in names if "dataset_path" not in task.settings else [task.task]:
        content = {**(getattr(index.get(name), "cfg", None) or {}), **task.settings}
        path = content.get("dataset_path")
        if isinstance(path, str) and path not in (*seen, *_LOADERS) and not Path(path).exists():
            seen.add(path)
            yield path


def _is_here(path: str) -> bool:
    """Whether `datasets` has prepared it before, under whatever configuration."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    return cache.is_dir() and any(_plain(one.name) == _plain(path) for one in cache.iterdir())


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _why_not(paths: Sequence[str]) -> tuple[str, list[str]]:
    """Why datasets cannot be fetched, and which of them; the hub is asked until it fails."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set", list(paths)
    for number, path in enumerate(paths):
        try:
            huggingface_hub.HfApi().dataset_info(path, timeout=_SECONDS)
        except huggingface_hub.errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", "an error")
            return f"the hub answers {status}", [path]
        except Exception as error:  # whatever the HTTP library of the day calls a dead network
            return f"the hub is out of reach: {type(error).__name__}", list(paths[number:])
    return "", []
