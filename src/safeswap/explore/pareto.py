"""The Pareto set: what no other candidate beats in one figure without losing in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safeswap.evaluation.store import write_json
from safeswap.evaluation.suites import Measures
from safeswap.explore.measured import Figure, Measured
from safeswap.report.ablation import pareto_front
from safeswap.report.tables import Cell, Column, Row, Table

OBJECTIVES: Mapping[Measures, str] = {
    "unsafe": "unsafe answers",
    "right": "right answers",
    "refused": "harmless prompts refused",
}
"""In words, in their order; every one but ``right`` is better when lower."""


def losses(one: Measured, objectives: Sequence[Measures]) -> tuple[float, ...] | None:
    """A candidate's figures, all better when lower; None where one is missing."""
    found = []
    for kind in objectives:
        figure: Figure | None = getattr(one, kind)
        if figure is None:
            return None
        found.append(-figure.value if kind == "right" else figure.value)
    return tuple(found)


def pareto_set(found: Sequence[Measured], objectives: Sequence[Measures]) -> list[Measured]:
    """The front of `safeswap.report.ablation.pareto_front`, from the safest on.

    Candidates that lack a figure are left out.
    """
    values = {one.name: losses(one, objectives) for one in found}
    whole = [one for one in found if values[one.name] is not None]
    return sorted(pareto_front(whole, objectives), key=lambda one: values[one.name] or ())


def pareto_table(front: Sequence[Measured], objectives: Sequence[Measures], title: str) -> Table:
    """Rows: the set; columns: objectives with their intervals."""
    columns = (
        Column("candidate", align="left"),
        Column("method", align="left"),
        *(Column(f"{OBJECTIVES[k]} % {'↑' if k == 'right' else '↓'}") for k in objectives),
    )
    rows = tuple(
        Row.of(one.name, one.method or one.role, *(_cell(getattr(one, k)) for k in objectives))
        for one in front
    )
    note = "Dev questions, and the best of many: no test result."
    return Table(title, columns, rows, (note,))


def _cell(figure: Figure | None) -> Cell:
    if figure is None:
        return Cell.missing("not measured")
    return Cell.figure(figure.value, figure.low, figure.high)


def write_pareto(path: Path, front: Sequence[Measured], about: Mapping[str, Any]) -> None:
    """The set as JSON: what it was chosen from and on, and each candidate with its figures."""
    points = [{**asdict(one), "plan": f"{one.name}.yaml"} for one in front]
    write_json(path, {"format": "safeswap-pareto/1", **about, "candidates": points})
