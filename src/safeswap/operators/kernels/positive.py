"""Systems with a symmetric positive definite matrix, in float64 and in place.

numpy factors a copy of the whole matrix and has no solver for triangles. Here blocks of the
diagonal are factored and solved by numpy, and the rest is multiplied: a second matrix of the
system's size is never held.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]
_BLOCK = 256
"""Side of the blocks of the diagonal."""


def factor(system: Wide) -> Wide:
    """The lower triangle L with ``L Lᵀ = system``, in the system's own place; what stands above
    the diagonal blocks is left as it was and means nothing.

    Args:
        system: float64 [n, n], symmetric.

    Raises:
        numpy.linalg.LinAlgError: it is not positive definite.
    """
    side = len(system)
    for begin in range(0, side, _BLOCK):
        end = min(begin + _BLOCK, side)
        lower = np.linalg.cholesky(system[begin:end, begin:end])
        system[begin:end, begin:end] = lower
        for at in range(end, side, _BLOCK):
            to = min(at + _BLOCK, side)
            panel = system[at:to, begin:end]
            panel[:] = np.linalg.solve(lower, panel.T).T
        below = system[end:, begin:end]
        for at in range(end, side, _BLOCK):  # the lower triangle only, a strip at a time
            to = min(at + _BLOCK, side)
            system[at:to, end:to] -= np.matmul(system[at:to, begin:end], below[: to - end].T)
    return system


def solve(lower: Wide, known: Wide) -> Wide:
    """``known · (L Lᵀ)⁻¹``, in the place of ``known``.

    Args:
        lower: what :func:`factor` gave, float64 [n, n].
        known: float64 [rows, n].
    """
    side = len(lower)
    columns = known.T
    for begin in range(0, side, _BLOCK):
        end = min(begin + _BLOCK, side)
        columns[begin:end] -= np.matmul(lower[begin:end, :begin], columns[:begin])
        columns[begin:end] = np.linalg.solve(lower[begin:end, begin:end], columns[begin:end])
    for begin in reversed(range(0, side, _BLOCK)):
        end = min(begin + _BLOCK, side)
        columns[begin:end] -= np.matmul(lower[end:, begin:end].T, columns[end:])
        columns[begin:end] = np.linalg.solve(lower[begin:end, begin:end].T, columns[begin:end])
    return known
