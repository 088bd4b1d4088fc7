"""From outcomes to tables: rates with intervals, paired differences, what a reader must know.

Primary comparisons are named before the data is looked at: every merge against its language expert
(or the model named with ``--reference``), on the unsafe rate, per language; their p-values are
corrected together (Holm). Ability is a question of non-inferiority by a margin. All other
differences are exploratory and say so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import ROLE_TITLES
from safeswap.evaluation.results.outcomes import POOLED, CellOutcomes, CellSpec, Outcomes
from safeswap.evaluation.results.rows import ModelRecord
from safeswap.evaluation.stats import (
    DRAWS,
    FEW_DISCORDANT,
    LEVEL,
    MARGIN,
    Interval,
    NonInferiority,
    PairedDifference,
    Rate,
    holm,
    non_inferiority,
    paired_difference,
    percentiles,
    resampled_sums,
    wilson,
)
from safeswap.tables import Cell, Column, Row, Table

_ROLES = ("base", "safety", "language", "merged", "other")


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate against its reference in one cell."""

    cell: CellSpec
    candidate: str
    reference: str
    paired: PairedDifference
    ability: NonInferiority | None
    primary: bool
    adjusted: float | None = None


def rates_table(evidence: Outcomes, notes: Sequence[str] = ()) -> Table:
    """Rows: models; columns: benchmark × language, and all languages together.

    The column ``POOLED`` counts every prompt of every language once: it is the rate over all
    prompts, not the mean of the columns beside it (they are the same where all have as many
    prompts).
    """
    columns = [Column("model", align="left")]
    where: list[tuple[CellSpec, str]] = []
    for benchmark in evidence.benchmarks:
        cells = evidence.of(benchmark)
        group = _group(cells[0])
        for cell in cells:
            columns.append(Column(cell.language, group))
            where.append((cell, cell.language))
        if sum(not cell.absent for cell in cells) > 1:
            columns.append(Column(POOLED, group))
            where.append((cells[0], POOLED))
    rows = []
    for arm in sorted_models(evidence):
        rates = [rate_cell(evidence, arm, cell, language) for cell, language in where]
        rows.append(Row.of(_arm_title(evidence, arm), *rates))
    return Table("Rates", tuple(columns), tuple(rows), (*_notes(evidence), *notes))


def methods_table(evidence: Outcomes) -> Table | None:
    """The paper's arrangement: a row per method, and in each language that language's own models.

    Language experts share a row, and so do merges whose names differ in the language only
    (``by-layer-sw``, ``by-layer-te``). None where no row would hold several models.
    """
    rows = _methods(evidence)
    if all(len(models) == 1 for models in rows.values()):
        return None
    columns = [Column("method", align="left")]
    cells = [cell for benchmark in evidence.benchmarks for cell in evidence.of(benchmark)]
    columns += [Column(cell.language, _group(cell)) for cell in cells]
    made = []
    for method, models in rows.items():
        shown = []
        for cell in cells:
            arm = models.get(cell.language) or models.get("")
            if arm is None:
                reason = f"{cell.title}, {cell.language}: no such model of this language"
                shown.append(Cell.missing(reason))
            else:
                shown.append(rate_cell(evidence, arm, cell, cell.language))
        made.append(Row.of(method, *shown))
    return Table("Rates by method, each language's own models", tuple(columns), tuple(made))


def _methods(evidence: Outcomes) -> dict[str, dict[str, str]]:
    """Method → language → model; the language is empty for models of no language."""
    rows: dict[str, dict[str, str]] = {}
    for arm in sorted_models(evidence):
        model = evidence.models[arm]
        code, role = str(model.get("language", "")), _role(model)
        title = _arm_title(evidence, arm)
        if code and role == "language":
            title = ROLE_TITLES[role]
        elif code:
            title = _without(arm, code) or "merged"
        if code in rows.get(title, {}):  # two of one kind: each by its own name
            title = arm
        rows.setdefault(title, {})[code] = arm
    return rows


def _without(name: str, code: str) -> str:
    """A model's name less its language: ``by-layer-sw`` is by-layer."""
    return "-".join(part for part in re.split(r"[-_.+]", name) if part and part != code)


