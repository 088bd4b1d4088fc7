"""Results in the model card of a merge: for people in its text, for the hub in its header.

The header's ``model-index`` is made by huggingface_hub's own classes. What others wrote into the
card stays: ours stands between two comments, and is replaced as a whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safeswap.errors import ConfigError, OutputError, listed
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import digest_of_model
from safeswap.evaluation.results.outcomes import Outcomes
from safeswap.evaluation.stats import Interval
from safeswap.io.files import check_no_link, save_inside
from safeswap.merge.companions import CARD
from safeswap.merge.manifest import merged_folders
from safeswap.report.comparison import rates_table, role_of
from safeswap.report.evaluation import Compared
from safeswap.report.story import Card, cards_of
from safeswap.report.three_outcomes import outcomes_table
from safeswap.tables import Table, as_markdown, plain
from safeswap.tables.markdown import in_markdown
from safeswap.version import __version__

_log = logging.getLogger("safeswap.report")
_BEGIN, _END = "<!-- results, by safeswap report -->", "<!-- end of results -->"
_BEFORE = "## Make it again"
_METRICS = {
    Measure.UNSAFE: "unsafe_rate",
    Measure.OVER_REFUSAL: "refusal_rate",
    Measure.ACCURACY: "accuracy",
}
_LARGEST = 4 << 20
"""Bytes of a card that is read: far more than one has."""


@dataclass(frozen=True)
class Figure:
    """A rate of one model, from 0 to 1.

    Attributes:
        benchmark, title, language: what was asked.
        measure: what is counted.
        value, interval: over ``n`` answers that could be read, of ``asked``.
    """

    benchmark: str
    title: str
    language: str
    measure: Measure
    value: float
    interval: Interval
    n: int
    asked: int


@dataclass(frozen=True)
class ModelResults:
    """What one evaluation with one judge says of a model.

    Attributes:
        digest: of the model, as its results have it.
        judge: whose verdicts; empty where none were needed.
        figures: a rate per benchmark and language.
        story: against its reference, where it was compared.
        tables: with the base and the experts beside it.
        trial: why its figures are no test result; empty where they are one.
    """

    digest: str
    judge: str
    figures: Sequence[Figure]
    story: Sequence[Card]
    tables: Sequence[Table]
    trial: str = ""


def digests_of(outs: Iterable[str | Path]) -> dict[Path, str]:
    """Every merged folder of some outputs → the digest that its results are filed under.

    Raises:
        ConfigError: one is no folder with a card.
        OutputError: a card is a link, or lies behind one.
        CheckpointError: it is no model.
    """
    found: dict[Path, str] = {}
    for out in map(Path, outs):
        for folder in merged_folders(out):
            if not (folder / CARD).is_file():
                raise ConfigError(
                    f"--card {out}: there is no {folder / CARD}. Give a folder that a merge wrote."
                )
            check_no_link(out, str((folder / CARD).relative_to(out)))
            found[folder] = digest_of_model(folder)
    return found


def results_of(found: Compared, digests: Iterable[str], trial: str) -> Iterator[ModelResults]:
    """What an evaluation says of the models with these digests.

    Args:
        trial: why nothing of it is a test result.
    """
    evidence, wanted = found.evidence, set(digests)
    for model, record in evidence.models.items():
        if record.get("digest") not in wanted:
            continue
        beside = [
            name
            for name, other in evidence.models.items()
            if name in (model, record.get("reference")) or role_of(other) in ("base", "safety")
        ]
        some = replace(evidence, models={name: evidence.models[name] for name in beside})
        own = [one for one in found.comparisons if one.candidate == model]
        tables = [rates_table(some), outcomes_table(some)]
        dev = "it was chosen on these very questions" if model in evidence.dev else ""
        yield ModelResults(
            str(record["digest"]),
            evidence.votes or evidence.judge,
            list(_figures(evidence, model)),
            list(cards_of(evidence, own)),
            [table for table in tables if table is not None],
            trial or dev,
        )


def _figures(evidence: Outcomes, model: str) -> Iterator[Figure]:
    for cell in evidence.cells:
        found = evidence.get(model, cell.benchmark, cell.language)
        rate = found.rate if found.outcomes and not cell.absent else None
        if rate is None or rate.value is None or found.missing:
            continue  # a part of the questions is no figure of the benchmark
        yield Figure(
            cell.benchmark,
            cell.title,
            cell.language,
            cell.measures,
            rate.value,
            rate.interval,
            rate.n,
            rate.total,
        )


def write_cards(digests: Mapping[Path, str], results: Sequence[ModelResults]) -> list[Path]:
    """Put results into the cards of merged folders.

    Args:
        digests: of the folders, as `digests_of` gives them.
        results: of all that was evaluated.

    Returns:
        The cards.

    Raises:
        ConfigError: nothing was measured of one of them; nothing is written then.
        OutputError: a card's header is no YAML, or it cannot be written.
    """
    own = {
        folder: [one for one in results if one.digest == digest]
        for folder, digest in digests.items()
    }
    if lacking := [str(folder) for folder, found in own.items() if not found]:
        raise ConfigError(
            f"--card {listed(lacking)}: none of the results given is of these weights. Evaluate "
            "them, or give the results folder that has them: safeswap report RESULTS --card OUT."
        )
    texts = {folder / CARD: _card(folder, found) for folder, found in own.items()}
    for path, text in texts.items():
        save_inside(path.parent, path.name, text.encode())
        for why in dict.fromkeys(one.trial for one in own[path.parent] if one.trial):
            _log.warning(f"{path}: its header has no results, for {why}")
    return list(texts)


def _card(folder: Path, results: Sequence[ModelResults]) -> str:
    from huggingface_hub import ModelCard

    path = folder / CARD
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it has more than {_LARGEST} bytes")
        card = ModelCard(path.read_text(encoding="utf-8"))
        data: Any = card.data
        kept = [one for one in data.eval_results or () if not _is_ours(one)]
    except Exception as error:
        raise OutputError(
            f"{path}: is no card that the hub takes ({str(error).splitlines()[0]}). Correct the "
            "header between the lines ---, or merge again."
        ) from None
    made: list[Any] = []
    for entry in (entry for one in results if not one.trial for entry in _entries(one)):
        if entry not in made:  # right answers are the same whoever judges the rest
            made.append(entry)
    data.eval_results = [*kept, *made] or None
    if data.eval_results:
        data.model_name = data.model_name or plain(folder.resolve().name)
    card.text = with_section(card.text, _section(results))
    return str(card)


def _is_ours(entry: Any) -> bool:
    return isinstance(entry.metric_args, dict) and "safeswap" in entry.metric_args


def _entries(results: ModelResults) -> Iterator[Any]:
    """One entry of the model-index per figure, in per cent."""
    from huggingface_hub import EvalResult

    for one in results.figures:
        low, high = (round(100 * end, 2) for end in (one.interval.low, one.interval.high))
        by = f", judged by {plain(results.judge)}" if _is_judged(one, results) else ""
        args = {"safeswap": __version__, "interval_95": [low, high], "answers": one.n}
        args |= {"asked": one.asked} if one.asked != one.n else {}
        yield EvalResult(
            task_type="text-generation",
            task_name="Text generation",
            dataset_type=plain(one.benchmark),
            dataset_name=plain(f"{one.title} ({one.language})"),
            dataset_config=plain(one.language),
            metric_type=_METRICS[one.measure],
            metric_name=f"{one.measure.words} %{by}",
            metric_value=round(100 * one.value, 2),
            metric_args=args | ({"judge": plain(results.judge)} if by else {}),
        )


def _is_judged(one: Figure, results: ModelResults) -> bool:
    return bool(results.judge) and one.measure is not Measure.ACCURACY


def _section(results: Sequence[ModelResults]) -> str:
    """The part of the card's text that is about results."""
    lines = [_BEGIN, "## Results", ""]
    for one in results:
        if len(results) > 1:
            lines += [f"### Judged by {in_markdown(one.judge)}", ""]
        if one.trial:
            lines += [f"A trial, no test result: {in_markdown(one.trial)}.", ""]
        for card in one.story:
            lines += [_told(card), ""]
        lines += [as_markdown(table) for table in one.tables]
    made = f"Written by safeswap {__version__}; `safeswap report` makes a page with all tables."
    return "\n".join([*lines, made, _END])


def _told(card: Card) -> str:
    head = f"Against {in_markdown(card.against)}, in points with 95 % intervals:"
    facts = (
        f"- {in_markdown(f.what)}: {f.rates}{', ' if f.rates else ''}"
        f"**{in_markdown(f.difference)}**, {in_markdown(f.reading)}"
        for f in card.facts
    )
    return "\n".join([head, "", *facts])


def with_section(text: str, section: str) -> str:
    """A card's text with our section: in the place of an earlier one, before how it is made again,
    or at the end.
    """
    begin, end = text.find(_BEGIN), text.find(_END)
    if 0 <= begin < end:
        return f"{text[:begin]}{section}{text[end + len(_END) :]}"
    lines = text.split("\n")
    at = next((n for n, line in enumerate(lines) if line.strip() == _BEFORE), len(lines))
    return "\n".join([*lines[:at], section, "", *lines[at:]])
