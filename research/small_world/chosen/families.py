"""The families and their scales.

Scale 0 of every family is the language expert as it is, so that a family of which every model costs
too much ability has a choice all the same. What the scale is:

* *swaps* (share-difference, its table permuted, its table inverted): how far the weights of every
  unit go from the language expert's, (0, 1), towards the table's; at 1 they are the table's;
* *gates* (``gated`` and the same with the other tables): γ of the safety vector where the table
  says safety, added to all of the language's;
* soup: safety's part α; chat vector: γ;
* gram-add: strength k and balance γ.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from safeswap.plan import Plan, PlannedUnit, fill_plan
from safeswap.profile import Profile
from safeswap.roles import SAFETY

BASE, SAFETY_EXPERT, LANGUAGE_EXPERT = "base", "safety expert", "language expert"
REFERENCES = (BASE, SAFETY_EXPERT, LANGUAGE_EXPERT)
GRAM_ADD, CHAT_VECTOR, SOUP = "gram-add", "chat vector", "soup"
TABLES = ("share-difference", "permuted", "inverted")
"""Methods whose tables are swapped by and, as "gated by …", added by."""

DRAWS = 4
"""Tables of a family that is drawn at random; what is reported is their mean."""

SWAPS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
GATES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
SOUPS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9)
ADDED = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
STRENGTHS, BALANCES = (2.0, 3.0, 4.0, 5.0), (0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Option:
    """One model: a family at a scale.

    Attributes:
        family, scale: what it is called by; a reference has no scale.
        draw: of a family drawn at random; each draw has its scale chosen by itself.
        options: of `fill_plan`.
        way: what becomes of the plan's weights: nothing, "swap" or "gate"; by `strength`.
        balance: γ of gram-add; None for what needs no Gram matrices.
    """

    family: str
    scale: str = ""
    draw: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    way: str = ""
    strength: float = 1.0
    balance: float | None = None

    @property
    def name(self) -> str:
        """Unique among all options."""
        drawn = f" #{self.draw}" if self.draw else ""
        return f"{self.family}{drawn}, {self.scale}" if self.scale else self.family

    def plan(self, profile: Profile, language: str, grams: Path) -> Plan:
        """Its plan for one language; ``grams`` is what `calibrate` wrote."""
        options = dict(self.options)
        if self.balance is not None:
            named = {"name": GRAM_ADD, "grams": str(grams), "balance": self.balance}
            options["operator"] = named
        plan = fill_plan(profile, language, **options)
        if not self.way:
            return plan
        rows = {unit: self._scaled(row, language) for unit, row in plan.units.items()}
        return replace(plan, units=rows)

    def _scaled(self, row: PlannedUnit, language: str) -> PlannedUnit:
        if self.way == "gate":
            opened = self.strength if row.decision == SAFETY else 0.0
            return replace(row, weights={SAFETY: opened, language: 1.0})
        safety, kept = row.weights[SAFETY], row.weights[language]
        towards = {
            SAFETY: self.strength * safety,
            language: 1.0 + self.strength * (kept - 1.0),
        }
        return replace(row, weights=towards)


def gated_by(table: str) -> str:
    """The name of the family that adds by a table."""
    return "gated" if table == TABLES[0] else f"gated by {table}"


FAMILIES = (*TABLES, *(gated_by(table) for table in TABLES), SOUP, CHAT_VECTOR, GRAM_ADD)


@cache
def all_options() -> tuple[Option, ...]:
    """References first, then every family at every scale."""
    pairs = dict(zip(REFERENCES, ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)), strict=True))
    references = (Option(name, options=_uniform(*pair)) for name, pair in pairs.items())
    return (*references, *_tables(), *_everywhere())


def _uniform(safety: float, language: float) -> dict[str, Any]:
    pair = {"weight_safety": safety, "weight_language": language}
    return {"method": "uniform", "form": "weights", **pair}


def _tables() -> Iterator[Option]:
    for table in TABLES:
        for draw in range(DRAWS if table == "permuted" else 1):
            seed = {"seed": draw} if table == "permuted" else {}
            options = {"method": table, **seed}
            for strength in SWAPS:
                scale = f"scale {strength:g}"
                yield Option(table, scale, draw, options, "swap", strength)
            for strength in GATES:
                yield Option(gated_by(table), f"γ = {strength:g}", draw, options, "gate", strength)


def _everywhere() -> Iterator[Option]:
    for alpha in SOUPS:
        yield Option(SOUP, f"α = {alpha:g}", options=_uniform(alpha, 1.0 - alpha))
    for gamma in ADDED:
        yield Option(CHAT_VECTOR, f"γ = {gamma:g}", options=_uniform(gamma, 1.0))
    for strength, balance in itertools.product(STRENGTHS, BALANCES):
        scale = f"k = {strength:g} γ = {balance:g}"
        yield Option(GRAM_ADD, scale, options=_uniform(strength, 1.0), balance=balance)
