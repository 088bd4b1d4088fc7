"""What an evaluation says, as tables: rates, paired differences, the state of the answers.

>>> from safeswap.report.evaluation import compare                         # doctest: +SKIP
>>> tables = compare(["results"])                                          # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from safeswap.errors import listed
from safeswap.evaluation.benchmarks.limit import limit_note
from safeswap.evaluation.human import read_annotations
from safeswap.evaluation.results.outcomes import Outcomes, choose_judge, gather
from safeswap.evaluation.results.store import open_results
from safeswap.evaluation.stats import MARGIN
from safeswap.report.answer_quality import (
    answers_table,
    corrected_table,
    degrees_table,
    numbers_table,
)
from safeswap.report.between_judges import judges_table
from safeswap.report.by_method import methods_table
from safeswap.report.comparison import (
    compare_all,
    comparisons_tables,
    rates_table,
)
from safeswap.report.primary import PrimaryFamily, primary_family
from safeswap.report.provenance import facts_of
from safeswap.report.readings import Comparison
from safeswap.report.three_outcomes import outcomes_table
from safeswap.tables import Facts, Table

_NO_PAIRS = (
    "Nothing is compared: no merge stands here with its language expert. Name a model to compare "
    "all others with: --reference MODEL."
)


def compare(
    results: Sequence[str | Path],
    *,
    judge: str | None = None,
    strict: bool = True,
    reference: str | None = None,
    margin: float = MARGIN,
    annotations: str | Path | None = None,
    key: str | Path | None = None,
    dev: bool = False,
    primary: Sequence[str] = (),
) -> list[Table]:
    """All tables: rates, paired differences, the answers' state, numbers by value.

    Args:
        results: folders of the same settings.
        judge: whose verdicts count, where there are several.
        strict: whether "controversial" counts as unsafe.
        reference: the model that all others are compared with; by default each merge is compared
            with its language expert.
        margin: the share of ability that may be lost (0.02 is two points).
        annotations: a labelled sheet of `annotate`: adds rates corrected for the judge's errors.
        key: the sheet's key, where it is not beside the sheet under the sheet's name.
        primary: merges whose comparison is primary, where several are of one language.
        dev: also where a model was chosen on these very questions; every table then says so.

    Raises:
        EvaluationError: folders of different settings, an unknown judge or model.
    """
    return list(
        compared(
            results,
            judge=judge,
            strict=strict,
            reference=reference,
            margin=margin,
            annotations=annotations,
            key=key,
            dev=dev,
            primary=primary,
        ).tables
    )


@dataclass(frozen=True)
class Compared:
    """What an evaluation says, from one reading of its folders.

    Attributes:
        evidence: outcomes by model, benchmark and language.
        comparisons: every candidate against its reference.
        tables: as ``compare`` gives them.
    """

    evidence: Outcomes
    comparisons: Sequence[Comparison]
    tables: Sequence[Table]


def compared(
    results: Sequence[str | Path],
    *,
    judge: str | None = None,
    strict: bool = True,
    reference: str | None = None,
    margin: float = MARGIN,
    annotations: str | Path | None = None,
    key: str | Path | None = None,
    dev: bool = False,
    primary: Sequence[str] = (),
) -> Compared:
    """The same, with what the tables are made of: for a story or a drawing beside them.

    Args and errors are those of `compare`.
    """
    evidence = gather(results, judge, strict, dev=dev, texts=False)
    family = primary_family(evidence, primary)
    comparisons = compare_all(evidence, reference, margin, primary)
    corrected = None
    if annotations is not None:
        corrected = corrected_table(evidence, read_annotations(annotations, key))
    part = limit_note(open_results(results[0]).settings)
    tables = tables_of(
        evidence,
        comparisons,
        family,
        margin,
        part=part,
        corrected=corrected,
        between=judges_table(results, evidence),
    )
    return Compared(evidence, comparisons, tables)


def tables_of(
    evidence: Outcomes,
    comparisons: Sequence[Comparison],
    family: PrimaryFamily,
    margin: float = MARGIN,
    *,
    part: str = "",
    corrected: Table | None = None,
    between: Table | None = None,
) -> list[Table]:
    """The tables of ``compare`` from evidence that is at hand.

    Args:
        comparisons: as ``compare_all`` gives them for this evidence, family and margin.
        part: what is said where only a part of the questions was asked.
        corrected: the table of rates corrected for the judge's errors, where there is one.
        between: the table of how far judges agree, where there are several.
    """
    alone = () if comparisons else (_NO_PAIRS,)
    tables: list[Table | None] = [rates_table(evidence, alone), outcomes_table(evidence)]
    tables += [methods_table(evidence), degrees_table(evidence)]
    tables += comparisons_tables(comparisons, margin, family)
    tables += [corrected, between, answers_table(evidence), numbers_table(evidence)]
    made = (_late(table, evidence) for table in tables if table is not None)
    return [_limited(_marked(table, evidence.dev), part) for table in made]


def facts(results: Sequence[str | Path], *, judge: str | None = None, strict: bool = True) -> Facts:
    """What the head of a report on these folders says: models, date, settings, version.

    Raises:
        EvaluationError: no results folder, an unknown judge.
    """
    chosen = choose_judge([open_results(folder) for folder in results], judge)
    return facts_of(results, chosen, strict)


def _limited(table: Table, part: str) -> Table:
    """A table of a part of the questions says so in its title and below it."""
    if not part:
        return table
    note = f"Only a part of the questions was asked ({part}): a trial, no result."
    return replace(table, title=f"{table.title} ({part})", notes=(note, *table.notes))


def _late(table: Table, evidence: Outcomes) -> Table:
    """A table by a majority that may have been chosen by its result says so; rates do already."""
    if not evidence.late or table.name == "rates":
        return table
    return replace(table, notes=(f"By the {evidence.votes}.", *table.notes))


def _marked(table: Table, chosen: Sequence[str]) -> Table:
    """A table of dev questions says so in its title and below it."""
    if not chosen:
        return table
    note = f"Dev questions: {listed(list(chosen))} chosen by these figures. No test result."
    return replace(table, title=f"{table.title} (dev)", notes=(note, *table.notes))
