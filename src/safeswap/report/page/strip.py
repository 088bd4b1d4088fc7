"""The decision strip: a cell per layer and module, and below it what the decisions came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from safeswap.anatomy import kind_of, label_of, layer_labels
from safeswap.anatomy.units import MODULE_KINDS, PART_KINDS
from safeswap.plan import Plan, PlannedUnit
from safeswap.plan.mixtures import decisions_of, experts_of, folded, shown_rows
from safeswap.report.page.svg import RIGHT, drawing, element, layer_axis, ticks, title, words
from safeswap.roles import BASE, SAFETY
from safeswap.selectors.words import in_points, threshold
from safeswap.tables import Cell, Column, Row, Table

_ROW, _GAP, _TOP, _BARS = 26.0, 3.0, 8.0, 110.0
_ROOM = 880.0
_LEAST, _MOST = 8.0, 40.0
"""Width of a cell: so that 126 layers stand in a row, and 6 are no banner."""
_NAMES = 112.0
"""Room for the names of the rows."""
_LETTERS = {"safety": "S", "language": "L", "blend": "·", "mix": "+", "base": "B", "": "?"}
_LETTERED = 13.0
"""Narrower cells have no letter."""


def style_of(decision: str, language: str) -> str:
    """The class of a decision's colour: safety, language, blend, mix or base."""
    return "language" if decision == language else decision


def strip(plan: Plan, *, room: float = _ROOM, least: float = _LEAST) -> str:
    """All decisions as one drawing: modules down, layers across; below, the differences of shares.

    Each cell says on hover, and to a keyboard by the page's script, what was decided, with which
    weights, from which shares.

    Args:
        room: width of all cells together, where that leaves each ``least``.
    """
    labels = layer_labels(plan.units)
    cell = _width(labels, room, least)
    width = _NAMES + cell * len(labels) + RIGHT

    def x(at: int) -> float:
        return _NAMES + cell * (at + 0.5)

    kinds = [k for k in (*MODULE_KINDS, *PART_KINDS, "norms") if k in map(kind_of, plan.units)]
    parts: list[str] = []
    kind: str
    for number, kind in enumerate(kinds):
        top = _TOP + number * (_ROW + _GAP)
        parts.append(words(kind.replace("_", " "), _NAMES - 8, top + _ROW / 2 + 4, "name", "end"))
        for at, label in enumerate(labels):
            place = (_NAMES + cell * at, top, cell - (1.0 if cell < _LETTERED else 2.0))
            if kind == "experts":
                parts += _experts(plan, experts_of(plan).get(label, []), label, place)
            elif (unit := f"{label}.{kind}") in plan.units:
                parts.append(_cell(plan, unit, place))
    bottom = _TOP + len(kinds) * (_ROW + _GAP)
    parts += layer_axis(labels, x, bottom + 14)
    height = bottom + 24
    for kind, units in _measured(plan).items():
        parts += _differences(plan, kind, units, height, cell)
        height += _BARS + 14
    return drawing(width, height, f"Decisions by layer and module, {plan.language}", parts, "strip")


def _width(labels: Sequence[str], room: float = _ROOM, least: float = _LEAST) -> float:
    return min(_MOST, max(least, room / max(1, len(labels))))


def lettered(labels: Sequence[str]) -> bool:
    """Whether the cells of so many layers have room for letters."""
    return _width(labels) - 2.0 >= _LETTERED


def _cell(plan: Plan, unit: str, place: tuple[float, float, float]) -> str:
    x, y, wide = place
    decision = plan.units[unit].decision
    kind = style_of(decision, plan.language)
    box = element("rect", x=x, y=y, width=wide, height=_ROW, rx=2.0)
    inside = [title(told(unit, plan.units[unit])), box]
    if wide >= _LETTERED:
        letter = _LETTERS.get(kind, "?")
        inside.append(words(letter, x + wide / 2, y + _ROW / 2 + 4, "letter", "middle"))
    return element("g", *inside, class_=f"unit {kind}", data_unit=unit)


def _experts(
    plan: Plan, units: list[str], label: str, place: tuple[float, float, float]
) -> list[str]:
    """A layer's cell, divided as its experts were decided."""
    x, y, wide = place
    made, counts = [], decisions_of(plan, units)
    said = ", ".join(f"{count} {decision}" for decision, count in counts.items())
    for decision, count in counts.items():
        high = _ROW * count / len(units)
        kind = style_of(decision, plan.language)
        box = element("rect", x=x, y=y, width=wide, height=high)
        about = title(f"{label}.experts, {len(units)}: {said}")
        made.append(element("g", about, box, class_=f"unit {kind}", data_experts=label))
        y += high
    return made


def told(unit: str, row: PlannedUnit) -> str:
    """A row in words: unit, decision, weights, shares in per cent, difference in points."""
    said = [f"{unit}: {row.decision}"]
    said.append("weights " + ", ".join(f"{e} {w:g}" for e, w in row.weights.items()))
    if row.shares:
        said.append("shares " + ", ".join(f"{e} {100 * s:.3f} %" for e, s in row.shares.items()))
        said.append(f"difference {100 * (row.difference or 0.0):+.3f} points")
    return "; ".join(said)


