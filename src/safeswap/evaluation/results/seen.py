"""Which models were chosen on questions that results hold, and what cannot be told."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from safeswap.errors import EvaluationError, listed
from safeswap.evaluation.benchmarks.prompts import identity_of
from safeswap.evaluation.benchmarks.splits import seen_cells
from safeswap.evaluation.results.rows import ModelRecord, Settings
from safeswap.evaluation.results.store import MODEL, Results, read_responses, read_scores
from safeswap.plan.chosen import ChosenOn

_log = logging.getLogger("safeswap.evaluation")


def models_that_saw(
    settings: Settings,
    opened: Sequence[Results],
    models: Mapping[str, ModelRecord],
    *,
    dev: bool = False,
) -> tuple[str, ...]:
    """The models that were chosen by figures on questions of these results.

    Args:
        dev: name them, and refuse nothing.

    Raises:
        EvaluationError: there are such models.
    """
    chosen = {name: chosen_of(model) for name, model in models.items()}
    if not any(one is not None for one in chosen.values()):
        return ()
    asked = _asked(settings, opened)
    held = {name: seen_cells(settings, one, asked) for name, one in chosen.items()}
    seen = tuple(name for name, its in held.items() if its)
    if seen and not dev:
        _refuse_seen(models, held, seen)
    _note_unchecked(settings, list(chosen.values()))
    return seen


def _asked(settings: Settings, opened: Sequence[Results]) -> dict[str, set[str]]:
    """What tells the prompts of each cell: as the settings say, and by what was asked."""
    found = {cell: set(text.split()) for cell, text in settings.get("prompts", {}).items()}
    for results in opened:
        for model in results.models:
            for row in read_responses(results.folder / model):
                cell = f"{row['benchmark']}/{row['language']}"
                found.setdefault(cell, set()).add(identity_of(row["prompt"]))
            for score in read_scores(results.folder / model)[0]:
                if question := score.get("question"):
                    cell = f"{score['benchmark']}/{score['language']}"
                    found.setdefault(cell, set()).add(question)
    return found


def _note_unchecked(settings: Settings, chosen: Sequence[ChosenOn | None]) -> None:
    """Say where nothing can tell whether prompts are translations of those of a choice.

    A prompt is known in another language by its original and by its row, where its file has them.
    """
    whole = [one for one in chosen if one is not None and one.cells]
    if not whole:  # what a fit was given is known by its words alone
        return
    spoken = {cell.rpartition("/")[2] for one in whole for cell in one.cells}
    unknown = [
        cell
        for cell, value in settings["cells"].items()
        if "items" in value
        and cell.rpartition("/")[2] not in spoken
        and len(set(settings.get("prompts", {}).get(cell, "").split())) <= value["items"]
    ]
    if unknown:
        _log.warning(
            f"{', '.join(unknown)}: whether these prompts are translations of those that a model "
            "was chosen on could not be checked: their file has neither the English original nor "
            "the columns id, type and focus (or id, source and tags) that tell a row again"
        )


def chosen_of(model: ModelRecord) -> ChosenOn | None:
    """On which questions a model was chosen; None where by no figures."""
    return ChosenOn.from_dict(model.get("chosen", {}), f"{MODEL} of {model.get('name')}: chosen")


def _refuse_seen(
    models: Mapping[str, ModelRecord],
    held: Mapping[str, Sequence[str]],
    seen: Sequence[str],
) -> None:
    """What a model was chosen or fitted on is not what it is reported on."""
    first = models[seen[0]]
    chosen = chosen_of(first)
    assert chosen is not None  # or nothing of it had been seen
    if not chosen.rest:
        raise EvaluationError(
            f"{listed(list(seen))}: fitted on texts that these results ask "
            f"({', '.join(held[seen[0]])}), so the results are no test. Evaluate on others into "
            "another --out folder; or see these as what they are: --dev."
        )
    raise EvaluationError(
        f"{listed(list(seen))}: chosen by figures on questions that these results hold "
        f"({', '.join(held[seen[0]])}), so the results are no test. Evaluate on the "
        f"other questions: --split {chosen.rest} into another --out folder; or see these as "
        "what they are: --dev."
    )
