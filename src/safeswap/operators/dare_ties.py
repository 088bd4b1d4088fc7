"""DARE in the place of TIES' trimming."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from safeswap.operators.base import SCALE, SEED, Numbers, Operator, TensorContext, add, task_vectors
from safeswap.operators.dare import DROP, dropped
from safeswap.operators.kernels.sign_election import elect
from safeswap.operators.registry import operator
from safeswap.operators.ties import NORMALIZE


@operator
class DareTies(Operator):
    """``base + λ · Σ_A w·d / Σ_A w`` with ``d = m·t / (1 − p)`` (see ``Dare``) and A, per element,
    the experts whose ``w·d`` has the sign of ``Σ w·d`` (see ``Ties``).

    Yu et al., ICML 2024, arXiv 2311.03099, with Yadav et al., NeurIPS 2023, arXiv 2306.01708.
    mergekit's ``dare_ties`` does not divide by ``Σ_A w`` by default, drops nothing by default, and
    restores the sum of magnitudes instead of dividing by 1 − p.
    """

    name = "dare-ties"
    summary = "Drop changes at random and rescale (DARE), then elect signs and average (TIES)."
    source = "Yu et al., ICML 2024, arXiv 2311.03099; Yadav et al., NeurIPS 2023, arXiv 2306.01708"
    parameters = (DROP, SEED, SCALE, NORMALIZE)

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = dropped(context, task_vectors(base, experts), at)
        return add(
            base, elect(context.weights, vectors, bool(context.settings["normalize"])), context
        )
