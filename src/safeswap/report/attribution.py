"""What ``safeswap attribute`` found, as tables: the best units, and whether the sums are right."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from safeswap.profile.attribution import READOUTS, Attribution
from safeswap.tables import Cell, Column, Row, Table

FEW = 20
"""Units that are printed where not all are asked for."""


def units_table(found: Attribution, limit: int | None = FEW) -> Table:
    """The units in the order in which ``--method attribution`` takes them.

    Args:
        limit: so many of them; None for all, those that it never takes at the end.
    """
    ranked = found.ranked()
    order = ranked[:limit]
    if limit is None:
        order = [*ranked, *(unit for unit in found.units if unit not in ranked)]
    columns = (
        Column("unit", align="left"),
        *(Column(readout, "brings [nats]") for readout in READOUTS),
        Column("per nat"),
        *(Column(name, "so far [nats]") for name in ("refusing", "lost")),
    )
    rows, brought, lost = [], 0.0, 0.0
    for unit in order:
        one = found.units[unit]
        cost = max(0.0, -one.keeping)
        brought, lost = brought + one.refusing, lost + cost
        figures = (one.refusing, one.overrefusing, one.keeping)
        price = Cell.figure(one.refusing / cost, scale=1) if cost else Cell("free")
        cells = [Cell.figure(value, scale=1, digits=3, sign=True) for value in figures]
        sums = (Cell.figure(value, scale=1, digits=3) for value in (brought, lost))
        taken = unit in ranked
        rows.append(Row.of(unit, *cells, *((price, *sums) if taken else (Cell(""),) * 3)))
    title = f"{found.language}: units by what they bring to refusing for what they cost"
    return Table(title, columns, tuple(rows), _notes(found, len(ranked), limit), "units")


def _notes(found: Attribution, taken: int, limit: int | None) -> tuple[str, ...]:
    said = f"{taken} of {len(found.units)} units bring refusing"
    if limit is not None and taken > limit:
        said += f"; the best {limit} are here, --units prints all"
    columns = "per nat: of refusing, for a nat of keeping; so far: with all units above"
    return (said, columns)


def sums_table(found: Attribution) -> Table:
    """Readouts before and after, and the sum of the shares beside the difference."""
    columns = (
        Column("readout", align="left"),
        *(Column(name, "[nats]") for name in ("language expert", "safety added", "difference")),
        Column("sum of units", "[nats]"),
        Column("error [%]"),
    )
    rows = []
    for name in READOUTS:
        ends = (getattr(found.before, name), getattr(found.after, name))
        values = (*ends, found.difference(name), found.total(name))
        cells = [Cell.figure(value, scale=1, digits=3) for value in values]
        error = found.error(name)
        wrong = Cell.figure(error) if math.isfinite(error) else Cell("no change")
        rows.append(Row.of(name, *cells, wrong))
    title = "all of the safety vector added, and the shares' sum"
    return Table(title, columns, tuple(rows), (), "sums")


def record(found: Attribution) -> dict[str, Any]:
    """What ``--json`` prints: readouts, errors and units, the best first."""
    errors = {name: found.error(name) for name in READOUTS}
    return {
        "kind": "attribution",
        "language": found.language,
        "by": found.by,
        "before": asdict(found.before),
        "after": asdict(found.after),
        "error": {name: part if math.isfinite(part) else None for name, part in errors.items()},
        "ranked": found.ranked(),
        "units": {unit: asdict(one) for unit, one in found.units.items()},
    }
