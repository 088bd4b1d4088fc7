"""Operators that factorize a weight matrix: they take it whole, and join other tensors linearly.

Memory per worker: the matrices of the base and of every expert in float32 (float64 for 32-bit
checkpoints), and what the factorization adds (stated by each operator). Embeddings, outputs, norms
and biases are not factorized: they get the mean of the task vectors, as in the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safeswap.operators.base import (
    Numbers,
    Operator,
    TensorContext,
    add,
    task_vectors,
    weighted_sum,
)
from safeswap.operators.kernels.inner_products import parts


class MatrixOperator(Operator):
    """``base + λ · f(w_1 t_1, w_2 t_2, …)`` for weight matrices of attention and MLP, and
    ``base + λ · Σ w·t / Σ w`` for all other tensors.
    """

    positive = True

    def factorize(self, context: TensorContext, matrices: Sequence[Numbers]) -> Numbers:
        """The joined task vector from the weighted task vectors, all of the tensor's shape."""
        raise NotImplementedError

    def whole(self, context: TensorContext) -> bool:
        return context.is_matrix

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = task_vectors(base, experts)
        if not context.is_matrix:
            return add(base, weighted_sum(parts(context), vectors), context)
        for weight, vector in zip(context.weights, vectors, strict=True):
            np.multiply(vector, vector.dtype.type(weight), out=vector)
        joined = self.factorize(context, [vector.reshape(context.shape) for vector in vectors])
        return add(base, joined.reshape(-1), context)


def svd(matrix: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The thin singular value decomposition (LAPACK gesdd): U, the values, Vᵀ."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def nearest_orthogonal(matrix: Numbers) -> Numbers:
    """``P Qᵀ`` of ``matrix = P D Qᵀ``: the nearest matrix with orthonormal columns (Procrustes).

    Directions with ``d ≤ max(m, n) · ε · d_max`` are left out: they have no nearest one. Where
    experts are equal, this makes the result theirs.
    """
    left, values, right = svd(matrix)
    if not len(values) or not values[0]:
        return np.zeros_like(matrix)
    least = values[0] * max(matrix.shape) * np.finfo(matrix.dtype).eps
    rank = int((values > least).sum())
    return np.asarray(np.matmul(left[:, :rank], right[:rank]))
