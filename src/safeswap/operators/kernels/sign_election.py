"""The election of signs, TIES' second and third steps (arXiv 2306.01708, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safeswap.io.buffers import buffer
from safeswap.operators.base import Numbers


def elect(weights: Sequence[float], vectors: Sequence[Numbers], normalize: bool) -> Numbers:
    """Join what agrees with the sign of the sum, element by element.

    ``γ = sign(Σ w·v)`` (+ where the sum is 0, as in mergekit), and with A the vectors whose ``w·v``
    has the sign γ: ``Σ_A w·v``, divided by ``Σ_A w`` if ``normalize`` (0 where A is empty). The
    vectors are used up; the result lies in the first.
    """
    kind, size = vectors[0].dtype, len(vectors[0])
    sign, joined, divisor = (buffer(f"elect {n}", size, kind) for n in range(3))
    for number, (weight, vector) in enumerate(zip(weights, vectors, strict=True)):
        if weight != 1.0:
            np.multiply(vector, kind.type(weight), out=vector)
        np.add(sign if number else 0, vector, out=sign)
    np.copysign(kind.type(1), sign, out=sign)
    joined[:] = divisor[:] = 0
    for weight, vector in zip(weights, vectors, strict=True):
        np.multiply(vector, sign, out=vector)
        np.maximum(vector, 0, out=vector)  # what agrees, without its sign; NaN stays NaN
        np.add(joined, vector, out=joined)
        if normalize:
            np.greater(vector, 0, out=vector, casting="unsafe")
            np.multiply(vector, kind.type(weight), out=vector)
            np.add(divisor, vector, out=divisor)
    if normalize:
        np.add(divisor, divisor == 0, out=divisor)
        np.divide(joined, divisor, out=joined)
    return np.asarray(np.multiply(joined, sign, out=vectors[0]))
