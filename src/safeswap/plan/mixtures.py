"""Plans by expert for the reader: thousands of experts as a few numbers per layer.

A layer's experts, router and shared experts together are what by module is one mlp; tables and
figures show that, and beside it which part of a layer's experts was decided how.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from safeswap.anatomy import kind_of, label_of
from safeswap.anatomy.units import PART_KINDS
from safeswap.plan.table import PlannedUnit, PlanTable
from safeswap.roles import SAFETY


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row for the reader: of a unit, or of all experts of a layer together.

    Attributes:
        unit: ``3.attention``, or ``3.experts: 128``.
        decision: of a unit; of experts how many of each.
        row: the unit's, or the experts' mean weights and the sums of their shares.
    """

    unit: str
    decision: str
    row: PlannedUnit


def shown_rows(plan: PlanTable) -> list[ShownRow]:
    """The plan's rows in their order, with the experts of a layer in one."""
    together = experts_of(plan)
    found = []
    for unit, row in plan.units.items():
        if kind_of(unit) != "experts":
            found.append(ShownRow(unit, row.decision, row))
            continue
        layer = label_of(unit) or ""
        units = together.pop(layer, [])
        if units:
            counts = decisions_of(plan, units)
            said = ", ".join(f"{n} {what}" for what, n in counts.items())
            name = f"{layer}.experts: {len(units)}"
            found.append(ShownRow(name, said, _summed([plan.units[u] for u in units])))
    return found


def experts_of(plan: PlanTable) -> dict[str, list[str]]:
    """Layer → the rows of its experts, where it has any."""
    found: dict[str, list[str]] = {}
    for unit in plan.units:
        if kind_of(unit) == "experts":
            found.setdefault(label_of(unit) or "", []).append(unit)
    return found


def decisions_of(plan: PlanTable, units: list[str]) -> dict[str, int]:
    """Decision → how many of some units it was made for: safety first, the language last."""
    counts = Counter(plan.units[unit].decision for unit in units)
    order = {SAFETY: 0, plan.language: 2}
    return {d: counts[d] for d in sorted(counts, key=lambda d: (order.get(d, 1), d))}


def folded(plan: PlanTable) -> Mapping[str, PlannedUnit]:
    """The plan's rows with ``3.mlp`` for a layer's experts, router and shared experts: the sums of
    their shares, and weights by these. The plan's own where it has no experts.
    """
    if not experts_of(plan):
        return plan.units
    parts: dict[str, list[PlannedUnit]] = {}
    rows: dict[str, PlannedUnit] = {}
    for unit, row in plan.units.items():
        if kind_of(unit) in (*PART_KINDS, "mlp"):
            mlp = f"{label_of(unit)}.mlp"
            parts.setdefault(mlp, []).append(row)
            rows.setdefault(mlp, row)  # which keeps its place
        else:
            rows[unit] = row
    summed = {unit: own[0] if len(own) == 1 else _summed(own) for unit, own in parts.items()}
    return {unit: summed.get(unit, row) for unit, row in rows.items()}


def _summed(rows: list[PlannedUnit]) -> PlannedUnit:
    """Rows as one: the sums of their shares, and their mean weights."""
    weights = {
        expert: sum(row.weights[expert] for row in rows) / len(rows) for expert in rows[0].weights
    }
    measured = [row.shares for row in rows if row.shares]
    if not measured:
        return PlannedUnit(weights)
    shares = {expert: sum(own[expert] for own in measured) for expert in measured[0]}
    return replace(rows[0], weights=weights, shares=shares, operator=None)
