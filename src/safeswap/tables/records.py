"""Tables as plain values, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from safeswap.tables.model import Table


def as_records(tables: Sequence[Table]) -> list[dict[str, Any]]:
    """Each table with its title, columns, rows and notes; figures unrounded, beside their texts.

    A row is its ``group`` and one cell per column with the fields of ``Cell``; what a cell lacks is
    None.
    """
    return [
        {
            "title": table.title,
            "columns": [{"name": c.name, "group": c.group} for c in table.columns],
            "rows": [
                {"group": row.group, "cells": [asdict(cell) for cell in row.cells]}
                for row in table.rows
            ],
            "notes": list(table.notes),
        }
        for table in tables
    ]
