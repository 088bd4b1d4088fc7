"""The members of a family as one output sees them: every table with the donor's rows.

A row that all members have is merged as the plan says. Every other row is the donor's in each of
them, so that there is no task vector in it: tokens of one member only come from it, and padding is
as the donor has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from blake3 import blake3

from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.vocabularies.align import Alignment
from safeswap.checkpoint.vocabularies.rows import MappedTensor, Rows, rows_of
from safeswap.checkpoint.vocabularies.special import disagreements
from safeswap.errors import listed


@dataclass(frozen=True, slots=True)
class RowsRecord:
    """What became of the rows of one table.

    Attributes:
        rows: how many the output has: as many as the donor.
        merged: those whose token all members have.
        donor: those whose token not all have: the donor's.
        padding: those that are no token: the donor's too.
        digest: BLAKE3 (hex) of the row of each member for each row of the output, as 64-bit
            little-endian integers, members in the order of their roles' names; -1 for no row.
    """

    rows: int
    merged: int
    donor: int
    padding: int
    digest: str

    def as_dict(self) -> dict[str, int | str]:
        """The record as plain JSON values."""
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True, slots=True)
class OutputRows:
    """The rows of an output; all empty where none had to be matched.

    Attributes:
        tables: tensor with a row per token → what became of its rows.
        dropped: role → how many of its tokens the output has no id for.
        disagree: what in the donor's own files does not go together.
        donor: the role that they follow.
    """

    tables: Mapping[str, RowsRecord] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    disagree: tuple[str, ...] = ()
    donor: str = ""

    def said(self) -> list[str]:
        """The same in words, for a card and a terminal; no paths are in them."""
        alike: dict[tuple[int, int, int], list[str]] = {}
        for name, record in self.tables.items():
            alike.setdefault((record.merged, record.donor, record.padding), []).append(name)
        lines = [
            f"rows by token in {listed(names, 4)}: {merged} merged, {own} from {self.donor} alone "
            f"(not all have their tokens), {padding} padding as in {self.donor}"
            for (merged, own, padding), names in alike.items()
        ]
        lines += [
            f"{count} tokens of {role} have no id in {self.donor}'s tokenizer, and no row"
            for role, count in self.dropped.items()
            if count
        ]
        return [*lines, *self.disagree]


def map_rows(
    alignment: Alignment, tensors: Mapping[str, dict[str, Tensor]], donor: str, folder: Path
) -> OutputRows:
    """Exchange the tables of all members for such with the donor's rows, in place.

    Args:
        tensors: role → family name → tensor, of the members that take part.
        donor: one of them.
        folder: the donor's.

    Returns:
        What became of the rows; nothing where the rows of these members mean the same.
    """
    roles = tuple(tensors)
    given = {n: {role: tensors[role][n] for role in roles} for n in sorted(alignment.tables)}
    if all(alignment.alike(roles, tables) for tables in given.values()):
        return OutputRows()
    records = {}
    for name, tables in given.items():
        rows = alignment.rows(donor, roles, tables)
        for role in roles:
            if role != donor:
                tensors[role][name] = MappedTensor(tables[role], tables[donor], rows[role])
        records[name] = _record(rows, donor, _n_tokens(alignment, donor, tables[donor]))
    return OutputRows(
        records,
        {role: alignment.n_dropped(role, donor) for role in roles},
        tuple(
            disagreements(
                folder, alignment.tokens[donor], max(record.rows for record in records.values())
            )
        ),
        donor,
    )


def _n_tokens(alignment: Alignment, donor: str, table: Tensor) -> int:
    """How many rows of the donor's table are a token."""
    height = rows_of(table.shape)
    return len({row for row in alignment.tokens[donor].values() if 0 <= row < height})


def _record(rows: Mapping[str, Rows], donor: str, tokens: int) -> RowsRecord:
    total = len(rows[donor])
    merged = int(np.count_nonzero(rows[donor] >= 0))
    hashing = blake3()
    for role in sorted(rows):
        hashing.update(np.ascontiguousarray(rows[role], "<i8").tobytes())
    return RowsRecord(total, merged, tokens - merged, total - tokens, hashing.hexdigest())
