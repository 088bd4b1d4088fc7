"""Operators that factorize a weight matrix: they take it whole, and join other tensors linearly.

Memory per worker: the matrices of the base and of every expert in float32 (float64 for 32-bit
checkpoints), and what the factorization adds (stated by each operator). Embeddings, outputs, norms
and biases are not factorized: they get the mean of the task vectors, as in the papers.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from safeswap.operators.base import Numbers, Operator, TensorContext, task_vectors, weighted_sum
from safeswap.operators.kernels.inner_products import parts
from safeswap.operators.ties import add


class MatrixOperator(Operator):
    """``base + λ · f(w_1 t_1, w_2 t_2, …)`` for weight matrices of attention and MLP, and
    ``base + λ · Σ w·t / Σ w`` for all other tensors."""

    positive = True

    def factorize(self, task: TensorContext, matrices: Sequence[Numbers]) -> Numbers:
        """The joined task vector from the weighted task vectors, all of the tensor's shape."""
        raise NotImplementedError

    def whole(self, task: TensorContext) -> bool:
        return task.is_matrix

    def merge(
        self, task: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = task_vectors(base, experts)
        if not task.is_matrix:
            return add(base, weighted_sum(parts(task), vectors), task)
        for weight, vector in zip(task.weights, vectors, strict=True):
            np.multiply(vector, vector.dtype.type(weight), out=vector)
        joined = self.factorize(task, [vector.reshape(task.shape) for vector in vectors])
        return add(base, joined.reshape(-1), task)


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


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS use one thread: the workers are ours, and sums must not depend on their number.

    It works for the OpenBLAS of numpy's wheels; with another BLAS set its number of threads by hand
    (e.g. ``MKL_NUM_THREADS=1``), or the last digits may differ between machines.
    """
    library = _openblas()
    before = library[0]() if library else None
    if library:
        library[1](1)
    try:
        yield
    finally:
        if library and before is not None:
            library[1](before)


def _openblas() -> tuple[Any, Any] | None:
    # numpy's own module: the symbols of the BLAS that it was linked with are found through it
    module = importlib.import_module("numpy._core._multiarray_umath")
    loaded = ctypes.CDLL(str(module.__file__))
    for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
        try:
            get = getattr(loaded, f"{prefix}openblas_get_num_threads{suffix}")
            return get, getattr(loaded, f"{prefix}openblas_set_num_threads{suffix}")
        except AttributeError:
            continue
    return None
