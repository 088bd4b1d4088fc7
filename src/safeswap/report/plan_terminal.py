"""Plans and profiles in the terminal: heat maps and tables, for 80 columns and any other width."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from safeswap.anatomy import kind_of, layer_labels, layer_of
from safeswap.anatomy.units import MODULE_KINDS, PART_KINDS
from safeswap.display import one_line, visible
from safeswap.plan import Plan
from safeswap.plan.mixtures import decisions_of, experts_of, folded, shown_rows
from safeswap.profile import Profile
from safeswap.report.heat_terminal import HeatMap, HeatRow, Mark, bars, on_colour, swatch
from safeswap.report.plan_figure import (
    COLOURS,
    LANGUAGE_COLOURS,
    colour_name,
    decision_colour,
    panels_of,
)
from safeswap.roles import BASE, SAFETY
from safeswap.selectors.share_difference import statistics
from safeswap.selectors.words import describe, points, threshold
from safeswap.tables import Cell, Column, Row, Table
from safeswap.tables.terminal import fitted

_LETTERS = {SAFETY: "S", BASE: "B", "blend": "·", "mix": "*"}
_GREY = "#8a8f94"
_SHORT = 60
"""Rows of a table that are printed on a terminal however small it is."""


def plan_view(
    plan: Plan, profile: Profile | None = None, units: bool | None = None
) -> RenderableType:
    """What the plan is for, a map of decisions, one of the differences that they came from, the
    effective table, counts, and how much of each expert went in.

    A plan of the same weights everywhere has a map of shares instead, and with a profile the norms
    of the updates.

    Args:
        units: print the table of units; by default where it is short or goes to no terminal.
    """
    inputs = [f"{role}: {given.given}" for role, given in plan.inputs.items()]
    head = [*inputs, f"selector: {describe(plan.selector, list(plan.units))}"]
    head += [f"operator: {plan.operator}"] if str(plan.operator) != "linear" else []
    maps = _shares_of(plan) if plan.is_uniform else [_decisions(plan), _legend(plan)]
    return Group(
        Text(visible("\n".join(head)) + "\n"),
        *maps,
        *([] if plan.is_uniform else _differences(plan)),
        Text(""),
        UnitsTable(_units(plan, profile), units),
        Text(visible(_summary(plan))),
    )


def _shares_of(plan: Plan) -> list[RenderableType]:
    """A map of the measured shares, in place of decisions that are the same everywhere."""
    shares = {
        expert: {unit: row.shares[expert] for unit, row in folded(plan).items() if row.shares}
        for expert in plan.experts
    }
    decision = next(row.decision for unit, row in plan.units.items() if layer_of(unit) is not None)
    said = f"every unit of the layers: {decision}; the shares decide nothing here\n"
    return [Text(visible(said)), _shares_map(shares, layer_labels(plan.units))]


def _decisions(plan: Plan) -> HeatMap:
    layers = layer_labels(plan.units)
    present = {kind_of(unit) for unit in plan.units}
    mixed = bool(present & {*PART_KINDS})
    rows = []
    for kind in (*MODULE_KINDS, *PART_KINDS[:2], "norms"):
        if kind in present:  # norms may have no weights, a model no mixers
            units = [f"{layer}.{kind}" for layer in layers]
            rows.append(HeatRow(kind, "", [_decision(plan, unit, mixed) for unit in units]))
    return HeatMap(layers, [*rows, *_experts(plan, layers)])


def _decision(plan: Plan, unit: str, mixed: bool) -> Mark:
    if unit not in plan.units:  # a layer without a mixture, or the mlp of one with; or it is short
        return (" ", "") if mixed else ("?", "")
    return on_colour(_letter(plan, plan.units[unit].decision), decision_colour(plan, unit))


def _letter(plan: Plan, decision: str) -> str:
    return "L" if decision == plan.language else _LETTERS.get(decision, "?")


def _experts(plan: Plan, layers: Sequence[str]) -> list[HeatRow]:
    """A row for each decision that experts got: the part of a layer's experts that got it."""
    experts = experts_of(plan)
    counts = {layer: decisions_of(plan, experts.get(layer, [])) for layer in layers}
    rows = []
    for decision in decisions_of(plan, [unit for units in experts.values() for unit in units]):
        parts = [
            counts[layer].get(decision, 0) / max(1, len(experts.get(layer, ()))) or math.nan
            for layer in layers
        ]
        colour = COLOURS["language" if decision == plan.language else decision]
        rows.append(HeatRow("experts", decision, bars(parts, 1.0, colour)))
    return rows


