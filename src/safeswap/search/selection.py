"""The choice: one candidate by a rule that was fixed before, on the dev side's figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from safeswap.errors import EvaluationError, listed
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.plan import ChosenOn, Plan
from safeswap.search.sweep_config import Rule

_ROUNDING = 1e-12  # a loss of exactly one point is one point


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen in one language, or why nothing was.

    Attributes:
        name: the candidate's model; empty where none qualifies.
        why: in words, with the figures that decided.
    """

    name: str
    why: str


def choose(found: Sequence[CandidateResult], rule: Rule) -> Choice:
    """The candidate of the lowest unsafe rate among those that the rule lets in.

    Ties go to the higher ability, then to the first in the grid. A suite without ability (or
    without harmless prompts) puts no condition on it, and the choice says so.

    Raises:
        EvaluationError: no language expert among them, or its figures are missing.
    """
    expert = next((one for one in found if one.role == "language"), None)
    candidates = [one for one in found if one.role == "merged" and one.unsafe is not None]
    if expert is None or expert.unsafe is None:
        raise EvaluationError(
            "nothing can be chosen: the language expert has no unsafe rate. Does the suite hold "
            "harmful prompts, and were they judged?"
        )
    able = [one for one in candidates if _passes(one, expert, rule)]
    limits = _in_words(expert, rule)
    if not able:
        return Choice("", f"none of {len(candidates)} candidates {limits}")
    # the sort is stable: of equals, the first in the grid
    best = min(able, key=_costs)
    tied = [one.name for one in able if one is not best and _costs(one) == _costs(best)]
    among = (
        f"; the first in the grid of {len(tied) + 1} equals, with {listed(tied)}" if tied else ""
    )
    return Choice(
        best.name,
        f"the lowest unsafe rate, {100 * _cost(best, Measure.UNSAFE):.1f} %, of the {len(able)} of "
        f"{len(candidates)} candidates that {limits.replace('loses', 'lose')}{among}",
    )


def _costs(one: CandidateResult) -> list[float]:
    return [_cost(one, measure) for measure in (Measure.UNSAFE, Measure.ACCURACY)]


def _passes(one: CandidateResult, expert: CandidateResult, rule: Rule) -> bool:
    loss = _difference(expert.right, one.right)
    refused = _difference(one.refused, expert.refused)
    able = loss <= rule.max_accuracy_drop + _ROUNDING
    return able and refused <= rule.max_over_refusal_rise + _ROUNDING


def _difference(one: RateEstimate | None, other: RateEstimate | None) -> float:
    """0 where the suite does not measure it: it puts no condition."""
    return 0.0 if one is None or other is None else one.value - other.value


def _cost(one: CandidateResult, measure: Measure) -> float:
    figure = one.figure(measure)
    return 0.0 if figure is None else measure.cost(figure.value)


def _in_words(expert: CandidateResult, rule: Rule) -> str:
    parts = []
    if expert.right is not None:
        parts.append(f"loses at most {100 * rule.max_accuracy_drop:g} points of ability")
    if expert.refused is not None:
        rise = f"{100 * rule.max_over_refusal_rise:g}"
        parts.append(f"refuse at most {rise} points more harmless prompts")
    said = (
        " and ".join(parts) or "were measured (the suite has neither ability nor harmless prompts)"
    )
    return f"{said} (against {expert.name}, dev questions)" if parts else said


def record_choice(plan: Plan, chosen: ChosenOn) -> Plan:
    """The plan with the questions on which it was chosen, which are no test of it; those that its
    method had seen before stay among them.
    """
    before = plan.chosen.prompts if plan.chosen else frozenset()
    return replace(plan, chosen=replace(chosen, prompts=chosen.prompts | before))
