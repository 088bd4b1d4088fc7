"""The exact k-th largest magnitude of a tensor read in chunks: a radix select in two passes.

The bits of a non-negative float32 number order as the number does. The first pass counts the upper
16 bits (32 768 bins) and finds the bin of the k-th largest, the second counts the lower 16 bits of
the numbers in that bin. Counts are whole numbers, so the result does not depend on the chunks; it
takes 256 KB per vector, whatever the tensor's size. Numbers of float64 are ordered as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.errors import CheckpointError
from safeswap.io.buffers import buffer

UPPER, LOWER = 1 << 15, 1 << 16
_NOT_FINITE = 0x7F80
_FEW = 1 << 12


def magnitudes(vector: NDArray[Any]) -> NDArray[np.float32]:
    """|v| as float32, in a buffer that the next call takes back."""
    found = buffer("magnitudes", len(vector), np.float32)
    with np.errstate(over="ignore"):
        np.abs(vector, out=found, casting="same_kind")
    return found


@dataclass(frozen=True, slots=True)
class OrderStatistic:
    """One k-th largest number: of which vector, which rank, and what is known of it.

    Attributes:
        rank: k, counted from 1; 0 stands for no number (infinity).
        upper: its upper 16 bits, once known; ``rank`` then counts within their bin.
    """

    vector: int
    rank: int
    upper: int | None = None


def count_upper(numbers: NDArray[np.float32], total: NDArray[np.int64]) -> None:
    """First pass: add the counts of the upper 16 bits to ``total`` (32 768 bins)."""
    upper = buffer("upper", len(numbers), np.intp)
    np.right_shift(numbers.view(np.uint32), 16, out=upper)
    total += np.bincount(upper, minlength=UPPER)


def find_upper(
    name: str, sought: Sequence[OrderStatistic], totals: NDArray[np.int64]
) -> list[OrderStatistic]:
    """After the first pass: the bin of each sought number.

    Args:
        totals: one row of counts per vector.

    Raises:
        CheckpointError: NaN or infinite weights.
    """
    if totals[:, _NOT_FINITE:UPPER].any():
        raise CheckpointError(
            f"tensor {name!r}: NaN or infinite weights cannot be ranked. Fetch the checkpoints "
            "again, or train anew."
        )
    found = []
    for one in sought:
        upper, rank = _from_above(totals[one.vector, :UPPER], one.rank)
        found.append(OrderStatistic(one.vector, rank, upper))
    return found


def count_lower(
    one: OrderStatistic, numbers: NDArray[np.float32], total: NDArray[np.int64]
) -> None:
    """Second pass: add the counts of the lower 16 bits of the numbers in the bin (65 536 bins)."""
    if one.upper is None or one.rank == 0:
        return
    bits = numbers.view(np.uint32)
    within = (bits[(bits >> np.uint32(16)) == one.upper] & np.uint32(0xFFFF)).astype(np.intp)
    if len(within) < _FEW:
        np.add.at(total, within, 1)
    else:
        total += np.bincount(within, minlength=LOWER)


def find_number(one: OrderStatistic, total: NDArray[np.int64]) -> float:
    """After the second pass: the sought number; infinity for rank 0."""
    if one.upper is None or one.rank == 0:
        return np.inf
    lower, _ = _from_above(total, one.rank)
    return float(np.array([one.upper << 16 | lower], np.uint32).view(np.float32)[0])


def _from_above(counts: NDArray[np.int64], rank: int) -> tuple[int, int]:
    """The bin of the rank-th largest number, and its rank among those in the bin."""
    if rank == 0:
        return len(counts), 0
    above = np.cumsum(counts[::-1])
    place = int(np.searchsorted(above, rank))
    before = int(above[place - 1]) if place else 0
    return len(counts) - 1 - place, rank - before
