"""From outcomes to tables: rates with intervals, paired differences, what a reader must know.

Primary comparisons are named before the data is looked at, one per target language (`primary`);
their p-values are corrected together (Holm), and what they say must hold however the unseen falls
(`readings`). Ability is a question of non-inferiority by a margin. All other differences are
exploratory and say so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import ROLE_TITLES
from safeswap.evaluation.results.outcomes import POOLED, CellOutcomes, CellSpec, Outcomes
from safeswap.evaluation.results.rows import ModelRecord
from safeswap.evaluation.stats import (
    MARGIN,
    Interval,
    PairedDifference,
    clustered_interval,
    extremes,
    non_inferiority,
    paired_difference,
)
from safeswap.report.primary import PrimaryFamily, primary_family
from safeswap.report.readings import Comparison, corrected, disagreement, p_value, reading
from safeswap.tables import Cell, Column, Row, Table

_ROLES = ("base", "safety", "language", "merged", "other")


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
        group = group_title(cells[0])
        for cell in cells:
            columns.append(Column(cell.language, group))
            where.append((cell, cell.language))
        if sum(not cell.absent for cell in cells) > 1:
            columns.append(Column(POOLED, group))
            where.append((cells[0], POOLED))
    rows = []
    for model in sorted_models(evidence):
        rates = [rate_cell(evidence, model, cell, language) for cell, language in where]
        rows.append(Row.of(model_title(evidence, model), *rates))
    return Table("Rates", tuple(columns), tuple(rows), (*_notes(evidence), *notes), "rates")


def group_title(cell: CellSpec) -> str:
    """What stands above the columns of a benchmark."""
    return f"{cell.title}, {cell.measures.value} % {cell.measures.arrow}"


def rate_cell(evidence: Outcomes, model: str, cell: CellSpec, language: str) -> Cell:
    """One rate in per cent with its interval, and what must be said about it."""
    key = f"{cell.benchmark}/{language}/{model}"
    found = evidence.get(model, cell.benchmark, language)
    rate = found.rate if found.outcomes else None
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
    """Of a rate over languages: translations of one prompt are no independent draws."""
    ids = [id_ for id_, value in found.outcomes.items() if not math.isnan(value)]
    values = np.array([found.outcomes[id_] for id_ in ids])
    return clustered_interval(values, [found.clusters.get(id_, id_) for id_ in ids])


def compare_all(
    evidence: Outcomes,
    reference: str | None = None,
    margin: float = MARGIN,
    primary: Sequence[str] = (),
) -> list[Comparison]:
    """Every candidate against its reference, in every cell that both have.

    Args:
        reference: a model all others are compared with; by default each merge is compared with
            its language expert, as its manifest names it.
        primary: merges whose comparison is primary, where several are of one language.

    Raises:
        EvaluationError: no model of that name.
    """
    if reference is not None and reference not in evidence.models:
        raise EvaluationError(
            f"no model is called {reference!r}{nearest(reference, evidence.models)}"
        )
    family = primary_family(evidence, primary)
    return corrected(
        [
            one
            for candidate, other in _pairs(evidence, reference)
            for benchmark in evidence.benchmarks
            for one in _compare_benchmark(evidence, candidate, other, benchmark, margin, family)
        ]
    )


def _pairs(evidence: Outcomes, reference: str | None) -> list[tuple[str, str]]:
    if reference is not None:
        return [(model, reference) for model in sorted_models(evidence) if model != reference]
    return [
        (model, str(record["reference"]))
        for model in sorted_models(evidence)
        if (record := evidence.models[model]).get("reference") in evidence.models
    ]


def _compare_benchmark(
    evidence: Outcomes,
    candidate: str,
    reference: str,
    benchmark: str,
    margin: float,
    family: PrimaryFamily,
) -> Iterator[Comparison]:
    cells = evidence.of(benchmark)
    languages = [cell.language for cell in cells if not cell.absent]
    both = [
        code
        for code in languages
        if all(evidence.get(model, benchmark, code).outcomes for model in (candidate, reference))
    ]
    # "all" is all languages of the benchmark, or it is not shown
    for language in [*both, *([POOLED] if len(languages) > 1 and both == languages else [])]:
        cell = next((c for c in cells if c.language == language), cells[0])
        one, other = (evidence.get(model, benchmark, language) for model in (candidate, reference))
        pair = _Pair(one, other, _asked(cells, language))
        if not pair.readable:
            continue
        shown = CellSpec(benchmark, language, cell.title, cell.measures)
        primary = family.holds(candidate, benchmark, language)
        made = Comparison(shown, candidate, reference, pair.difference, None, primary, pair.ends)
        if cell.measures is Measure.ACCURACY:
            made = pair.with_ability(made, margin)
        elif cell.measures is Measure.UNSAFE:
            made = pair.with_answers(made)
        yield made


def _asked(cells: Sequence[CellSpec], language: str) -> int:
    """How many prompts there are, answered or not; 0 where the settings do not say."""
    return sum(cell.items or 0 for cell in cells if language in (cell.language, POOLED))


class _Pair:
    """What two models have in one cell, prompt by prompt; one that either lacks is unread.

    `asked` prompts there are in all: those that neither has answered are unread, too.
    """

    def __init__(self, one: CellOutcomes, other: CellOutcomes, asked: int = 0) -> None:
        self.one, self.other = one, other
        self.ids = list(dict.fromkeys([*one.outcomes, *other.outcomes]))
        self.ids += [f"unanswered {n}" for n in range(len(self.ids), asked)]
        clusters = {**other.clusters, **one.clusters}
        named = [clusters.get(id_, id_) for id_ in self.ids]
        self.clusters = named if len(set(named)) < len(named) else None
        self.values = self._of(one.outcomes), self._of(other.outcomes)

    def _of(self, outcomes: Mapping[str, float]) -> list[float]:
        return [outcomes.get(id_, math.nan) for id_ in self.ids]

    @property
    def readable(self) -> bool:
        """Whether any prompt has an outcome of both."""
        return any(not math.isnan(a - b) for a, b in zip(*self.values, strict=True))

    @property
    def whole(self) -> bool:
        """Whether every prompt has."""
        return all(not math.isnan(a - b) for a, b in zip(*self.values, strict=True))

    @property
    def difference(self) -> PairedDifference:
        """Over the pairs that could be read."""
        return paired_difference(self.values[0], self.values[1], self.clusters)

    @property
    def ends(self) -> tuple[PairedDifference, PairedDifference] | None:
        """If the rest fell one way, and the other way."""
        return None if self.whole else extremes(self.values[0], self.values[1], self.clusters)

    def with_ability(self, made: Comparison, margin: float) -> Comparison:
        """The comparison with the decision on non-inferiority, also at both ends."""
        able = None
        if not self.whole:
            fills = [
                [np.where(np.isnan(v), fill, v) for v, fill in zip(self.values, both, strict=True)]
                for both in ((0.0, 1.0), (1.0, 0.0))
            ]
            low, high = (non_inferiority(a, b, margin, self.clusters) for a, b in fills)
            able = (low, high)
        decided = non_inferiority(self.values[0], self.values[1], margin, self.clusters)
        return replace(made, ability=decided, able=able)

    def with_answers(self, made: Comparison) -> Comparison:
        """The comparison with what harmless answers are worth: broken ones, and refusals."""
        found = (self.one, self.other)
        broken = (len(self.one.broken), len(self.other.broken))
        sound = None
        if any(broken):
            unsound = [self._of({**a.outcomes, **dict.fromkeys(a.broken, 1.0)}) for a in found]
            sound = extremes(unsound[0], unsound[1], self.clusters)
        refused = [self._of(a.refused) for a in found]
        gains = [a - b for a, b in zip(*refused, strict=True) if not math.isnan(a - b)]
        unread = sum(math.isnan(a - b) for a, b in zip(*refused, strict=True))
        known = unread == made.paired.dropped and bool(gains)
        gain = sum(gains) / len(gains) if known else None
        return replace(made, sound=sound, broken=broken, refused=gain)


def comparisons_tables(
    comparisons: Sequence[Comparison], margin: float = MARGIN, family: PrimaryFamily | None = None
) -> list[Table]:
    """One table per pair of models; a row per cell: difference, bounds, p, and what follows."""
    columns = (
        Column("benchmark", align="left"),
        Column("pairs"),
        Column("difference, points"),
        Column("with unread"),
        Column("p"),
        Column("Holm p"),
        Column("reading", align="left"),
    )
    rows: dict[tuple[str, str], list[Row]] = {}
    for one in comparisons:
        rows.setdefault((one.candidate, one.reference), []).append(_comparison_row(one))
    notes = (
        "Pairs are the same prompts; 95 % intervals by paired bootstrap, p by the exact McNemar "
        "test; where languages are pooled or questions share a passage, both go by clusters. "
        "“with unread”: the difference if all that could not be read fell one way, or the other.",
        *([family.note] if family is not None else []),
        "Undecided is not alike: it names the true difference that would show four times in five. "
        "Right answers: non-inferior if the interval stays above "
        f"−{100 * margin:g} points. All else is exploratory, its p uncorrected.",
    )
    tables = [
        Table(
            f"{candidate} − {reference}, paired",
            columns,
            tuple(listed),
            (),
            f"paired-{candidate}-{reference}",
        )
        for (candidate, reference), listed in rows.items()
    ]
    return [*tables[:-1], *(replace(last, notes=notes) for last in tables[-1:])]


def _comparison_row(one: Comparison) -> Row:
    d = one.paired
    said = [f"{d.dropped} pairs left out: an outcome could not be read" if d.dropped else None]
    said.append(disagreement(d))
    key = f"{one.cell.benchmark}/{one.cell.language}/{one.candidate}:{one.reference}"
    note = "; ".join(filter(None, said)) or None
    difference = Cell.figure(
        d.difference, d.interval.low, d.interval.high, sign=True, note=note, key=key
    )
    bounds = Cell("–")
    if one.ends is not None:
        low, high = (100 * end.difference for end in one.ends)
        bounds = Cell(f"{low:+.1f} to {high:+.1f}")
    adjusted = Cell("–" if one.adjusted is None else p_value(one.adjusted), one.adjusted)
    shown = (count_cell(d.n), difference, bounds, Cell(p_value(d.p), d.p), adjusted, reading(one))
    return Row.of(f"{one.cell.title} {one.cell.language}", *shown)


def count_cell(number: int) -> Cell:
    """A count as it is."""
    return Cell(str(number), number)


def sorted_models(evidence: Outcomes) -> list[str]:
    """Base, experts, merges, others; each kind in the order evaluated."""
    names = list(evidence.models)
    return sorted(names, key=lambda n: (_ROLES.index(role_of(evidence.models[n])), names.index(n)))


def role_of(model: ModelRecord) -> str:
    """Where a model came from: base, safety, language, merged or other."""
    role = str(model.get("role", "other"))
    return role if role in _ROLES else "other"


def model_title(evidence: Outcomes, model: str) -> str:
    """A model's name, and its role where the name does not say it."""
    title = ROLE_TITLES.get(role_of(evidence.models[model]))
    return model if title is None or title == model else f"{model} ({title})"


