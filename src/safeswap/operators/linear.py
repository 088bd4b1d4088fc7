"""``base + Σ w · (expert − base)``, reduced to what has to be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safeswap.operators.base import Numbers, Operator, TensorContext, task_vectors, weighted_sum
from safeswap.operators.registry import operator


@operator
class Linear(Operator):
    """``base + Σ w · t``, with t the task vectors.

    Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089; with weights
    that sum to 1 the soup of Wortsman et al., ICML 2022, arXiv 2203.05482. The merge does not call
    a step for it: weights that sum to 1 need no base, and one expert at weight 1 is a copy of
    bytes.
    """

    name = "linear"
    summary = "The weighted sum of the task vectors (task arithmetic, soup, swap)."
    source = "Ilharco et al., ICLR 2023, arXiv 2212.04089"
    experts = (0, None)

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        joined = weighted_sum(context.weights, task_vectors(base, experts))
        return np.add(base, joined, out=joined)
