"""Grades of ``safeswap diagnose`` beside what became of the pairs: rows and tables of both worlds.

A row is a pair: its ``kind`` (what is wrong with it), language, seed, grade, criteria, the figures
that these go by, and ``works``: whether the best merge reached what the world's own package says
is enough; None where nothing was tried that could.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safeswap.search.diagnose import Diagnosis
from safeswap.search.diagnose.record import GRADES
from safeswap.search.diagnose.separation import Estimate

Row = dict[str, Any]


def row_of(kind: str, seed: int, found: Diagnosis, works: bool | None, **more: Any) -> Row:
    """A pair as it is kept."""
    return {
        "kind": kind,
        "language": found.language,
        "seed": seed,
        "grade": found.grade,
        "criteria": {reason.name: reason.holds for reason in found.reasons},
        "figures": figures(found),
        "works": works,
        **more,
    }


def figures(found: Diagnosis) -> dict[str, list[float]]:
    """Value and interval of what the criteria go by, and of what stands beside them."""
    layer, known = found.layers[found.layer], found.knowledge
    safety = {one.language: one for one in found.refusing if one.role == "safety"}
    there = safety[found.language]
    named: dict[str, Estimate | None] = {
        "gain": known.gain,
        "predicted": known.predicted,
        "selective": safety["en"].selective,
        "english": layer.english,
        "language": layer.language,
        "transfer": layer.transfer,
        "ranking": there.ranking,
        "harmful refused": there.harmful,
        "harmless refused": there.harmless,
        "spelling": found.spelling.language,
        "spelling transfer": found.spelling.transfer,
    }
    return {
        name: [round(one.value, 4), round(one.low, 4), round(one.high, 4)]
        for name, one in named.items()
        if one is not None
    }


def by_kind(rows: Sequence[Row]) -> str:
    """A table: kind, how many of each grade, how many worked, of those where that is known."""
    lines = ["| pairs | likely | open | unlikely | worked |", "| --- | --: | --: | --: | --: |"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        own = [row for row in rows if row["kind"] == kind]
        counts = [str(sum(row["grade"] == grade for row in own)) for grade in GRADES]
        lines.append(f"| {kind} | {' | '.join(counts)} | {_worked(own)} |")
    return "\n".join(lines)


def by_grade(rows: Sequence[Row]) -> str:
    """A line per grade: how many pairs of it worked."""
    grouped = {grade: [row for row in rows if row["grade"] == grade] for grade in GRADES}
    return "\n".join(f"{grade}: {_worked(own)} worked" for grade, own in grouped.items() if own)


def _worked(rows: Sequence[Row]) -> str:
    known = [row["works"] for row in rows if row["works"] is not None]
    rest = len(rows) - len(known)
    return f"{sum(known)} of {len(known)}" + (f", {rest} not tried" if rest else "")
