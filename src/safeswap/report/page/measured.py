"""The evaluation's part of the page: tables of ``compare``, drawings, the story in short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap.evaluation.benchmarks.limit import limit_note
from safeswap.evaluation.benchmarks.splits import PARTS
from safeswap.evaluation.results.candidates import read_measured
from safeswap.evaluation.results.store import open_results
from safeswap.evaluation.stats import MARGIN
from safeswap.report.ablation import ablation_table, matched_table
from safeswap.report.ablation.table import QUESTIONS
from safeswap.report.evaluation import compared, facts
from safeswap.report.model_card import ModelResults, results_of
from safeswap.report.page.outcome_bars import outcome_charts
from safeswap.report.page.runs import SweepRun
from safeswap.report.page.trade import candidates_of, trade_chart
from safeswap.report.story import Card, cards_of
from safeswap.tables import Facts, Table


@dataclass(frozen=True)
class Counting:
    """How outcomes are counted and compared: the options of ``safeswap compare``.

    Attributes:
        judge: whose verdicts count; by default every judge has its own tables.
        strict: whether "controversial" counts as unsafe.
        reference, primary, margin, dev: as `safeswap.report.evaluation.compare`.
    """

    judge: str | None = None
    strict: bool = True
    reference: str | None = None
    primary: tuple[str, ...] = ()
    margin: float = MARGIN
    dev: bool = False


@dataclass(frozen=True)
class Measured:
    """One body of evidence as the page shows it.

    Attributes:
        title: folders and judge.
        about: the head of a report on them.
        tables: the very ones of ``safeswap compare``.
        outcomes, trades: drawings with their titles.
        models: what cards of models are to have.
    """

    title: str
    about: Facts
    tables: Sequence[Table]
    cards: Sequence[Card] = ()
    outcomes: Sequence[tuple[str, str]] = ()
    trades: Sequence[tuple[str, str]] = ()
    models: Sequence[ModelResults] = ()


def measured(
    folders: Sequence[Path], title: str, counting: Counting, digests: Sequence[str] = ()
) -> list[Measured]:
    """What results folders of the same settings say, once per judge.

    Args:
        digests: of models whose results a card is to have.

    Raises:
        EvaluationError: as ``compare``.
    """
    judges: list[str | None] = [counting.judge]
    found = sorted({name for folder in folders for name in open_results(folder).judges()})
    if counting.judge is None and len(found) > 1:
        judges = [*found]
    made = []
    for judge in judges:
        called = f"{title}, judged by {judge}" if len(judges) > 1 else title
        made.append(_judged(folders, called, judge, counting, digests))
    return made


def _judged(
    folders: Sequence[Path],
    title: str,
    judge: str | None,
    counting: Counting,
    digests: Sequence[str],
) -> Measured:
    found = compared(
        folders,
        judge=judge,
        strict=counting.strict,
        reference=counting.reference,
        margin=counting.margin,
        dev=counting.dev,
        primary=counting.primary,
    )
    evidence = found.evidence
    languages = list(dict.fromkeys(cell.language for cell in evidence.cells if not cell.absent))
    charts = {code: trade_chart(candidates_of(evidence, code), code) for code in languages}
    return Measured(
        title,
        facts(folders, judge=judge, strict=counting.strict),
        found.tables,
        list(cards_of(evidence, found.comparisons)),
        outcome_charts(evidence),
        [(code, chart) for code, chart in charts.items() if chart],
        list(results_of(found, digests, _trial(folders[0]))),
    )


def _trial(folder: Path) -> str:
    """Why results are no test result; empty where they are."""
    part = limit_note(open_results(folder).settings)
    return f"only a part of the questions was asked ({part})" if part else ""


def swept(run: SweepRun, name: str, counting: Counting) -> list[Measured]:
    """Both sides of a sweep or search: the ablation's tables, and the Pareto figure per language.

    Raises:
        EvaluationError: a damaged results folder; several judges and none chosen.
    """
    made = []
    for part in PARTS:
        folders = run.sides.get(part, {})
        found = [
            one
            for code, folder in folders.items()
            for one in read_measured(folder, code, judge=counting.judge, strict=counting.strict)
        ]
        if not any(one.role == "merged" for one in found):
            continue
        tables = [ablation_table(found, part), matched_table(found, part=part)]
        charts = {c: trade_chart([o for o in found if o.language == c], c) for c in folders}
        made.append(
            Measured(
                f"{name}: {QUESTIONS[part]}",
                facts([*folders.values()], judge=counting.judge, strict=counting.strict),
                tables,
                trades=[(code, chart) for code, chart in charts.items() if chart],
            )
        )
    return made