def _legend(plan: Plan) -> Text:
    """What the letters mean, each on its colour."""
    layers = layer_labels(plan.units)
    within = {
        colour_name(plan, unit): row.decision
        for unit, row in plan.units.items()
        if layer_of(unit) is not None
    }
    text = Text()
    for name in COLOURS:
        if name in within:
            decision = within[name]
            text.append_text(swatch(_letter(plan, decision), COLOURS[name]))
            text.append(f" {one_line(decision)}   ")
    present = {kind_of(unit) for unit in plan.units}
    kinds = [kind for kind in (*MODULE_KINDS, "norms") if kind in present]
    missing = any(f"{layer}.{kind}" not in plan.units for layer in layers for kind in kinds)
    if missing and not present & {*PART_KINDS}:
        text.append("? missing")
    text.rstrip()
    return text


def _differences(plan: Plan) -> list[RenderableType]:
    """How far apart the shares are, a row for each side; what is below τ is grey."""
    rows, whole = [], folded(plan)
    found = {
        kind: [row.difference if (row := whole.get(unit)) else None for unit in units]
        for kind, units in panels_of(plan).items()
    }
    sizes = [abs(d) for values in found.values() for d in values if d is not None]
    largest = max(sizes, default=0.0)
    if not largest:
        return []
    tau = None if experts_of(plan) else threshold(plan.selector, list(plan.units))
    for kind, values in found.items():
        for expert, sign in ((SAFETY, 1), (plan.language, -1)):
            ahead = [sign * d if d is not None and sign * d > 0 else math.nan for d in values]
            marks = bars(ahead, largest, COLOURS["safety" if sign > 0 else "language"])
            below = [abs(d or 0.0) <= (tau or 0.0) for d in values]
            rows.append(
                HeatRow(
                    kind,
                    f"{expert} +",
                    [
                        (mark, _GREY if grey else style)
                        for (mark, style), grey in zip(marks, below, strict=True)
                    ],
                )
            )
    said = f"whose share of its own update is larger, by how much; █ is {100 * largest:.3g} points"
    said += f", grey is within τ = {points(tau)}" if tau else ""
    return [Text(""), HeatMap(layer_labels(plan.units), rows, [said])]


class UnitsTable:
    """A table that is as wide as the console; on a terminal a long one is printed on request only,
    for it would push what stands above it out of sight.

    Args:
        table: numbers by unit.
        asked: whether it was asked for; None decides by its length.
    """

    def __init__(self, table: Table, asked: bool | None = None) -> None:
        self._table, self._asked = table, asked

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The table in parts that fit, or how to see it."""
        long = console.is_terminal and len(self._table.rows) > max(_SHORT, console.height)
        if self._asked is False or (self._asked is None and long):
            text = f"{len(self._table.rows)} units: --units prints their numbers\n"
            yield Text(text, style="dim")
            return
        yield from fitted([self._table], options.max_width)


def _units(plan: Plan, profile: Profile | None) -> Table:
    norms: dict[str, Mapping[str, float]] = {}
    if plan.is_uniform and profile is not None:
        norms = {expert: statistics(profile, expert, "module") for expert in plan.experts}
    columns = [Column("unit", align="left"), Column("decision", align="left")]
    columns += [Column(expert, "weight") for expert in plan.experts]
    columns += [Column(expert, "norm") for expert in norms]
    columns += [Column(expert, "share [%]") for expert in plan.experts]
    columns += [Column("[points]", "difference")]
    rows = []
    for shown in shown_rows(plan):
        unit, row = shown.unit, shown.row
        cells = [f"{row.weights[expert]:g}" for expert in plan.experts]
        cells += [f"{own[unit]:.5f}" if unit in own else "" for own in norms.values()]
        shares = [""] * (len(plan.experts) + 1)
        if row.shares:
            shares = [f"{100 * row.shares[expert]:.3f}" for expert in plan.experts]
            shares.append(f"{100 * (row.difference or 0.0):+.3f}")
        rows.append(Row.of(unit, shown.decision, *cells, *shares))
    return Table("", tuple(columns), tuple(rows), (), "units")


def _summary(plan: Plan) -> str:
    lines = []
    for kind, counts in plan.counts().items():
        lines.append(f"{kind:>10}: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    for expert in plan.experts:
        held = [(r.weights[expert], r.shares[expert]) for r in plan.units.values() if r.shares]
        whole = sum(share for _, share in held)
        if whole:
            part = sum(weight * share for weight, share in held) / whole
            lines.append(f"{expert}: {100 * part:.1f} % of its update in the layers went in")
    lines.append(f"configuration and tokenizer from: {plan.donor}")
    return "\n".join(lines)


def profile_view(profile: Profile, units: bool | None = None) -> RenderableType:
    """The inputs, maps of shares and of cosines, and per module relative update, share and cosine.

    Args:
        units: print the table of modules; by default where it is short or goes to no terminal.
    """
    experts = [role for role in profile.inputs if role != BASE]
    norms = {expert: statistics(profile, expert, "module") for expert in experts}
    shares = {expert: _shares(norms[expert]) for expert in experts}
    cosines = {code: _cosines(profile, code, norms[SAFETY]) for code in profile.languages}
    inputs = [f"{role}: {record.given}" for role, record in profile.inputs.items()]
    head = Text(visible("\n".join([*inputs, *_notes(profile.notes)])) + "\n")
    layers = layer_labels(profile.units)
    return Group(
        head,
        _shares_map(shares, layers),
        *_cosines_map(cosines, layers),
        Text(""),
        UnitsTable(_modules(norms, shares, cosines), units),
    )


def _shares(norms: Mapping[str, float]) -> dict[str, float]:
    total = sum(norms.values()) or 1.0
    return {unit: norm / total for unit, norm in norms.items()}


def _cosines(profile: Profile, language: str, units: Iterable[str]) -> dict[str, float]:
    """Per unit, over its projections; none where an expert did not move it: it has no direction."""
    found = {}
    for unit in units:
        tensors = [t for t in profile.by_unit[unit] if t.role == "projection"]
        squares = [sum(t.update_norm[e] ** 2 for t in tensors) for e in (SAFETY, language)]
        lengths = (squares[0] * squares[1]) ** 0.5
        if lengths:
            found[unit] = sum(t.inner[language] for t in tensors) / lengths
    return found


def _colours(experts: Iterable[str]) -> dict[str, str]:
    """Safety's, and one per language; they come again after as many as there are."""
    languages = [expert for expert in experts if expert != SAFETY]
    found = {code: LANGUAGE_COLOURS[n % len(LANGUAGE_COLOURS)] for n, code in enumerate(languages)}
    return {SAFETY: COLOURS["safety"], **found}


