"""What a sweep or search measured: points that the page compares its plans with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap.errors import ConfigError
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.candidates import CandidateResult, read_measured
from safeswap.operators import Operation
from safeswap.plan import Plan, PlannedUnit
from safeswap.profile import Profile
from safeswap.report.ablation import ablation_table
from safeswap.report.explore.weights import mean_weights
from safeswap.report.page.runs import open_runs
from safeswap.report.page.trade import trade_chart
from safeswap.roles import SAFETY
from safeswap.tables import Table, plain

_PLAIN = Operation()
_INPUTS = {"base": (0.0, 0.0), "safety": (1.0, 0.0), "language": (0.0, 1.0)}


@dataclass(frozen=True)
class Points:
    """The models that were measured in one language, on the dev questions.

    Attributes:
        found: each with its figures.
        weights: name → mean weights (safety, language) of every unit of the profile, in its order;
            those whose table is not known, or that an operator other than adding joined, have none.
        trade: right against unsafe answers, drawn; empty where there is too little of them.
        table: all of them.
    """

    found: Sequence[CandidateResult]
    weights: Mapping[str, Sequence[tuple[float, float]]]
    trade: str
    table: Table

    def as_data(self) -> list[dict[str, Any]]:
        """For the page's script."""
        return [
            {
                "name": plain(one.name),
                "told": plain(_told(one)),
                "weights": self.weights.get(one.name),
            }
            for one in self.found
        ]


def points_of(folder: Path, profile: Profile, judge: str | None, strict: bool) -> dict[str, Points]:
    """The points of each language that both the profile and the sweep have.

    Raises:
        ConfigError: the folder is no sweep's, or of other languages.
        EvaluationError: damaged results; several judges and none chosen.
        PlanError: a damaged plan.
    """
    sweeps = open_runs([folder]).sweeps
    if not sweeps:
        raise ConfigError(
            f"--sweep {folder}: is no folder of a sweep or search (no dev/LANGUAGE in it). Give "
            "the folder that safeswap sweep wrote."
        )
    found = {}
    for language, results in sweeps[0].sides.get("dev", {}).items():
        if language not in profile.languages:
            continue
        measured = read_measured(results, language, judge=judge, strict=strict)
        found[language] = Points(
            measured,
            _weights(sweeps[0].path, profile, language, measured),
            trade_chart(measured, language),
            ablation_table(measured, "dev"),
        )
    if not found:
        raise ConfigError(
            f"--sweep {folder}: has no dev results of the profile's languages "
            f"({', '.join(profile.languages)})."
        )
    return found


def _weights(
    folder: Path, profile: Profile, language: str, measured: Sequence[CandidateResult]
) -> dict[str, Sequence[tuple[float, float]]]:
    found: dict[str, Sequence[tuple[float, float]]] = {}
    for one in measured:
        if one.role in _INPUTS:
            pair = dict(zip((SAFETY, language), _INPUTS[one.role], strict=True))
            rows: Mapping[str, PlannedUnit] = dict.fromkeys(profile.units, PlannedUnit(pair))
        else:
            paths = [folder / place / language for place in ("plans", "pareto")]
            path = next((p for at in paths if (p := at / f"{one.name}.yaml").is_file()), None)
            plan = Plan.load(path) if path else None
            if plan is None or any(own != _PLAIN for own in plan.operations):
                continue
            rows = plan.units
        weights = mean_weights(profile, rows, language)
        if weights is not None:
            found[one.name] = weights
    return found


def _told(one: CandidateResult) -> str:
    said = []
    for measure in Measure:
        figure = one.figure(measure)
        if figure is not None:
            said.append(f"{measure.words} {100 * figure.value:.1f} %")
    return f"{one.name}: {', '.join(said) or 'not measured yet'}"
