"""Task singular vectors: keep each expert's main directions, and make them orthogonal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safeswap.operators.base import SCALE, Numbers, TensorContext
from safeswap.operators.kernels.factorize import MatrixOperator, nearest_orthogonal, svd
from safeswap.operators.registry import operator


@operator
class Tsv(MatrixOperator):
    """``base + λ · U⊥ S V⊥ᵀ``: of every expert's ``w·t = U_e S_e V_eᵀ`` the first r/N singular
    vectors (r = the shorter side, N = number of experts) stand side by side in U, S and V, and U⊥,
    V⊥ are the nearest matrices with orthonormal columns.

    Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging", CVPR
    2025, arXiv 2412.00081 (TSV-M; weights 1 and λ = 1 give its formula). Not in mergekit 0.1.5.
    Added memory: about four more matrices. Time: N + 2 SVDs per matrix.
    """

    name = "tsv"
    summary = "Each expert's main singular directions, made orthogonal to one another."
    source = "Gargiulo et al., CVPR 2025, arXiv 2412.00081"
    parameters = (SCALE,)

    def factorize(self, context: TensorContext, matrices: Sequence[Numbers]) -> Numbers:
        kept = min(context.shape) // len(matrices)
        left, values, right = [], [], []
        for matrix in matrices:
            u, s, v = svd(matrix)
            left.append(u[:, :kept].copy())  # a copy, so that the rest can go
            values.append(s[:kept].copy())
            right.append(v[:kept].copy())
        along = nearest_orthogonal(np.concatenate(left, axis=1))
        across = nearest_orthogonal(np.concatenate(right, axis=0))
        return np.asarray(np.matmul(along * np.concatenate(values), across))
