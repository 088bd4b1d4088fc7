"""Model breadcrumbs: drop the smallest changes, and the very largest too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safeswap.operators.base import Numbers, Operator, TensorContext, task_vectors, weighted_sum
from safeswap.operators.kernels import topk
from safeswap.operators.kernels.topk import OrderStatistic, magnitudes
from safeswap.operators.registry import operator
from safeswap.operators.ties import trimmed_count
from safeswap.parameters import Parameter


@operator
class Breadcrumbs(Operator):
    """``base + Σ w · m·t``, where m keeps the ``density`` · n magnitudes below the ``gamma`` · n
    largest.

    Davari & Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
    ECCV 2024, arXiv 2312.06795; the authors' search starts at density 0.15, gamma 0.006 and a
    weight of 0.2. Their code ranks within rows, this (as mergekit) within a tensor. mergekit's
    ``breadcrumbs`` has density 1.0 (drops nothing) and gamma 0.01 by default. Where density + gamma
    is above 1, fewer of the largest are dropped. What ties with a limit is kept.
    """

    name = "breadcrumbs"
    summary = "Drop the smallest changes and the very largest, add the rest."
    source = "Davari & Belilovsky, ECCV 2024, arXiv 2312.06795"
    parameters = (
        Parameter(
            "density", 0.15, "part of each task vector that is kept", float, 0, 1, open_low=True
        ),
        Parameter("gamma", 0.006, "part that is dropped as outliers", float, 0, 1, open_high=True),
    )

    def n_passes(self, context: TensorContext) -> int:
        return 2 if float(context.settings["density"]) < 1 and context.elements else 0

    def init_state(self, context: TensorContext, state: Any) -> Numbers:
        if state is None:
            return np.zeros((len(context.weights), topk.UPPER), np.int64)
        return np.zeros((len(state), topk.LOWER), np.int64)

    def update(
        self,
        context: TensorContext,
        state: Any,
        base: Numbers,
        experts: Sequence[Numbers],
        total: Numbers,
    ) -> None:
        for number, vector in enumerate(task_vectors(base, experts)):
            size = magnitudes(vector)
            if state is None:
                topk.count_upper(size, total[number])
                continue
            for one, row in zip(state, total, strict=True):
                if one.vector == number:
                    topk.count_lower(one, size, row)

    def finish_pass(self, context: TensorContext, state: Any, total: Numbers) -> Any:
        if state is None:
            kept = trimmed_count(float(context.settings["density"]), context.elements)
            outliers = min(
                int(float(context.settings["gamma"]) * context.elements), context.elements - kept
            )
            ranks = (outliers + 1, outliers + kept)
            sought = [
                OrderStatistic(n, rank) for n in range(len(context.weights)) for rank in ranks
            ]
            return topk.find_upper(context.name, sought, total)
        numbers = [topk.find_number(one, row) for one, row in zip(state, total, strict=True)]
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = task_vectors(base, experts)
        for vector, (most, least) in zip(vectors, state or (), strict=False):
            size = magnitudes(vector)
            np.multiply(vector, (size >= least) & (size <= most), out=vector)
        joined = weighted_sum(context.weights, vectors)
        return np.add(base, joined, out=joined)
