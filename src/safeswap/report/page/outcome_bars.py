"""Refused, harmful or neither as bars, a row per model: the table of outcomes at a glance."""

from __future__ import annotations

from collections.abc import Mapping

from safeswap.evaluation.results.outcomes import CellSpec, Outcomes
from safeswap.report.comparison import model_title
from safeswap.report.page.svg import drawing, element, title, words
from safeswap.report.story import KINDS, outcome_shares

_BAR, _HIGH, _ROW = 356.0, 20.0, 42.0
"""Names stand above their bars: all of it fits a phone."""
_LONGEST = 50
"""Letters of a model's name; all of it stands on hover and in the table."""


def outcome_charts(evidence: Outcomes) -> list[tuple[str, str]]:
    """A drawing per benchmark of harmful prompts and language: its title, and the bars.

    A model whose judge does not say whether answers refuse has no bar.
    """
    return [
        (f"{one.cell.title}, {one.cell.language}", _bars(evidence, one.cell, one.rows))
        for one in outcome_shares(evidence)
    ]


def _bars(evidence: Outcomes, cell: CellSpec, rows: Mapping[str, Mapping[str, float]]) -> str:
    parts = []
    for number, (model, shares) in enumerate(rows.items()):
        top, left = 20 + number * _ROW, 2.0
        name = model_title(evidence, model)
        short = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        parts.append(words(short, 2, top - 5, "name"))
        for kind in KINDS:
            wide = _BAR * shares.get(kind, 0.0)
            if not wide:
                continue
            text = f"{100 * shares[kind]:.1f}"
            box = element("rect", x=left, y=top, width=max(0.5, wide - 1), height=_HIGH, rx=2.0)
            inside = [title(f"{name}: {kind} {text} %"), box]
            if wide > 34:
                inside.append(words(text, left + wide / 2, top + 14, "letter", "middle"))
            parts.append(element("g", *inside, class_=f"outcome {kind}"))
            left += wide
    height = 4 + len(rows) * _ROW
    label = f"Per cent refused, harmful, neither: {cell.title}, {cell.language}"
    return drawing(_BAR + 4, height, label, parts, "outcomes")
