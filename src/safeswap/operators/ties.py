"""TIES: trim small changes, elect a sign per element, average what agrees with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safeswap.operators.base import (
    DENSITY,
    SCALE,
    Numbers,
    Operator,
    TensorContext,
    add,
    task_vectors,
)
from safeswap.operators.kernels import topk
from safeswap.operators.kernels.sign_election import elect
from safeswap.operators.kernels.topk import OrderStatistic, magnitudes
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter

NORMALIZE = Parameter("normalize", True, "divide by the sum of the weights that agree", bool)


def trimmed_count(density: float, elements: int) -> int:
    """How many elements a density keeps of a tensor: at least one."""
    return max(1, int(density * elements))


@operator
class Ties(Operator):
    """``base + λ · Σ_A w·t / Σ_A w``, where t are the task vectors trimmed to their largest
    magnitudes and A, per element, those whose ``w·t`` has the sign of ``Σ w·t``.

    Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
    arXiv 2306.01708; there density 0.2 and λ = 1. Differences: the original ranks the magnitudes of
    a whole model, this (as mergekit) those of each tensor. What ties with the k-th largest is kept,
    as in the original; mergekit keeps exactly k.
    """

    name = "ties"
    summary = "Keep the largest changes, elect a sign per element, average what agrees."
    source = "Yadav et al., NeurIPS 2023, arXiv 2306.01708"
    parameters = (DENSITY, SCALE, NORMALIZE)

    def n_passes(self, context: TensorContext) -> int:
        return 2 if float(context.settings["density"]) < 1 and context.elements else 0

    def init_state(self, context: TensorContext, state: Any) -> Numbers:
        bins = topk.UPPER if state is None else topk.LOWER
        return np.zeros((len(context.weights), bins), np.int64)

    def update(
        self,
        context: TensorContext,
        state: Any,
        base: Numbers,
        experts: Sequence[Numbers],
        total: Numbers,
    ) -> None:
        for number, vector in enumerate(task_vectors(base, experts)):
            if state is None:
                topk.count_upper(magnitudes(vector), total[number])
            else:
                topk.count_lower(state[number], magnitudes(vector), total[number])

    def finish_pass(self, context: TensorContext, state: Any, total: Numbers) -> Any:
        if state is not None:
            return [topk.find_number(one, row) for one, row in zip(state, total, strict=True)]
        rank = trimmed_count(float(context.settings["density"]), context.elements)
        sought = [OrderStatistic(number, rank) for number in range(len(context.weights))]
        return topk.find_upper(context.name, sought, total)

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = task_vectors(base, experts)
        for vector, least in zip(vectors, state or (), strict=False):
            np.multiply(vector, magnitudes(vector) >= least, out=vector)
        return add(
            base, elect(context.weights, vectors, bool(context.settings["normalize"])), context
        )
