"""The results folder: what lies where, and what several runs into one folder must share.

::

    RESULTS/
      settings.json                 what all models share; a run with other settings is refused
      majority.json                 whose verdicts make the majority, where one is defined
      ARM/model.json                which model this is: source, digest, backend, versions
      ARM/responses.jsonl           one row per prompt
      ARM/requests.jsonl            what lm-eval asked the model, and what it answered
      ARM/scores.jsonl              one row per question of an lm-eval task
      ARM/verdicts/JUDGE.jsonl      one row per response
      ARM/verdicts/JUDGE.json       which judge that is
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from blake3 import blake3

from safeswap.checkpoint.inside import files_below, why_not_read
from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.judges import MAJORITY
from safeswap.evaluation.judges.names import file_name as file_name
from safeswap.evaluation.results import checked as checks
from safeswap.evaluation.results.anew import remove_results
from safeswap.evaluation.results.checked import checked
from safeswap.evaluation.results.journal import read_rows, unwritable
from safeswap.evaluation.results.names import MAJORITY_FILE
from safeswap.evaluation.results.names import MODEL as MODEL
from safeswap.evaluation.results.names import REQUESTS as REQUESTS
from safeswap.evaluation.results.names import RESPONSES as RESPONSES
from safeswap.evaluation.results.names import SCORES as SCORES
from safeswap.evaluation.results.names import VERDICTS as VERDICTS
from safeswap.evaluation.results.rows import (
    ModelRecord,
    ResponseRow,
    ScoreRow,
    Settings,
    VerdictRow,
)
from safeswap.io.files import write_atomically
from safeswap.io.jsonfile import LARGE, load_json
from safeswap.io.locks import take_lock
from safeswap.io.regular import shortened

_log = logging.getLogger("safeswap.evaluation")
SETTINGS = "settings.json"
IDENTITIES = "prompts"
"""The key of settings.json with what tells every cell's prompts, whatever they are called."""


def digest_of(value: Any) -> str:
    """A short content digest of plain data (32 hex digits of BLAKE3 over sorted JSON)."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return blake3(text.encode(errors="surrogatepass")).hexdigest(length=16)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON; the file is there whole or not at all.

    Raises:
        EvaluationError: the disk does not take it.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, _encoded(text, value))
    except OSError as error:
        raise unwritable(path, error) from error


def _encoded(text: str, value: Any) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # as in `_line`
        return (json.dumps(value, indent=2) + "\n").encode()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        EvaluationError: it is missing or damaged.
    """
    try:
        value = load_json(path, LARGE, constants=True, names=False)
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: is missing. Is this a results folder?") from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: cannot be read as JSON ({error}).") from error
    if not isinstance(value, dict):
        raise EvaluationError(f"{path}: is no JSON object.")
    return value


@dataclass(frozen=True, slots=True)
class Results:
    """A results folder that exists."""

    folder: Path

    @property
    def settings(self) -> Settings:
        """What all models share."""
        path = self.folder / SETTINGS
        found = read_json(path)
        checked(found, checks.SETTINGS, path)
        return cast(Settings, found)

    @property
    def models(self) -> list[str]:
        """The models in it, in the order they were first evaluated in."""
        found = [path.parent for path in self.folder.glob(f"*/{MODEL}")]
        order = {name: n for n, name in enumerate(self.settings.get("arms", []))}
        return sorted((p.name for p in found), key=lambda name: (order.get(name, len(order)), name))

    def model(self, model: str) -> ModelRecord:
        """What is recorded of a model."""
        path = self.folder / model / MODEL
        found = read_json(path)
        checked(found, checks.MODEL, path)
        return cast(ModelRecord, found)

    def judges(self) -> list[str]:
        """The judges that any model has verdicts of, and ``majority`` where one is defined."""
        found = {path.stem for path in self.folder.glob(f"*/{VERDICTS}/*.jsonl")}
        if (self.folder / MAJORITY_FILE).is_file():
            found.add(MAJORITY)
        return sorted(found)


def open_results(folder: str | Path) -> Results:
    """A results folder for reading.

    Raises:
        EvaluationError: it is none.
    """
    path = Path(folder)
    if not (path / SETTINGS).is_file():
        raise EvaluationError(
            f"{path}: is no results folder (it has no {SETTINGS}). `safeswap evaluate` makes one."
        )
    _refuse_leaving(path)
    return Results(path)


def _refuse_leaving(folder: Path) -> None:
    """Somebody else's results are read and written to: no link in them leads to other files of this
    machine, and nobody waits at a pipe.
    """
    for name in files_below(folder):
        reason = why_not_read(folder, folder / name)
        if reason is not None:
            raise EvaluationError(
                f"{folder / name}: is {reason}, which no evaluation writes. Remove it, or put the "
                "file itself there."
            )


