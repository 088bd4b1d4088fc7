"""The tables of the study as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from small_world.chosen.choice import outcome
from small_world.chosen.families import CHAT_VECTOR, GRAM_ADD, LANGUAGE_EXPERT
from small_world.chosen.records import Case


def _points(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def _p(row: Mapping[str, Any]) -> str:
    if row["p"] is None:
        return ""
    return f"{row['p']:.3f}" + (f" ({row['p_holm']:.3f})" if "p_holm" in row else "")


def compared_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Every family in the mean over all cases; p against the row that has none."""
    lines = [
        "| family | harmful refused | in the language asked | answers right | points lost "
        "| harmless refused | J (units) | no scale within a point | p (Holm) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        units = row["objective_by_unit"].values()
        between = f"{_points(min(units))}–{_points(max(units))}"
        none = f"{row['none']:.0%}" if "p_holm" in row or row["p"] is None else ""
        lines.append(
            f"| {row['name']} | {_points(row['refusal'])} | {_points(row['own_refusal'])} "
            f"| {_points(row['ability'])} | {_points(row['lost'])} "
            f"| {_points(row['over_refusal'])} | {_points(row['objective'])} ({between}) "
            f"| {none} | {_p(row)} |"
        )
    return "\n".join(lines)


def unit_table(cases: Sequence[Case], key: str) -> str:
    """Refused / right on test by unit and language: language expert, chat vector, gram-add."""
    codes = list(dict.fromkeys(case.language for case in cases))
    lines = [
        f"| {key} | | {' | '.join(codes)} | J | points lost |",
        f"| --- | --- |{' --- |' * len(codes)} ---: | ---: |",
    ]
    for value in dict.fromkeys(case.cell[key] for case in cases):
        own = [case for case in cases if case.cell[key] == value]
        for name in (LANGUAGE_EXPERT, CHAT_VECTOR, GRAM_ADD):
            found = [outcome(case, name).figures for case in own]
            cells = (f"{_points(f['refusal'])} / {_points(f['ability'])}" for f in found)
            means = {k: sum(f[k] for f in found) / len(found) for k in ("objective", "lost")}
            lines.append(
                f"| {value} | {name} | {' | '.join(cells)} | {_points(means['objective'])} "
                f"| {_points(means['lost'])} |"
            )
    return "\n".join(lines)


def scales_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was chosen, and how often."""
    lines = ["| family | scales chosen on dev (how often) |", "| --- | --- |"]
    for row in rows:
        drawn = Counter(scale for scales in row["scales"] for scale in scales if scale)
        if drawn:
            said = "; ".join(f"{scale} ({n})" for scale, n in drawn.most_common(6))
            lines.append(f"| {row['name']} | {said} |")
    return "\n".join(lines)
