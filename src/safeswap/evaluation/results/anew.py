"""Started anew: what our formats name is removed from a results folder, and nothing else.

A model's folder counts where the settings name it; what else lies in it, or beside it, stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safeswap.checkpoint.inside import is_plain_name
from safeswap.errors import EvaluationError
from safeswap.evaluation.results.journal import remove_journal, unwritable
from safeswap.evaluation.results.names import MODEL, REQUESTS, RESPONSES, SCORES, VERDICTS
from safeswap.io.jsonfile import LARGE, load_json

_JUDGE_RECORD = {"judge", "source", "version"}


def remove_results(folder: Path, settings: Mapping[str, Any]) -> None:
    """Remove the answers, scores and verdicts of every model that the settings name.

    Raises:
        EvaluationError: a model's folder is a link; another process writes to one; the disk
            refuses.
    """
    models = [name for name in settings.get("arms", ()) if isinstance(name, str)]
    for name in models:
        if is_plain_name(name) and "/" not in name:
            remove_model(folder / name)


def remove_model(model: Path) -> None:
    """Remove what a model's folder holds of ours; the folder too, where nothing else is in it.

    Raises:
        EvaluationError: as `remove_results`.
    """
    if not model.is_dir():
        return
    _refuse_link(model)
    _refuse_link(model / VERDICTS)
    for path in _verdict_files(model / VERDICTS):
        _remove(path)
    for name in (RESPONSES, REQUESTS, SCORES, MODEL):  # the record last: it says whose they are
        _remove(model / name)
    for empty in (model / VERDICTS, model):
        with suppress(OSError):  # others' files are in it, and stay
            empty.rmdir()


def remove_verdicts(model: Path, judge: str) -> None:
    """Remove one judge's verdicts on a model's answers.

    Raises:
        EvaluationError: as `remove_results`.
    """
    _refuse_link(model / VERDICTS)
    for suffix in (".jsonl", ".json"):
        _remove(model / VERDICTS / f"{judge}{suffix}")


def _verdict_files(folder: Path) -> Iterator[Path]:
    """Verdicts, and the records of the judges that gave them."""
    verdicts = sorted(folder.glob("*.jsonl"))
    yield from verdicts
    for path in sorted(folder.glob("*.json")):
        if path.with_suffix(".jsonl") in verdicts or _is_judge_record(path):
            yield path


def _is_judge_record(path: Path) -> bool:
    try:
        found = load_json(path, LARGE, constants=True, names=False)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.keys() >= _JUDGE_RECORD


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise EvaluationError(
            f"{folder}: is a link, and --overwrite removes nothing that lies elsewhere. Remove it "
            "yourself, or choose another --out."
        )


def _remove(path: Path) -> None:
    """One file, its half-written successor too."""
    try:
        if path.suffix == ".jsonl" and path.is_file() and not path.is_symlink():
            remove_journal(path)
        for leftover in (path, path.with_name(f"{path.name}.part")):
            if not leftover.is_dir():
                leftover.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