def _over_layers(
    tables: Mapping[str, Mapping[str, float]], layers: Sequence[str], largest: float
) -> list[HeatRow]:
    """A row per module and expert, from a value per unit."""
    colours = _colours(tables)
    return [
        HeatRow(
            kind,
            expert,
            bars([own.get(f"{n}.{kind}", math.nan) for n in layers], largest, colours[expert]),
        )
        for kind in MODULE_KINDS
        if any(f"{n}.{kind}" in own for own in tables.values() for n in layers)
        for expert, own in tables.items()
    ]


def _shares_map(shares: Mapping[str, Mapping[str, float]], layers: Sequence[str]) -> HeatMap:
    """Every expert's share of its update by module and layer; all on one scale."""
    largest = max((max(own.values(), default=0.0) for own in shares.values()), default=0.0)
    note = f"share of the expert's update; █ is {100 * largest:.2f} %"
    return HeatMap(layers, _over_layers(shares, layers, largest), [note])


def _cosines_map(
    cosines: Mapping[str, Mapping[str, float]], layers: Sequence[str]
) -> list[RenderableType]:
    """How far each language's task vector points where safety's does; a minus below 0."""
    largest = max((abs(c) for own in cosines.values() for c in own.values()), default=0.0)
    if not largest:
        return []
    rows = [
        HeatRow(
            row.kind,
            row.name,
            [
                ("-", _GREY) if cosines[row.name].get(f"{n}.{row.kind}", 0.0) < 0 else mark
                for n, mark in zip(layers, row.marks, strict=True)
            ],
        )
        for row in _over_layers(cosines, layers, largest)
    ]
    note = f"cosine of the task vectors with safety's; █ is {largest:.3f}, - is below 0"
    return [Text(""), HeatMap(layers, rows, [note])]


def _modules(
    norms: Mapping[str, Mapping[str, float]],
    shares: Mapping[str, Mapping[str, float]],
    cosines: Mapping[str, Mapping[str, float]],
) -> Table:
    columns = [Column("unit", align="left")]
    for expert in norms:
        columns += [Column("update", expert), Column("share [%]", expert)]
        columns += [Column("cosine", expert)] if expert in cosines else []
    rows = []
    for unit in norms[SAFETY]:
        cells = []
        for expert in norms:
            cells += [f"{norms[expert][unit]:.5f}", f"{100 * shares[expert][unit]:.3f}"]
            if expert in cosines:
                found = cosines[expert].get(unit)
                cells.append("n/a" if found is None else f"{found:+.3f}")
        rows.append(Row.of(unit, *map(Cell, cells)))
    return Table("", tuple(columns), tuple(rows), (), "modules")


def _notes(notes: Iterable[str]) -> list[str]:
    return [f"note: {note}" for note in notes]


def print_view(view: RenderableType) -> None:
    """Print to standard output; wide enough for a table where it is neither a terminal nor said."""
    console = Console()
    wide = None if console.is_terminal or "COLUMNS" in os.environ else 160
    Console(width=wide).print(view, soft_wrap=False)
