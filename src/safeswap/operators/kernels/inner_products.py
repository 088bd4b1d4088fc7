"""Operators that are linear once the experts' inner products are known: one pass, then a sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.numerics import inner_product
from safeswap.operators.base import Numbers, Operator, TensorContext, task_vectors, weighted_sum

Gram = NDArray[np.float64]


class GramOperator(Operator):
    """``Σ c_e · v_e``, with v the experts (or their task vectors, added to the base) and c from
    their inner products, summed in float64.

    Attributes:
        of_task_vectors: whether v are task vectors.
    """

    of_task_vectors: bool

    def coefficients(self, context: TensorContext, gram: Gram) -> list[float]:
        """Coefficients c from the inner products ``⟨v_i, v_j⟩``, float64 [experts, experts]."""
        raise NotImplementedError

    def n_passes(self, context: TensorContext) -> int:
        return 1 if context.elements else 0

    def init_state(self, context: TensorContext, state: Any) -> Numbers:
        return np.zeros((len(context.weights), len(context.weights)))

    def update(
        self,
        context: TensorContext,
        state: Any,
        base: Numbers,
        experts: Sequence[Numbers],
        total: Numbers,
    ) -> None:
        vectors = task_vectors(base, experts) if self.of_task_vectors else experts
        for i, left in enumerate(vectors):
            for j in range(i, len(vectors)):
                total[i, j] += inner_product(left, vectors[j])

    def finish_pass(self, context: TensorContext, state: Any, total: Numbers) -> Any:
        return self.coefficients(context, np.triu(total) + np.triu(total, 1).T)

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        if not self.of_task_vectors:
            return weighted_sum(state, experts)
        joined = weighted_sum(state, task_vectors(base, experts))
        return np.add(base, joined, out=joined)


def cosine(gram: Gram, i: int, j: int) -> float:
    """The cosine of two vectors; 0 where one of them is 0."""
    product = math.sqrt(gram[i, i]) * math.sqrt(gram[j, j])
    return min(1.0, max(-1.0, float(gram[i, j]) / product)) if product else 0.0


def arc(t: float, angle: float) -> list[float]:
    """Spherical interpolation's coefficients: ``sin((1 − t)θ)/sin θ`` and ``sin(tθ)/sin θ``."""
    return [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]


def parts(context: TensorContext) -> list[float]:
    """The weights as parts of a whole."""
    return [weight / sum(context.weights) for weight in context.weights]
