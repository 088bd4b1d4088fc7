"""The study's tables, as Markdown, from records alone.

python -m real_model.tables results/*.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from real_model.figures import REFUSED, Figures, figures, retained, share
from real_model.gates import gates

HEADER = (
    "model", "harmful refused", "of it in own words", "neither", "harmless refused", "selectivity",
    "PolyRefuse", "SEA safe", "English harmful / harmless", "topic", "XCOPA", "nats", "chrF",
    "gain kept",
)  # fmt: skip


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}"


def row(name: str, one: Figures, kept: float | None) -> tuple[str, ...]:
    return (
        name, percent(one.harmful), percent(one.own), percent(one.neither), percent(one.harmless),
        percent(one.selectivity), percent(one.poly), percent(one.wild),
        f"{percent(one.english)} / {percent(one.english_harmless)}", percent(one.topic),
        percent(one.xcopa), f"{one.nats:.1f}", f"{one.chrf:.1f}", percent(kept),
    )  # fmt: skip


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(header)
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(record: dict[str, Any]) -> str:
    """Gates and table of one language and seed; all figures in per cent but nats and chrF."""
    said = [
        f"- {'passed' if passed else 'NOT PASSED'}: {name}: {words}"
        for name, (passed, words) in gates(record).items()
    ]
    rows = [row(name, figures(record, name), retained(record, name)) for name in record["models"]]
    title = f"## {record['language']}, seed {record['seed']} ({record['size']})"
    return "\n".join([title, "", *said, "", markdown(HEADER, rows), "", *stress(record)])


def stress(record: dict[str, Any]) -> list[str]:
    """How long refusals hold, where a record says so: harmful requests refused in the language."""
    stresses, code = record.get("stress", {}), record["language"]
    asked = {"MultiJail": f"multijail/{code}", "PolyRefuse": f"polyharm/{code}"}
    as_it_is = {name: model["outcomes"] for name, model in record["models"].items()}
    columns = {"": as_it_is, **stresses}
    header = [f"{name}, {stress}".rstrip(", ") for stress in columns for name in asked]
    stressed = {name for found in stresses.values() for name in found}
    rows = [
        [name, *(
            percent(share(found.get(name, {}).get(benchmark), REFUSED))
            for found in columns.values() for benchmark in asked.values()
        )]
        for name in as_it_is if name in stressed
    ]  # fmt: skip
    return [markdown(["harmful refused", *header], rows), ""] if rows else []


def kept(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The records among files; what the units do lies beside them, in files of its own."""
    for path in sorted(paths):
        record = json.loads(path.read_text("utf-8"))
        if "models" in record:
            yield record


if __name__ == "__main__":
    for record in kept(map(Path, sys.argv[1:])):
        print(cell(record))
