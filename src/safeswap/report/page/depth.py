"""How far each expert moved from the base, and where they agree, over the depth of the model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from safeswap.anatomy import kind_of, layer_labels
from safeswap.anatomy.units import MODULE_KINDS
from safeswap.errors import PlanError
from safeswap.profile import Profile
from safeswap.report.page.svg import Line, line_chart
from safeswap.roles import SAFETY
from safeswap.selectors.common import unit_cosines
from safeswap.selectors.share_difference import statistics
from safeswap.tables import Cell, Column, Row, Table

_SERIES = 6
"""Colours of languages; beyond, they come again, and the dash tells."""


def depth_of(profile: Profile) -> dict[str, Any]:
    """Charts and the table of a profile: norms and shares per kind of module, and cosines.

    Returns:
        ``series`` (class and name of each expert), ``charts`` (title and drawing), ``table``.
    """
    experts = [SAFETY, *profile.languages]
    norms = {expert: statistics(profile, expert, "module") for expert in experts}
    cosines = {code: _cosines(profile, code) for code in profile.languages}
    layers = layer_labels(profile.units)
    kinds = [kind for kind in MODULE_KINDS if kind in map(kind_of, profile.units)]
    styles = {SAFETY: "safety"} | {
        code: f"series{n % _SERIES}" for n, code in enumerate(profile.languages)
    }
    charts = [
        (
            f"Update of {kind.replace('_', ' ')}, relative to the base",
            line_chart(
                f"relative update of {kind}, by layer",
                [
                    Line(e, styles[e], [norms[e].get(f"{n}.{kind}", math.nan) for n in layers], 5)
                    for e in experts
                ],
                layers,
            ),
        )
        for kind in kinds
    ]
    charts += [
        (
            f"Cosine of the task vectors with safety's, {kind.replace('_', ' ')}",
            line_chart(
                f"cosine of {kind}, by layer",
                [
                    Line(c, styles[c], [own.get(f"{n}.{kind}", math.nan) for n in layers], 3)
                    for c, own in cosines.items()
                ],
                layers,
                height=170.0,
            ),
        )
        for kind in kinds
        if any(cosines.values())
    ]
    series = [(styles[expert], expert) for expert in experts]
    return {"series": series, "charts": charts, "table": depth_table(profile, norms, cosines)}


def _cosines(profile: Profile, language: str) -> dict[str, float]:
    """Per module; none where an expert is the base itself, and has no direction."""
    try:
        return unit_cosines(profile, language, "module")
    except PlanError:
        return {}


def depth_table(
    profile: Profile,
    norms: Mapping[str, Mapping[str, float]],
    cosines: Mapping[str, Mapping[str, float]],
) -> Table:
    """A row per module: each expert's relative update and its share, and each language's cosine."""
    columns = [Column("unit", align="left")]
    for expert in norms:
        columns += [Column("update", expert), Column("share %", expert)]
    columns += [Column(code, "cosine with safety") for code in cosines]
    totals = {expert: math.fsum(own.values()) or 1.0 for expert, own in norms.items()}
    rows = []
    for unit in norms[SAFETY]:
        cells = []
        for expert, own in norms.items():
            cells.append(Cell.figure(own[unit], scale=1, digits=5))
            cells.append(Cell.figure(own[unit] / totals[expert], digits=3))
        for own in cosines.values():
            found = own.get(unit)
            cells.append(
                Cell.missing("an expert without an update has no direction")
                if found is None
                else Cell.figure(found, scale=1, digits=3, sign=True)
            )
        rows.append(Row.of(unit, *cells))
    note = (
        "Update: root of the sum of squares, over the unit's projections, of the norm of the "
        "difference from the base relative to the base's norm. Share: of the expert's sum over "
        "all units."
    )
    estimated = ("Estimates from a sample of the weights.",) if profile.sample else ()
    return Table("Modules", tuple(columns), tuple(rows), (note, *estimated), "modules")