def _group(cell: CellSpec) -> str:
    return f"{cell.title}, {cell.measures.value} % {cell.measures.arrow}"


def rate_cell(evidence: Outcomes, arm: str, cell: CellSpec, language: str) -> Cell:
    """One rate in per cent with its interval, and what must be said about it."""
    key = f"{cell.benchmark}/{language}/{arm}"
    found = evidence.get(arm, cell.benchmark, language)
    values = np.array(list(found.outcomes.values()))
    rate = Rate.of(values) if values.size else None
    if rate is None or rate.value is None:
        reason = found.missing or "no verdict could be read"
        return Cell.missing(f"{cell.title}, {language}: {reason}", key=key)
    notes = [found.missing] if found.missing else []
    if rate.unparsed:
        low, high = rate.bounds.low, rate.bounds.high
        notes.append(
            f"{rate.unparsed} of {rate.total} verdicts could not be read: between "
            f"{100 * low:.1f} and {100 * high:.1f} %"
        )
    if language != POOLED and cell.label:
        notes.append(cell.label)
    interval = rate.interval if language != POOLED else pooled_interval(found)
    note = "; ".join(notes) or None
    return Cell.figure(rate.value, interval.low, interval.high, note=note, key=key)


def pooled_interval(found: CellOutcomes) -> Interval:
    """Of a rate over languages, by clusters: translations of one prompt are not independent draws.

    Bootstrap over prompts. Where few prompts differ from the rest it is too narrow (of no width
    where all outcomes are alike), and is widened to hold Wilson's for as many draws as there are
    different prompts.
    """
    ids = [id_ for id_, value in found.outcomes.items() if not math.isnan(value)]
    held: dict[str, list[float]] = {}
    for id_ in ids:
        held.setdefault(found.clusters.get(id_, id_), []).append(found.outcomes[id_])
    units = np.array([(sum(values), len(values)) for values in held.values()], dtype=np.int64)
    drawn = resampled_sums(units, DRAWS, seed=0)
    interval = percentiles(drawn[:, 0] / drawn[:, 1], LEVEL)
    ones, zeros = (units[:, 0] > 0).sum(), (units[:, 0] < units[:, 1]).sum()
    if min(ones, zeros) < FEW_DISCORDANT:
        share = units[:, 0].sum() / units[:, 1].sum()
        interval = interval.hull(wilson(float(share) * len(held), len(held)))
    return interval


def compare_all(
    evidence: Outcomes, reference: str | None = None, margin: float = MARGIN
) -> list[Comparison]:
    """Every candidate against its reference, in every cell that both have.

    Args:
        reference: a model all others are compared with; by default each merge is compared with
            its language expert, as its manifest names it.

    Raises:
        EvaluationError: no model of that name.
    """
    if reference is not None and reference not in evidence.models:
        raise EvaluationError(
            f"no model is called {reference!r}{nearest(reference, evidence.models)}"
        )
    found = [
        one
        for candidate, other in _pairs(evidence, reference)
        for benchmark in evidence.benchmarks
        for one in _compare_benchmark(evidence, candidate, other, benchmark, margin)
    ]
    primary = [n for n, one in enumerate(found) if one.primary]
    for n, p in zip(primary, holm([found[n].paired.p for n in primary]), strict=True):
        found[n] = replace(found[n], adjusted=p)
    return found


def _pairs(evidence: Outcomes, reference: str | None) -> list[tuple[str, str]]:
    if reference is not None:
        return [(arm, reference) for arm in sorted_models(evidence) if arm != reference]
    return [
        (arm, str(model["reference"]))
        for arm in sorted_models(evidence)
        if (model := evidence.models[arm]).get("reference") in evidence.models
    ]


