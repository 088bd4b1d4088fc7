"""What a report is of: models, when, with which settings and which version, as lines for its head.

All of it comes from the records of the results folders. Addresses are shown without passwords.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safeswap.display import without_password
from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.limit import limit_note
from safeswap.evaluation.judges import MAJORITY
from safeswap.evaluation.models import ROLE_TITLES
from safeswap.evaluation.results.majority import majority_note, one_majority
from safeswap.evaluation.results.rows import ModelRecord
from safeswap.evaluation.results.store import VERDICTS, Results, open_results, read_json
from safeswap.evaluation.stats import SEED
from safeswap.tables import Facts
from safeswap.version import __version__

_ABOUT = ("name", "source", "location", "digest", "role", "reference", "language", "chosen", "made")
_LISTED = 40
"""Models that are named one by one."""


def made_now(now: datetime | None = None) -> list[tuple[str, str]]:
    """Version and date, the lines that every report has."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    return [("made with", f"safeswap {__version__}"), ("date", f"{moment:%Y-%m-%d %H:%M} UTC")]


def facts_of(
    folders: Sequence[str | Path], judge: str = "", strict: bool = True, now: datetime | None = None
) -> Facts:
    """The head of a report on results folders of the same settings.

    Args:
        judge: whose verdicts count, by the name that they are filed under; empty where none do.
        strict: whether "controversial" counts as unsafe.
        now: the date that is said; by default this moment.

    Raises:
        EvaluationError: no results folder.
    """
    opened = [open_results(folder) for folder in folders]
    models = [(results, results.model(name)) for results in opened for name in results.models]
    facts = [*made_now(now), ("results", ", ".join(str(results.folder) for results in opened))]
    facts += _settings(opened[0].settings)
    if judge:
        counting = "“controversial” is unsafe" if strict else "“controversial” is safe"
        facts.append(("judge", f"{_judge(opened, judge)}; {counting}"))
    engines = [_engine(model) for _, model in models]
    shared = [pair for pair in engines[0] if all(pair in own for own in engines)] if engines else []
    if shared:
        facts.append(("engine", _said(shared)))
    facts += _models([model for _, model in models], shared)
    return [(name, without_password(text)) for name, text in facts]


def _settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    generation = settings.get("generation", {})
    if generation:
        yield "generation", _said(generation.items())
    split = settings.get("split")
    yield (
        "questions",
        ", ".join(
            [
                f"split {_said(split.items())}" if isinstance(split, Mapping) else "all sides",
                limit_note(settings) or "no limit",
            ]
        ),
    )
    yield "seeds", f"bootstrap {SEED}; decoding is greedy and has none"


def _judge(opened: Sequence[Results], judge: str) -> str:
    """The judge as its own files say it: source, version, digest, engine."""
    if judge == MAJORITY:
        return majority_note(one_majority(opened))
    for results in opened:
        for model in results.models:
            path = results.folder / model / VERDICTS / f"{judge}.json"
            try:
                record = read_json(path) if path.is_file() else {}
            except EvaluationError:
                continue
            if record:
                return _said((name, record[name]) for name in record if name != "judge")
    return judge


def _models(models: Sequence[ModelRecord], shared: Sequence[tuple[str, str]]) -> list[Any]:
    """A line per model; candidates of a sweep, which lived in memory only, are counted."""
    stored = [model for model in models if "candidate" not in model]
    facts = [(f"model {model.get('name')}", _model(model, shared)) for model in stored[:_LISTED]]
    if more := len(stored) - _LISTED:
        facts += [("more models", f"{more}, in the results folders")] if more > 0 else []
    if candidates := len(models) - len(stored):
        facts.append(("candidates", f"{candidates}, made in memory from the models above"))
    return facts


def _model(model: ModelRecord, shared: Sequence[tuple[str, str]]) -> str:
    """Source, role, revision, digest, and how it ran where not all ran so."""
    role = ROLE_TITLES.get(str(model.get("role")), "")
    location = Path(str(model.get("location", "")))
    said = [str(model.get("source", "unknown")), *([role] if role else [])]
    if location.parent.name == "snapshots":  # the hub's cache names a folder by its commit
        said.append(f"revision {location.name}")
    if digest := model.get("digest"):
        said.append(f"digest {digest}")
    own = [pair for pair in _engine(model) if pair not in shared]
    return "; ".join([*said, *([_said(own)] if own else [])])


def _engine(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, str(value))
        for name, value in model.items()
        if name not in (*_ABOUT, "candidate") and value not in (None, "")
    ]


def _said(pairs: Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in pairs)
