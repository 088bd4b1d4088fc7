"""The two factors of a LoRA update as a difference of one stored tensor, and sums over them.

The update is ``ΔW = s · L · R`` over the tensor seen as a matrix of its rows: L has a row for each
of its rows, R a column for each of its columns, with the rank r between. Which of peft's ``lora_A``
(r × in) and ``lora_B`` (out × r) is L and which R depends on how W is stored: ``nn.Linear`` as
(out, in), so that L = B and R = A; ``Conv1D`` and embeddings as (in, out), so that L = Aᵀ, R = Bᵀ.
A stack of experts (``target_parameters``) has such a pair for each, rows one expert after another.

Sums are made in float64. Products are made on a grid of rows that depends on the tensor alone, so
that how it is read changes no byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.reader import Tensor
from safeswap.io.blas import one_thread

Matrix = NDArray[np.float64]

_PANEL = 1 << 19
"""Elements of a panel, the rows that are multiplied at once."""
_SUM_ROWS = 1 << 13
"""Rows of L that are summed over at once."""


@dataclass(frozen=True)
class Factors:
    """``ΔW = s · L · R`` of one tensor.

    Attributes:
        shape: of the tensor.
        a, b: ``lora_A`` (rank·experts × in) and ``lora_B`` (out × rank·experts) as stored.
        scale: s.
        rank: r.
        transposed: the tensor is stored (in, out).
        experts: how many experts the stored factors are of.
        expert: the one that the tensor is of, where each is stored by itself; None for all.
        offset: the first output that the tensor is of, where one parameter is stored as several.
        embedding: peft calls the two ``lora_embedding_A`` and ``lora_embedding_B``.
    """

    shape: tuple[int, ...]
    a: Tensor
    b: Tensor
    scale: float
    rank: int
    transposed: bool = False
    experts: int = 1
    expert: int | None = None
    offset: int = 0
    embedding: bool = False

    @property
    def blocks(self) -> int:
        """How many pairs of factors the tensor has: 1, or one for each expert that lies in it."""
        return self.experts if self.expert is None else 1

    @property
    def rows(self) -> int:
        """Rows of a block."""
        stacked = self.blocks > 1
        return self.shape[1] if stacked else self.shape[0]

    @property
    def columns(self) -> int:
        """Columns of a block."""
        return prod(self.shape[2:] if self.blocks > 1 else self.shape[1:])

    @property
    def panel_rows(self) -> int:
        """Rows that are multiplied at once."""
        return max(1, min(self.rows, _PANEL // max(1, self.columns)))

    def left(self, block: int, begin: int, end: int) -> Matrix:
        """Rows of ``s · L``, float64, (end − begin) × r."""
        number = block if self.expert is None else self.expert
        if self.transposed:
            rows = self._rows_of_a(number, begin, end)
            found = np.ascontiguousarray(rows.T)
        else:
            found = self._rows_of_b(number, self.offset + begin, self.offset + end)
        return found * self.scale

    def right(self, block: int) -> Matrix:
        """R, float64, r × columns."""
        number = block if self.expert is None else self.expert
        if self.transposed:
            outputs = self._rows_of_b(number, self.offset, self.offset + self.columns)
            return np.ascontiguousarray(outputs.T)
        return self._rows_of_a(number, 0, self.columns)

    def _rows_of_b(self, expert: int, begin: int, end: int) -> Matrix:
        """Outputs [begin, end) of ``lora_B``; of several experts, column k·E + e is e's k-th."""
        width = self.rank * self.experts
        found = _read(self.b, begin * width, end * width).reshape(end - begin, width)
        return (
            found if self.experts == 1 else np.ascontiguousarray(found[:, expert :: self.experts])
        )

    def _rows_of_a(self, expert: int, begin: int, end: int) -> Matrix:
        """Inputs [begin, end) of ``lora_A``'s rows of one expert."""
        width = prod(self.a.shape[1:])
        first = expert * self.rank
        if 4 * (end - begin) >= width:
            whole = _read(self.a, first * width, (first + self.rank) * width)
            return whole.reshape(self.rank, width)[:, begin:end]
        found = np.empty((self.rank, end - begin), np.float64)
        with self.a.reader() as reader:
            for row in range(self.rank):
                at = (first + row) * width
                reader.read_numbers(at + begin, at + end, found[row])
        return found


def _read(tensor: Tensor, begin: int, end: int) -> Matrix:
    values = np.empty(end - begin, np.float64)
    with tensor.reader() as reader:
        reader.read_numbers(begin, end, values)
    return values


def all_numbers(tensor: Tensor) -> Matrix:
    """A small tensor's numbers, flat, in float64."""
    return _read(tensor, 0, tensor.elements)


def inner(one: Factors, two: Factors) -> float:
    """⟨ΔW₁, ΔW₂⟩ of two updates of one tensor, without either: ``Σ (L₁ᵀL₂) ∘ (R₁R₂ᵀ)``.

    The square of a norm where both are the same (tr(BᵀB·AAᵀ)). Reads the factors alone; float64.
    """
    total = 0.0
    for value in inner_of_blocks(one, two):
        total += value
    return total


def inner_of_blocks(one: Factors, two: Factors) -> list[float]:
    """The same for each pair of factors by itself: for each expert that lies in the tensor."""
    found = []
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        for block in range(one.blocks):
            lefts = np.zeros((one.rank, two.rank))
            for at in range(0, one.rows, _SUM_ROWS):
                end = min(at + _SUM_ROWS, one.rows)
                first = one.left(block, at, end)
                lefts += first.T @ (first if one is two else two.left(block, at, end))
            right = one.right(block)
            rights = right @ (right if one is two else two.right(block)).T
            found.append(float((lefts * rights).sum()))
    return found


def first_bad(factors: Factors) -> tuple[Tensor, int, float] | None:
    """The first number of the factors that is none: its tensor, its place, and what it is."""
    for tensor in (factors.a, factors.b):
        values: NDArray[Any] = all_numbers(tensor)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            return tensor, int(bad[0]), float(values[bad[0]])
    return None
