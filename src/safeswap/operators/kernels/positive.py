"""Systems with a symmetric positive definite matrix, in float64 and in place, half of it held.

numpy factors a copy of the whole matrix and has no solver for triangles. Here only the lower
triangle is kept, in strips of rows; blocks of the diagonal are factored and solved by numpy, and
the rest is multiplied. A system of n equations takes 4 n² bytes (n² float64 would take 8 n²), and
nothing of its size is held besides.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Wide = NDArray[np.float64]
STRIP = 256
"""Rows of a strip, and the side of the blocks of the diagonal."""


class Triangle:
    """The lower triangle of a symmetric float64 matrix [side, side], and then its factor's."""

    def __init__(self, side: int) -> None:
        """All zero."""
        self.side = side
        self._strips = [np.zeros((end - begin, end)) for begin, end in _strips(side)]

    def add(self, begin: int, rows: NDArray[np.floating], factor: float = 1.0) -> None:
        """Add ``factor`` times whole rows of a symmetric matrix; what is right of the diagonal
        blocks is not looked at.

        Args:
            begin: the first row's number.
            rows: float32 or float64 [count, side].
        """
        at = 0
        while at < len(rows):
            number, inside = divmod(begin + at, STRIP)
            strip = self._strips[number]
            count = min(len(strip) - inside, len(rows) - at)
            part = rows[at : at + count, : strip.shape[1]].astype(np.float64)
            part *= factor
            strip[inside : inside + count] += part
            at += count

    @property
    def trace(self) -> float:
        """The sum of the diagonal."""
        return float(sum(self._diagonal(number).sum() for number in range(len(self._strips))))

    def add_to_diagonal(self, value: float) -> None:
        """Add a number to every element of the diagonal."""
        for number in range(len(self._strips)):
            self._diagonal(number)[:] += value

    def any(self) -> bool:
        """Whether any element is not 0."""
        return any(strip.any() for strip in self._strips)

    def factor(self) -> None:
        """Become L with ``L Lᵀ`` = the matrix; it is no longer what it was.

        Raises:
            numpy.linalg.LinAlgError: it is not positive definite.
        """
        for number, (begin, end) in enumerate(_strips(self.side)):
            lower = np.linalg.cholesky(self._strips[number][:, begin:end])
            self._strips[number][:, begin:end] = lower
            for strip in self._strips[number + 1 :]:
                panel = strip[:, begin:end]
                panel[:] = np.linalg.solve(lower, panel.T).T
            below = self._column(number)
            at = end
            for strip in self._strips[number + 1 :]:  # a strip at a time, its lower part alone
                to = at + len(strip)
                strip[:, end:to] -= np.matmul(strip[:, begin:end], below[: to - end].T)
                at = to

    def solve(self, known: Wide) -> Wide:
        """``known · (L Lᵀ)⁻¹`` after :meth:`factor`, in the place of ``known``.

        Args:
            known: float64 [rows, side].
        """
        return self.solve_back(self.solve_forth(known))

    def solve_forth(self, known: Wide) -> Wide:
        """``known · L⁻ᵀ``, likewise: every row becomes ``L⁻¹`` times it."""
        columns = known.T
        for strip, (begin, end) in zip(self._strips, _strips(self.side), strict=True):
            columns[begin:end] -= np.matmul(strip[:, :begin], columns[:begin])
            columns[begin:end] = np.linalg.solve(strip[:, begin:end], columns[begin:end])
        return known

    def solve_back(self, known: Wide) -> Wide:
        """``known · L⁻¹``, likewise: every row becomes ``L⁻ᵀ`` times it."""
        columns = known.T
        for number, (begin, end) in reversed(list(enumerate(_strips(self.side)))):
            columns[begin:end] -= np.matmul(self._column(number).T, columns[end:])
            corner = self._strips[number][:, begin:end]
            columns[begin:end] = np.linalg.solve(corner.T, columns[begin:end])
        return known

    def _column(self, number: int) -> Wide:
        """A copy of what stands below a block of the diagonal, float64 [rows below, its side]."""
        begin, end = number * STRIP, min((number + 1) * STRIP, self.side)
        below = [strip[:, begin:end] for strip in self._strips[number + 1 :]]
        return np.concatenate(below) if below else np.empty((0, end - begin))

    def _diagonal(self, number: int) -> Wide:
        """A view of a strip's elements of the diagonal."""
        strip = self._strips[number]
        diagonal: Wide = np.einsum("ii->i", strip[:, number * STRIP :])
        return diagonal


def _strips(side: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, side, STRIP):
        yield begin, min(begin + STRIP, side)
