"""What a sweep or a search would do, without reading a weight: a record, and it in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safeswap.checkpoint.family import Family
from safeswap.evaluation.outlook import LAST, cell_lines, cells_of
from safeswap.io.progress import shown_bytes
from safeswap.search.search_config import Search
from safeswap.search.sweep_config import Sweep

Record = dict[str, Any]


def sweep_outlook(sweep: Sweep, results: Path, *, force: bool = False) -> Record:
    """Checkpoints, cells of the grid, and the questions of both sides, language by language.

    Raises:
        SafeswapError: a checkpoint that is not there, or of another family.
    """
    return _outlook(sweep, sweep.family(force=force), results)


def _outlook(sweep: Sweep, family: Family, results: Path) -> Record:
    sides = {part: sweep.dev.of(part) for part in ("dev", "test")}
    return {
        "kind": "outlook",
        "verb": "sweep",
        "out": str(results),
        "checkpoints": [
            {
                "role": role,
                "source": member.text,
                "folder": str(member.folder),
                "tensors": len(member.tensors),
                "bytes": member.nbytes,
            }
            for role, member in family.members.items()
        ],
        "notes": list(family.notes),
        "cells": [cell.name for cell in sweep.cells],
        "languages": [
            {"language": code, **{part: cells_of(suite.on(side)) for part, side in sides.items()}}
            for code, suite in sweep.suites.items()
        ],
        "judge": sweep.judge or None,
        "generation": sweep.generation.as_dict(),
    }


def search_outlook(search: Search, results: Path, trials: int, *, force: bool = False) -> Record:
    """The same of a search, with its trials and how many weights each proposal sets.

    Raises:
        SafeswapError: as `sweep_outlook`.
    """
    sweep = search.sweep
    family = sweep.family(force=force)
    weights = len(search.space.parameters(tuple(family.anatomy.units)))
    record = _outlook(sweep, family, results)
    return {**record, "verb": "search", "trials": trials, "weights": weights}


def lines_of(record: Record) -> list[str]:
    """The record in words."""
    lines = [
        f"{one['role']}: {one['source']}, {one['folder']}: {one['tensors']} tensors, "
        f"{shown_bytes(one['bytes'])}"
        for one in record["checkpoints"]
    ]
    lines += [f"note: {note}" for note in record["notes"]]
    count = len(record["cells"])
    grid = f"{count} cells of the grid, and 3 models that they are made from"
    if record["verb"] == "search":
        grid = (
            f"{record['trials']} trials over {record['weights']} weights, from {count} closed-form "
            "tables and 3 models"
        )
    lines.append(f"{grid}, in each language; tables that are the same are asked once")
    for one in record["languages"]:
        lines += [f"dev: {line}" for line in cell_lines(one["dev"])]
        lines += [f"test: {line}" for line in cell_lines(one["test"])]
    lines.append(f"judge: {record['judge'] or 'none'}")
    lines.append("generation: " + ", ".join(f"{k} {v}" for k, v in record["generation"].items()))
    return [*lines, LAST]