def _notes(evidence: Outcomes) -> Iterator[str]:
    counting = "counts as unsafe" if evidence.strict else "counts as safe"
    if evidence.judge:
        yield f"Judge: {evidence.judge}; “controversial” {counting}."
    if evidence.votes:
        yield f"It is the {evidence.votes}."
    yield (
        "Per cent with 95 % intervals, Wilson's. “all” is the rate over the prompts of all "
        "languages, its interval by bootstrap of prompts with their translations."
    )
    yield from engines_note(evidence)


_ENGINE = ("backend", "dtype", "device", "transformers", "torch", "vllm")


def engines_note(evidence: Outcomes) -> Iterator[str]:
    """A line where models ran differently: greedy answers of one model differ between engines.

    What a model's record does not say (a server's dtype, older folders) counts as different from
    what another's does.
    """
    ran = {
        model: {key: str(value) for key, value in record.items() if key in _ENGINE and value}
        for model, record in evidence.models.items()
    }
    for model, record in evidence.models.items():
        if earlier := record.get("earlier_versions"):
            said = "; ".join(map(str, earlier)) if isinstance(earlier, list) else str(earlier)
            yield (
                f"Warning: some answers of {model} were made with other versions ({said}) than the "
                "last ones: what differs may be that. `evaluate --overwrite` makes all anew."
            )
    differ = [key for key in _ENGINE if len({about.get(key) for about in ran.values()}) > 1]
    if not differ:
        return
    groups: dict[str, list[str]] = {}
    for model, about in ran.items():
        said = ", ".join(f"{key} {about.get(key, 'unknown')}" for key in differ)
        groups.setdefault(said, []).append(model)
    listed = "; ".join(f"{', '.join(models)}: {said}" for said, models in groups.items())
    yield (
        f"Warning: models ran differently ({listed}). The same model answers differently in "
        "another backend, dtype or version: what differs here may be that. Evaluate all in one."
    )
