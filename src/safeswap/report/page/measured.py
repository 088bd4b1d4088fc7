"""The evaluation's part of the page: tables of ``compare``, drawings, the story in short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safeswap.evaluation.benchmarks.limit import limit_note
from safeswap.evaluation.benchmarks.splits import PARTS
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.candidates import read_measured
from safeswap.evaluation.results.outcomes import POOLED, Outcomes, gather
from safeswap.evaluation.results.store import open_results
from safeswap.evaluation.stats import MARGIN
from safeswap.report.ablation import ablation_table, matched_table
from safeswap.report.ablation.table import QUESTIONS
from safeswap.report.comparison import compare_all, model_title
from safeswap.report.evaluation import facts, tables_of
from safeswap.report.page.outcome_bars import outcome_charts
from safeswap.report.page.runs import SweepRun
from safeswap.report.page.trade import candidates_of, trade_chart
from safeswap.report.primary import primary_family
from safeswap.report.readings import Comparison, reading
from safeswap.tables import Cell, Facts, Table

_CARDS = 24
"""Pairs that are told in short; of more, the tables tell."""


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
class Fact:
    """A line of the story: what is counted, the difference with its interval, and the reading."""

    what: str
    difference: str
    reading: str
    tone: str


@dataclass(frozen=True)
class Card:
    """A merge against its reference, in short."""

    title: str
    against: str
    facts: list[Fact] = field(default_factory=list)


@dataclass(frozen=True)
class Measured:
    """One body of evidence as the page shows it.

    Attributes:
        title: folders and judge.
        about: the head of a report on them.
        tables: the very ones of ``safeswap compare``.
        outcomes, trades: drawings with their titles.
    """

    title: str
    about: Facts
    tables: Sequence[Table]
    cards: Sequence[Card] = ()
    outcomes: Sequence[tuple[str, str]] = ()
    trades: Sequence[tuple[str, str]] = ()


def measured(folders: Sequence[Path], title: str, counting: Counting) -> list[Measured]:
    """What results folders of the same settings say, once per judge.

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
        made.append(_judged(folders, called, judge, counting))
    return made


def _judged(folders: Sequence[Path], title: str, judge: str | None, counting: Counting) -> Measured:
    evidence = gather(folders, judge, counting.strict, dev=counting.dev, texts=False)
    family = primary_family(evidence, counting.primary)
    compared = compare_all(evidence, counting.reference, counting.margin, counting.primary)
    part = limit_note(open_results(folders[0]).settings)
    languages = list(dict.fromkeys(cell.language for cell in evidence.cells if not cell.absent))
    charts = {code: trade_chart(candidates_of(evidence, code), code) for code in languages}
    return Measured(
        title,
        facts(folders, judge=judge, strict=counting.strict),
        tables_of(evidence, compared, family, counting.margin, part=part),
        list(_cards(evidence, compared)),
        outcome_charts(evidence),
        [(code, chart) for code, chart in charts.items() if chart],
    )


def _cards(evidence: Outcomes, compared: Sequence[Comparison]) -> Iterator[Card]:
    pairs = list(dict.fromkeys((one.candidate, one.reference) for one in compared))
    for candidate, reference in pairs if len(pairs) <= _CARDS else ():
        card = Card(model_title(evidence, candidate), model_title(evidence, reference))
        own = [o for o in compared if (o.candidate, o.reference) == (candidate, reference)]
        for one in sorted(own, key=lambda one: [*Measure].index(one.cell.measures)):
            if one.cell.language != POOLED:
                card.facts.append(_fact(one))
        yield card


def _fact(one: Comparison) -> Fact:
    d = one.paired
    said = reading(one)
    cell = Cell.figure(d.difference, d.interval.low, d.interval.high, sign=True)
    what = f"{one.cell.measures.words}: {one.cell.title} {one.cell.language}"
    return Fact(what, cell.text, said, _tone(said))


def _tone(said: str) -> str:
    """Colours go by the reading alone, which holds however the unseen falls."""
    if said.startswith("safer") or said in ("non-inferior", "superior"):
        return "good"
    return "bad" if said in ("less safe", "inferior") else "open"


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