def start_results(
    folder: str | Path, settings: Settings, models: Iterable[str], *, overwrite: bool = False
) -> Results:
    """Make a results folder, or go on in one of the same settings.

    Args:
        overwrite: one of other settings is started anew: what our formats name in it is removed.

    Raises:
        EvaluationError: the folder holds results of other settings (the first difference is named),
            or something else; or it cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(path):
            _refuse_leaving(path)
            whole: Settings = {**settings, "arms": list(models)}
            return _start(path, whole, overwrite)
    except OSError as error:
        raise EvaluationError(
            f"{path}: results cannot be stored there ({error.strerror}). Give --out a folder "
            "that can be written."
        ) from error


def _start(path: Path, settings: Settings, overwrite: bool) -> Results:
    if not (path / SETTINGS).is_file():
        # A process that was killed may have left the half-written settings.
        if any(
            found.name not in (f"{SETTINGS}.part", f".{SETTINGS}.part") for found in path.iterdir()
        ):
            raise EvaluationError(
                f"{path}: holds other files and no {SETTINGS}. Give --out an empty folder."
            )
        write_json(path / SETTINGS, settings)
        return Results(path)
    found = Results(path).settings
    try:
        joined = join_settings(found, settings, str(path), "this run")
    except EvaluationError:
        if any(holds_answers(model) for model in path.iterdir() if model.is_dir()):
            if not overwrite:
                raise
            remove_results(path, found)
            _log.warning(f"{path}: held results of other settings, and is started anew")
        joined = settings
    if joined != found:
        write_json(path / SETTINGS, joined)
    return Results(path)


def holds_answers(model: Path) -> bool:
    """Whether a model's folder holds anything that was answered: an attempt that failed before its
    first answer binds nobody.
    """
    files = (model / name for name in (RESPONSES, REQUESTS, SCORES))
    return any(file.is_file() and file.stat().st_size for file in files)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold a folder among processes: models may be evaluated side by side into one folder."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        take_lock(handle, folder, EvaluationError, wait=True)
        yield
    finally:
        os.close(handle)


def join_settings(
    one: Mapping[str, Any], other: Mapping[str, Any], name: str, other_name: str
) -> Settings:
    """The settings of two runs that may stand in one table.

    ``arms``, ``suites`` and ``cells`` (benchmark/language) may be more in one than in the other; a
    cell that both have must be the same prompts, and everything else must be equal.

    Raises:
        EvaluationError: names the first difference and both values.
    """
    plain = json.loads(json.dumps(dict(other)))
    for key in sorted((set(one) | set(plain)) - {"arms", "cells", "suites", IDENTITIES}):
        if one.get(key) != plain.get(key):
            _refuse_difference(key, one.get(key), plain.get(key), name, other_name)
    cells = dict(one.get("cells", {}))
    for cell, value in plain.get("cells", {}).items():
        known = cells.get(cell, value)
        if known != value and "absent" not in known and "absent" not in value:
            _refuse_difference(f"the input of {cell}", known, value, name, other_name)
        cells[cell] = value if "absent" in known else known
    models = list(dict.fromkeys([*one.get("arms", []), *plain.get("arms", [])]))
    suites = list(dict.fromkeys([*one.get("suites", []), *plain.get("suites", [])]))
    told = {**plain.get("prompts", {}), **one.get("prompts", {})}
    joined = {**one, "cells": cells, "arms": models}
    grown = {"prompts": told, "suites": suites}
    return cast(Settings, joined | {key: value for key, value in grown.items() if value})


def _refuse_difference(key: str, one: Any, other: Any, name: str, other_name: str) -> None:
    if isinstance(one, dict) and isinstance(other, dict):  # name what differs, not all there is
        inner = next(k for k in sorted({*one, *other}) if one.get(k) != other.get(k))
        key, one, other = f"{inner} of {key}", one.get(inner), other.get(inner)
    raise EvaluationError(
        f"{name} and {other_name} have different settings: {key} is {one!r} in the former and "
        f"{other!r} in the latter. Results of different settings must not stand in one table: use "
        "the same settings, another --out folder, or --overwrite to start this one anew."
    )


def find_model(results: Results, name: str) -> str:
    """A model by name.

    Raises:
        EvaluationError: there is none of that name; the nearest is named.
    """
    if name not in results.models:
        raise EvaluationError(
            f"{results.folder}: has no model called {name!r}{nearest(name, results.models)}"
        )
    return name


def read_responses(folder: Path) -> Iterator[ResponseRow]:
    """The responses in a model's folder.

    Raises:
        EvaluationError: a damaged line, or a key given twice.
    """
    return cast(Iterator[ResponseRow], _checked(folder / RESPONSES, checks.RESPONSE))


def read_scores(folder: Path) -> tuple[list[ScoreRow], set[str]]:
    """The scores in a model's folder, and the keys of the tasks that are done.

    Raises:
        EvaluationError: a damaged line, or a key given twice.
    """
    rows: list[dict[str, Any]] = list(read_rows(folder / SCORES))
    scores = [row for row in rows if "items" not in row]
    for row in scores:
        checked(row, checks.SCORE, f"{folder / SCORES}: {shortened(row['key'])}")
    whole = {row["key"] for row in rows if "items" in row}
    return [cast(ScoreRow, row) for row in scores], whole


def read_verdicts(path: Path) -> Iterator[VerdictRow]:
    """The verdicts of one judge's file.

    Raises:
        EvaluationError: a damaged line, or a key given twice.
    """
    return cast(Iterator[VerdictRow], _checked(path, checks.VERDICT))


def _checked(path: Path, kinds: Mapping[str, checks.Check]) -> Iterator[dict[str, Any]]:
    for row in read_rows(path):
        checked(row, kinds, f"{path}: {shortened(row['key'])}")
        yield row
