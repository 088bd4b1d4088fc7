"""The Karcher mean: the point of the sphere that is nearest to all experts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from safeswap.operators.base import TensorContext
from safeswap.operators.kernels.inner_products import Gram, GramOperator, parts
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter


@operator
class Karcher(GramOperator):
    """``(Σ p_e ‖W_e‖) · m``, with p the weights as parts of a whole and m the mean of the
    directions ``W_e/‖W_e‖`` on the unit sphere, found by steps ``m ← exp_m(Σ p_e
    log_m(W_e/‖W_e‖))``.

    Wang, Ye & Yin, "Functionality-Oriented LLM Merging on the Fisher–Rao Manifold",
    arXiv 2603.04972 (at most 10 steps, tolerance 1e-5), in mergekit as ``karcher`` with equal
    weights. All steps stay in the span of the experts, so their inner products are enough; the base
    is not read. Two experts give ``slerp`` without its linear part, with the mean of the norms.
    """

    name = "karcher"
    summary = "The mean of the experts' directions on the sphere, times the mean of their norms."
    source = "Wang, Ye & Yin, arXiv 2603.04972"
    parameters = (
        Parameter("max_iter", 10, "greatest number of steps", int, 1, 10_000),
        Parameter("tol", 1e-5, "length of a step that is small enough", float, 0, 1, open_low=True),
    )
    positive = True
    reads_base = False
    of_task_vectors = False

    def coefficients(self, context: TensorContext, gram: Gram) -> list[float]:
        shares, norms = np.array(parts(context)), np.sqrt(np.diagonal(gram))
        tol = float(context.settings["tol"])
        used = norms > tol
        if not used.any():
            return [0.0] * len(norms)
        units = gram[np.ix_(used, used)] / np.outer(norms[used], norms[used])
        mean = _mean(
            units, shares[used] / shares[used].sum(), int(context.settings["max_iter"]), tol
        )
        found = np.zeros(len(norms))
        found[used] = mean / norms[used] * float(shares @ norms)
        return [float(value) for value in found]


def _mean(units: Gram, shares: Gram, steps: int, tol: float) -> NDArray[np.float64]:
    """The mean's coefficients in the unit vectors whose inner products are ``units``."""
    mean = shares.copy()
    length = _length(units, mean)
    if length < tol:
        mean = np.zeros_like(shares)
        mean[0] = length = 1.0
    mean /= length
    for _ in range(steps):
        tangent = np.zeros_like(mean)
        for number, dot in enumerate(np.clip(units @ mean, -1.0, 1.0)):
            angle = math.acos(dot)
            if angle < tol:
                continue
            step = shares[number] * angle / math.sin(angle)
            tangent -= step * dot * mean
            tangent[number] += step
        length = _length(units, tangent)
        if length < tol:
            break
        mean = math.cos(length) * mean + math.sin(length) / length * tangent
        mean /= _length(units, mean)
    return mean


def _length(units: Gram, vector: NDArray[np.float64]) -> float:
    return math.sqrt(max(0.0, float(vector @ units @ vector)))
