"""Products and sums in float64 of matrices that are float32, without a float64 copy of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safeswap.operators.kernels.positive import Wide

Matrix = NDArray[np.floating]
_BYTES = 1 << 25
"""Of a matrix, how much is widened at once."""


def add_product(total: Wide, left: Matrix, rows: Matrix, factor: float = 1.0) -> None:
    """Add ``factor · left · rowsᵀ`` to a total, in float64.

    Args:
        total: float64 [m, k], such as some columns of a larger matrix.
        left: [m, n].
        rows: [k, n].
    """
    wide = rows.astype(np.float64)
    wide *= factor
    for begin, end in _runs(left):
        total[begin:end] += np.matmul(left[begin:end].astype(np.float64), wide.T)


def add_into(total: Matrix, more: Matrix, factor: float = 1.0) -> None:
    """Add ``factor · more`` to a total of the same shape: each term in float64, rounded once to
    the total's type, and added there.
    """
    for begin, end in _runs(more):
        term = more[begin:end].astype(np.float64)
        term *= factor
        total[begin:end] += term.astype(total.dtype)


def _runs(matrix: Matrix) -> list[tuple[int, int]]:
    """Cut a matrix into runs of rows."""
    count = max(1, _BYTES // max(1, 8 * matrix.shape[1]))
    return [(at, min(at + count, len(matrix))) for at in range(0, len(matrix), count)]
