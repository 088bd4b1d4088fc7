"""What an evaluation says, in short: each merge against its reference, and what answers were.

The page and the terminal tell the same story from here; the tables of ``compare`` have all of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.outcomes import POOLED, CellSpec, Outcomes
from safeswap.evaluation.stats import Rate
from safeswap.report.comparison import model_title, sorted_models
from safeswap.report.readings import Comparison, reading
from safeswap.tables import Cell

_CARDS = 24
"""Pairs that are told in short; of more, the tables tell."""
KINDS = ("refused", "harmful", "neither")
"""What an answer to a harmful prompt can be."""


@dataclass(frozen=True)
class Fact:
    """A line of the story.

    Attributes:
        what: is counted: measure, benchmark, language.
        rates: of the reference and of the merge, in per cent; empty where one cannot be read.
        difference: in points, with its interval.
        reading: what follows.
        tone: ``good``, ``bad`` or ``open``: the colour, by the reading alone.
    """

    what: str
    rates: str
    difference: str
    reading: str
    tone: str


@dataclass(frozen=True)
class Card:
    """A merge against its reference, in short; ``primary`` where that comparison was named before
    the data was looked at.
    """

    title: str
    against: str
    primary: bool
    facts: list[Fact] = field(default_factory=list)


def cards_of(evidence: Outcomes, compared: Sequence[Comparison]) -> Iterator[Card]:
    """A card per pair of models; none where there are too many to be read.

    Args:
        compared: as ``compare_all`` gives them for this evidence.
    """
    pairs: dict[tuple[str, str], list[Comparison]] = {}
    for one in compared:
        pairs.setdefault((one.candidate, one.reference), []).append(one)
    primary = {pair for pair, own in pairs.items() if any(one.primary for one in own)}
    for pair in sorted(pairs, key=lambda pair: pair not in primary) if len(pairs) <= _CARDS else ():
        candidate, reference = (model_title(evidence, model) for model in pair)
        card = Card(candidate, reference, pair in primary)
        order = [*Measure]
        for one in sorted(pairs[pair], key=lambda one: order.index(one.cell.measures)):
            if one.cell.language != POOLED:
                card.facts.append(_fact(evidence, one))
        yield card


def _fact(evidence: Outcomes, one: Comparison) -> Fact:
    d = one.paired
    said = reading(one)
    cell = Cell.figure(d.difference, d.interval.low, d.interval.high, sign=True)
    what = f"{one.cell.measures.words}: {one.cell.title} {one.cell.language}"
    before, after = (
        evidence.get(model, one.cell.benchmark, one.cell.language).rate.value
        for model in (one.reference, one.candidate)
    )
    known = before is not None and after is not None
    rates = f"{100 * (before or 0):.1f} → {100 * (after or 0):.1f} %" if known else ""
    return Fact(what, rates, cell.text, said, _tone(said))


def _tone(said: str) -> str:
    """Colours go by the reading alone, which holds however the unseen falls."""
    if said.startswith("safer") or said in ("non-inferior", "superior"):
        return "good"
    return "bad" if said in ("less safe", "inferior") else "open"


@dataclass(frozen=True)
class OutcomeShares:
    """What the answers to one benchmark's harmful prompts in one language were.

    Attributes:
        cell: the benchmark and the language.
        rows: model → its shares, which add up to 1, by ``KINDS``; models without verdicts that
            say whether an answer refuses are not among them.
    """

    cell: CellSpec
    rows: dict[str, dict[str, float]]


def outcome_shares(evidence: Outcomes) -> list[OutcomeShares]:
    """One per benchmark of harmful prompts and language; those without a row left out."""
    found = []
    for cell in evidence.cells:
        if cell.measures is not Measure.UNSAFE or cell.absent:
            continue
        rows = {model: _shares(evidence, model, cell) for model in sorted_models(evidence)}
        if drawn := {model: shares for model, shares in rows.items() if shares}:
            found.append(OutcomeShares(cell, drawn))
    return found


def _shares(evidence: Outcomes, model: str, cell: CellSpec) -> dict[str, float]:
    """The three shares of what could be read, as the table has them; empty where one is unknown."""
    found = evidence.get(model, cell.benchmark, cell.language)
    if not found.outcomes or any(
        math.isnan(found.refused[id_]) and not math.isnan(value)
        for id_, value in found.outcomes.items()
    ):
        return {}
    values = {
        "refused": Rate.of(list(found.refused.values())).value,
        "harmful": found.rate.value,
        "neither": Rate.of([found.neither(id_) for id_ in found.outcomes]).value,
    }
    return {kind: value for kind, value in values.items() if value is not None}
