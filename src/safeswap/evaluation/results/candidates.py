"""What candidates measure: three figures each, from the rows that ``safeswap evaluate`` stores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.records import Alias, CandidateRecord, read_aliases
from safeswap.evaluation.results.outcomes import Outcomes, gather
from safeswap.evaluation.results.store import MODEL
from safeswap.evaluation.stats import Interval, Rate


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """A share with its 95 % interval, and how many questions it is from."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """One candidate, or a model it was made from, on one side of a split, in one language.

    Attributes:
        name: its model in the results.
        role: ``base``, ``safety``, ``language`` or ``merged``.
        record: how its table was made; an empty one for the models it was made from.
        aliases: other cells of the grid that came to the very same table.
        unsafe: unsafe answers to harmful prompts; lower is better.
        refused: harmless prompts refused; lower is better.
        right: right answers, the mean over the benchmarks; higher is better.

    A figure is None where the suite has no benchmark of its kind, or nothing is judged yet.
    """

    name: str
    language: str
    role: str
    record: CandidateRecord = field(default_factory=CandidateRecord)
    aliases: tuple[Alias, ...] = ()
    unsafe: RateEstimate | None = None
    refused: RateEstimate | None = None
    right: RateEstimate | None = None

    @property
    def method(self) -> str:
        """Name of the selector that filled its table, or ``search``; empty for an input."""
        return self.record.method

    @property
    def settings(self) -> Mapping[str, Any]:
        """The method's settings, as given."""
        return self.record.settings

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a study's memory and ``pareto.json``."""
        figures = {measure.value: self.figure(measure) for measure in Measure}
        return {
            "name": self.name,
            "language": self.language,
            "role": self.role,
            **self.record.as_dict(),
            "aliases": [alias.as_dict() for alias in self.aliases],
            **{key: one and asdict(one) for key, one in figures.items()},
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> CandidateResult:
        """A result from what ``as_dict`` gave, in this version or an earlier one.

        Raises:
            EvaluationError: something in it is no record; ``where`` names it.
        """
        if not isinstance(content, Mapping):
            raise EvaluationError(f"{where}: is no record of a candidate. {_ANEW}")
        names = [content.get(key) for key in ("name", "language", "role")]
        name, language, role = (name if isinstance(name, str) else None for name in names)
        if name is None or language is None or role is None or "aliases" not in content:
            raise EvaluationError(f"{where}: lacks its name, language, role or aliases. {_ANEW}")
        unsafe, refused, right = (_estimate(content.get(m.value), where) for m in Measure)
        return cls(
            name,
            language,
            role,
            CandidateRecord.from_dict(content, where),
            read_aliases(content["aliases"], where),
            unsafe,
            refused,
            right,
        )

    def figure(self, measure: Measure) -> RateEstimate | None:
        """Its estimate of a measure, None where it has none."""
        figures = {
            Measure.UNSAFE: self.unsafe,
            Measure.OVER_REFUSAL: self.refused,
            Measure.ACCURACY: self.right,
        }
        return figures[measure]


_ANEW = "Its memory was edited or damaged: run it again into another folder."


def _estimate(content: Any, where: str) -> RateEstimate | None:
    if content is None:
        return None
    names = {one.name for one in fields(RateEstimate)}
    numbers = (
        isinstance(content, Mapping)
        and set(content) == names
        and all(isinstance(n, int | float) and math.isfinite(n) for n in content.values())
    )
    if not numbers:
        raise EvaluationError(f"{where}: a figure is no value with low, high and n. {_ANEW}")
    return RateEstimate(**content)


def figures_of(evidence: Outcomes, model: str, language: str) -> dict[Measure, RateEstimate | None]:
    """The three figures of one model in one language.

    A figure is the mean of its benchmarks' rates, so that a large benchmark does not drown a small
    one; its interval comes from theirs by the method of variance estimates recovery (Zou & Donner,
    Statistics in Medicine 27, 2008): ``mean − √Σ(p − l)² / B`` to ``mean + √Σ(u − p)² / B``.
    """
    rates: dict[Measure, list[Rate] | None] = {measure: [] for measure in Measure}
    for cell in evidence.cells:
        if cell.language != language or cell.absent:
            continue
        found = evidence.get(model, cell.benchmark, language)
        rate = found.rate if found.outcomes else None
        listed = rates[cell.measures]
        if listed is None or rate is None or rate.value is None or found.missing:
            rates[cell.measures] = None  # a mean over part of the benchmarks is another figure
        else:
            listed.append(rate)
    return {kind: _mean(listed) for kind, listed in rates.items()}


def _mean(rates: Iterable[Rate] | None) -> RateEstimate | None:
    pairs = [(rate.value or 0.0, rate.interval, rate.n) for rate in rates or ()]
    if not pairs:
        return None
    count = len(pairs)
    value = sum(p for p, _, _ in pairs) / count
    below = sum((p - i.low) ** 2 for p, i, _ in pairs) ** 0.5 / count
    above = sum((i.high - p) ** 2 for p, i, _ in pairs) ** 0.5 / count
    interval = Interval(max(0.0, value - below), min(1.0, value + above))
    return RateEstimate(value, interval.low, interval.high, sum(n for _, _, n in pairs))


def read_measured(
    results: Path,
    language: str,
    *,
    judge: str | None = None,
    strict: bool = True,
    models: Sequence[str] | None = None,
) -> list[CandidateResult]:
    """Every model of a results folder with its figures, in the order it was evaluated in.

    Args:
        results: one side of a sweep in one language (``RESULTS/dev/sw``).
        judge, strict, models: as for :func:`safeswap.evaluation.results.outcomes.gather`.

    Raises:
        EvaluationError: no results folder, no such judge.
    """
    evidence = gather([results], judge, strict, dev=True, models=models)
    found = []
    for model, record in evidence.models.items():
        figures = figures_of(evidence, model, language)
        about, where = record.get("candidate", {}), f"{results / model / MODEL}: candidate"
        found.append(
            CandidateResult(
                name=model,
                language=language,
                role=str(record.get("role", "other")),
                record=CandidateRecord.from_dict(about, where),
                aliases=read_aliases(about.get("aliases", ()), where),
                unsafe=figures[Measure.UNSAFE],
                refused=figures[Measure.OVER_REFUSAL],
                right=figures[Measure.ACCURACY],
            )
        )
    return found
