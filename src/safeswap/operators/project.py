"""Safe LoRA's projection: of the language's update only what lies along the safety expert's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safeswap.errors import PlanError
from safeswap.operators.base import (
    Numbers,
    Operator,
    TensorContext,
    add,
    task_vectors,
    weighted_sum,
)
from safeswap.operators.registry import operator


@operator
class Project(Operator):
    """``base + w_s · V + Σ w_e · C t_e`` with V the safety expert's task vector (the first
    expert's) and ``C = V Vᵀ / ‖V‖_F``, for matrices and (as columns) vectors of the layers; other
    tensors are joined linearly. Where V is 0, C is 0.

    Hsu et al., "Safe LoRA: the Silver Lining of Reducing Safety Risks when Fine-tuning Large
    Language Models", NeurIPS 2024, arXiv 2405.16833. Its C approximates the projection onto the
    columns of V and does not preserve sizes: doubling V doubles C. There the update belongs to the
    aligned model: weights (1, 1) are its rule, (0, 1) adds the projected update to the base. It
    reads the safety expert also at weight 0. Not in mergekit 0.1.5. Added memory: one square matrix
    of the shorter side, and one more matrix.
    """

    name = "project"
    summary = "The other experts' updates, projected onto the safety expert's (Safe LoRA)."
    source = "Hsu et al., NeurIPS 2024, arXiv 2405.16833"
    reads_all = True

    def check_weights(self, weights: Mapping[str, float], where: str) -> None:
        if len(weights) < 2:
            raise PlanError(
                f"{where}: operator project needs the safety expert and one more. Choose another."
            )

    def whole(self, context: TensorContext) -> bool:
        return context.inside and len(context.shape) in (1, 2) and context.elements > 0

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = list(task_vectors(base, experts))
        if self.whole(context):
            shape = context.shape if len(context.shape) == 2 else (context.elements, 1)
            safety = vectors[0].reshape(shape)
            norm = float(np.linalg.norm(safety))
            for number in range(1, len(vectors)):
                update = vectors[number].reshape(shape)
                vectors[number] = _projected(safety, norm, update).reshape(-1)
        return add(base, weighted_sum(context.weights, vectors), context)


def _projected(safety: Numbers, norm: float, update: Numbers) -> Numbers:
    """``V Vᵀ t / ‖V‖``, in the order that needs the smaller square matrix."""
    if not norm:
        return np.zeros_like(update)
    rows, columns = safety.shape
    if rows <= columns:
        found = np.matmul(np.matmul(safety, safety.T), update)
    else:
        found = np.matmul(safety, np.matmul(safety.T, update))
    return np.asarray(np.divide(found, found.dtype.type(norm), out=found))