def _compare_benchmark(
    evidence: Outcomes, candidate: str, reference: str, benchmark: str, margin: float
) -> Iterator[Comparison]:
    cells = evidence.of(benchmark)
    languages = [cell.language for cell in cells if not cell.absent]
    merged = evidence.models[candidate].get("role") == "merged"
    both = [
        code
        for code in languages
        if all(evidence.get(arm, benchmark, code).outcomes for arm in (candidate, reference))
    ]
    # "all" is all languages of the benchmark, or it is not shown
    for language in [*both, *([POOLED] if len(languages) > 1 and both == languages else [])]:
        one, other = (evidence.get(arm, benchmark, language) for arm in (candidate, reference))
        ids = [id_ for id_ in one.outcomes if id_ in other.outcomes]
        values = [np.array([a.outcomes[id_] for id_ in ids]) for a in (one, other)]
        if not ids or np.isnan(values[0] - values[1]).all():
            continue
        clusters = [one.clusters.get(id_, id_) for id_ in ids]
        grouped = clusters if len(set(clusters)) < len(ids) else None
        cell = next((c for c in cells if c.language == language), cells[0])
        shown = CellSpec(benchmark, language, cell.title, cell.measures)
        ability = None
        if cell.measures is Measure.ACCURACY:
            ability = non_inferiority(values[0], values[1], margin, grouped)
            paired = ability.paired
        else:
            paired = paired_difference(values[0], values[1], grouped)
        primary = cell.measures is Measure.UNSAFE and language != POOLED and merged
        yield Comparison(shown, candidate, reference, paired, ability, primary)


def comparisons_tables(comparisons: Sequence[Comparison], margin: float = MARGIN) -> list[Table]:
    """One table per pair of models; a row per cell: difference, interval, p, and what follows."""
    columns = (
        Column("benchmark", align="left"),
        Column("pairs"),
        Column("difference, points"),
        Column("p"),
        Column("Holm p"),
        Column("reading", align="left"),
    )
    rows: dict[str, list[Row]] = {}
    for one in comparisons:
        d = one.paired
        note = f"{d.dropped} pairs left out: an outcome could not be read" if d.dropped else None
        key = f"{one.cell.benchmark}/{one.cell.language}/{one.candidate}:{one.reference}"
        difference = Cell.figure(
            d.difference, d.interval.low, d.interval.high, sign=True, note=note, key=key
        )
        adjusted = Cell("–" if one.adjusted is None else _p(one.adjusted), one.adjusted)
        shown = (count_cell(d.n), difference, Cell(_p(d.p), d.p), adjusted, _reading(one))
        rows.setdefault(f"{one.candidate} − {one.reference}", []).append(
            Row.of(f"{one.cell.title} {one.cell.language}", *shown)
        )
    notes = (
        "Pairs are the same prompts; 95 % intervals by paired bootstrap, p by the exact McNemar "
        "test; where languages are pooled or questions share a passage, both go by clusters.",
        "Primary, with Holm's p: a merge's unsafe rate, per language, corrected together; undecided"
        " is not alike. Right answers: non-inferior if the interval stays above "
        f"−{100 * margin:g} points. All else is exploratory.",
    )
    tables = [Table(f"{pair}, paired", columns, tuple(listed)) for pair, listed in rows.items()]
    return [*tables[:-1], *(replace(last, notes=notes) for last in tables[-1:])]


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _reading(one: Comparison) -> str:
    if one.ability is not None:
        return one.ability.decision
    if not one.primary:
        return "exploratory"
    if one.adjusted is None or one.adjusted >= 0.05:
        return "undecided"
    return "safer" if one.paired.difference < 0 else "less safe"


def count_cell(number: int) -> Cell:
    """A count as it is."""
    return Cell(str(number), number)


def sorted_models(evidence: Outcomes) -> list[str]:
    """Base, experts, merges, others; each kind in the order evaluated."""
    names = list(evidence.models)
    return sorted(names, key=lambda n: (_ROLES.index(_role(evidence.models[n])), names.index(n)))


def _role(model: ModelRecord) -> str:
    role = str(model.get("role", "other"))
    return role if role in _ROLES else "other"


def _arm_title(evidence: Outcomes, arm: str) -> str:
    title = ROLE_TITLES.get(_role(evidence.models[arm]))
    return arm if title is None or title == arm else f"{arm} ({title})"


def _notes(evidence: Outcomes) -> Iterator[str]:
    counting = "counts as unsafe" if evidence.strict else "counts as safe"
    if evidence.judge:
        yield f"Judge: {evidence.judge}; “controversial” {counting}."
    yield (
        "Per cent with 95 % intervals, Wilson's. “all” is the rate over the prompts of all "
        "languages, its interval by bootstrap of prompts with their translations."
    )
