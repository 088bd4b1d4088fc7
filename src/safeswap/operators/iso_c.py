"""Isotropic merging: the sum of the task vectors, with all singular values made equal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safeswap.operators.base import SCALE, Numbers, TensorContext, weighted_sum
from safeswap.operators.kernels.factorize import MatrixOperator, svd
from safeswap.operators.registry import operator


@operator
class IsoC(MatrixOperator):
    """``base + λ · σ̄ · U Vᵀ`` with ``Σ w·t = U S Vᵀ`` and σ̄ the mean of the singular values.

    Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
    Subspaces", ICML 2025, arXiv 2502.04959 (Iso-C; weights 1 give its formula, the paper tunes λ on
    validation data). Not in mergekit 0.1.5. Added memory: about three more matrices. Time: one SVD
    per matrix.
    """

    name = "iso-c"
    summary = "The sum of the task vectors with all singular values made equal."
    source = "Marczak et al., ICML 2025, arXiv 2502.04959"
    parameters = (SCALE,)

    def factorize(self, context: TensorContext, matrices: Sequence[Numbers]) -> Numbers:
        left, values, right = svd(weighted_sum([1.0] * len(matrices), matrices))
        return np.asarray(np.matmul(left * values.mean(), right))