def _measured(plan: Plan) -> dict[str, list[str]]:
    """What has shares of its own → its units by layer; ``layer`` where all of it has the same."""
    rows = folded(plan)
    labels = layer_labels(plan.units)
    every: dict[str, list[str]] = {
        kind: [f"{label}.{kind}" for label in labels] for kind in MODULE_KINDS
    }
    found = {
        kind: units
        for kind, units in every.items()
        if any(rows[unit].shares for unit in units if unit in rows)
    }
    values = [[_difference(rows.get(unit)) for unit in units] for units in found.values()]
    if len(values) > 1 and all(str(one) == str(values[0]) for one in values):
        return {"layer": next(iter(found.values()))}
    return found


def _difference(row: PlannedUnit | None) -> float:
    return math.nan if row is None or row.difference is None else 100 * row.difference


def _differences(plan: Plan, kind: str, units: Sequence[str], top: float, cell: float) -> list[str]:
    """Bars of safety − language in points, and lines at ±τ.

    Where all units have the same weights nothing was decided, and the colour says who moved more.
    """
    rows, uniform = folded(plan), plan.is_uniform
    values = [_difference(rows.get(unit)) for unit in units]
    tau = None if experts_of(plan) else threshold(plan.selector, list(plan.units))
    sizes = [abs(v) for v in values if math.isfinite(v)] + ([100 * tau] if tau else [])
    most = 1.1 * max(sizes, default=1.0) or 1.0
    high, right = _BARS - 16, _NAMES + cell * len(units)

    def y(value: float) -> float:
        return top + 8 + high * (most - value) / (2 * most)

    parts = [words(kind.replace("_", " "), _NAMES - 44, y(0) - 8, "name", "end")]
    parts += [words("difference", _NAMES - 44, y(0) + 6, "tick", "end")]
    parts += [words("in points", _NAMES - 44, y(0) + 19, "tick", "end")]
    for number in ticks(-most, most, 6):
        text = f"{number:+.3g}" if number else "0"
        parts.append(words(text, _NAMES - 6, y(number) + 4, "tick", "end"))
        parts.append(
            element("line", x1=_NAMES, x2=right, y1=y(number), y2=y(number), class_="grid")
        )
    for at, (unit, value) in enumerate(zip(units, values, strict=True)):
        if not math.isfinite(value):
            continue
        leaning = SAFETY if value > 0 else "language"
        row = rows[unit]
        style = leaning if uniform else style_of(row.decision, plan.language)
        box = {"x": _NAMES + cell * at + 1, "y": min(y(0), y(value)), "width": cell - 2}
        high_ = max(0.5, abs(y(value) - y(0)))
        parts.append(
            element(
                "rect",
                title(told(unit, row)),
                **{**box, "height": high_, "class_": f"bar {style}", "data_unit": unit},
            )
        )
    parts.append(element("line", x1=_NAMES, x2=right, y1=y(0), y2=y(0), class_="zero"))
    for sign in (1, -1) if tau else ():
        at_ = y(sign * 100 * (tau or 0.0))
        parts.append(
            element(
                "line",
                title(f"τ = {in_points(tau or 0.0)} points"),
                **{"x1": _NAMES, "x2": right, "y1": at_, "y2": at_, "class_": "tau"},
                **{"data_sign": sign, "data_zero": y(0), "data_half": high / 2},
                data_scale=f"{high / most / 2:.9g}",
            )
        )
    return parts


def legend(plan: Plan) -> list[tuple[str, str, str]]:
    """The decisions that were met: class, letter, and what it means."""
    met = {style_of(row.decision, plan.language) for row in plan.units.values()}
    meaning = {
        SAFETY: "from the safety expert",
        "language": f"from the {plan.language} expert",
        "blend": "a blend: parts of both that sum to 1",
        "mix": "a mix: weights that do not sum to 1, such as both task vectors added",
        BASE: "as in the base",
    }
    return [(kind, _LETTERS[kind], text) for kind, text in meaning.items() if kind in met]


def outside(plan: Plan) -> str:
    """What was decided outside the layers, in a line."""
    rows = [(unit, row) for unit, row in plan.units.items() if label_of(unit) is None]
    return ", ".join(f"{unit.replace('_', ' ')}: {row.decision}" for unit, row in rows)


def units_table(plan: Plan) -> Table:
    """A row per unit: decision, weights, shares in per cent, difference in points."""
    experts = plan.experts
    columns = [Column("unit", align="left"), Column("decision", align="left")]
    columns += [Column(expert, "weight") for expert in experts]
    measured = any(row.shares for row in plan.units.values())
    if measured:
        columns += [Column(expert, "share %") for expert in experts]
        columns.append(Column("difference, points"))
    rows = []
    for shown in shown_rows(plan):
        row = shown.row
        cells = [Cell(f"{row.weights[e]:g}", row.weights[e]) for e in experts]
        if measured and row.shares:
            cells += [Cell.figure(row.shares[e], digits=3) for e in experts]
            cells.append(Cell.figure(row.difference or 0.0, digits=3, sign=True))
        elif measured:
            cells += [Cell("–")] * (len(experts) + 1)
        rows.append(Row.of(shown.unit, shown.decision, *cells))
    return Table(f"Units, {plan.language}", tuple(columns), tuple(rows), (), "units")


def counts_line(plan: Plan) -> str:
    """How many of each kind of unit got which decision."""
    counted = {k: v for k, v in plan.counts().items() if k in (*MODULE_KINDS, *PART_KINDS)}
    return "; ".join(
        f"{kind.replace('_', ' ')}: " + ", ".join(f"{n} {what}" for what, n in counts.items())
        for kind, counts in counted.items()
    )
