"""Tables of weights as candidates: what they are called, and when two of them are the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safeswap.evaluation.benchmarks.suites import Suite, identities
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.records import Alias, CandidateRecord
from safeswap.evaluation.results.store import digest_of, read_scores
from safeswap.plan import ChosenOn, Plan, PlannedUnit, fill_plan
from safeswap.profile import Profile
from safeswap.roles import BASE, SAFETY
from safeswap.search.sweep_config import GridCell, Sweep


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table of weights that is to be measured, under its first cell's name."""

    model: EvaluatedModel
    plan: Plan


def grid_candidates(sweep: Sweep, profile: Profile, language: str) -> list[Candidate]:
    """The models that it is all made from, and every different table of the grid."""
    found = origins(profile, language)
    tables: dict[str, list[tuple[GridCell, Plan]]] = {}
    for cell in sweep.cells:
        plan = cell.plan(profile, language)
        tables.setdefault(table_digest(plan), []).append((cell, plan))
    chosen = chosen_on(sweep, language)
    for digest, cells in tables.items():
        (name, about), *others = [(cell.name, record_of(cell, plan)) for cell, plan in cells]
        model = candidate_model(name, language, digest, about, chosen)
        aliases = tuple(Alias(*other) for other in others)
        found.append(Candidate(replace(model, aliases=aliases), cells[0][1]))
    return in_order(found)


def record_of(cell: GridCell, plan: Plan) -> CandidateRecord:
    """How a cell's table was made; the operator as the plan has it, its files pinned."""
    return CandidateRecord(cell.method, cell.settings, plan.operator)


def candidate_model(
    name: str,
    language: str,
    digest: str,
    about: CandidateRecord,
    chosen: ChosenOn | None = None,
) -> EvaluatedModel:
    """A candidate as the results know it; its digest is that of its inputs and table."""
    return EvaluatedModel(
        name,
        "in memory",
        "",
        digest,
        "merged",
        reference=language,
        chosen=chosen,
        candidate=about,
    )


def chosen_on(sweep: Sweep, language: str) -> ChosenOn:
    """The questions that a choice in one language is made on."""
    suite = sweep.suites[language]
    asked = identities(suite.on(sweep.dev))
    cells = cells_of(suite, language)
    prompts = frozenset(one for cell in cells for one in asked.get(cell, ()))
    return ChosenOn(sweep.dev.as_dict(), cells, prompts)


def with_questions(chosen: ChosenOn, model: Path) -> ChosenOn:
    """The same, with what tells lm-eval's questions again that a candidate answered."""
    questions = {score.get("question", "") for score in read_scores(model)[0]} - {""}
    return replace(chosen, prompts=chosen.prompts | questions)


def cells_of(suite: Suite, language: str) -> tuple[str, ...]:
    """``BENCHMARK/LANGUAGE`` of all that a suite asks in a language."""
    return tuple(f"{b.name}/{language}" for b in suite.benchmarks if language not in b.absent)


def table_digest(plan: Plan) -> str:
    """What decides a candidate's answers: the weights of its inputs, and its effective table."""
    units = {unit: [plan.parts(unit), plan.operation(unit).plain] for unit in plan.units}
    inputs = {role: given.digest for role, given in plan.inputs.items()}
    return digest_of(["candidate", inputs, plan.donor, units])


def origins(profile: Profile, language: str) -> list[Candidate]:
    """Base and experts as tables: all weights 0, or 1 for one expert."""
    whole = fill_plan(profile, language, method="uniform", alpha=0.5)
    found = []
    for role in (BASE, SAFETY, language):
        weights = {SAFETY: float(role == SAFETY), language: float(role == language)}
        units = dict.fromkeys(whole.units, PlannedUnit(weights))
        plan = replace(whole, units=units, selector={})
        kind: Any = role if role in (BASE, SAFETY) else "language"
        found.append(
            Candidate(EvaluatedModel(role, "in memory", "", table_digest(plan), kind), plan)
        )
    return found


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Neighbours alike, so that few units change between them: always the nearest of the rest.

    The distance of two tables is the number of units with other weights or another operator.
    """
    rest = list(candidates)
    ordered = [rest.pop(0)]
    while rest:
        last = ordered[-1].plan
        nearest = min(range(len(rest)), key=lambda n: _distance(last, rest[n].plan))
        ordered.append(rest.pop(nearest))
    return ordered


def _distance(one: Plan, other: Plan) -> int:
    return sum(
        unit not in one.units
        or unit not in other.units
        or one.units[unit].weights != other.units[unit].weights
        or one.operation(unit) != other.operation(unit)
        for unit in {**one.units, **other.units}
    )
