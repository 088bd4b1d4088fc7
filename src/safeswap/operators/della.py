"""DELLA: drop changes at random, small ones more often than large ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.errors import PlanError
from safeswap.operators.base import SCALE, SEED, Numbers, Operator, TensorContext, add, task_vectors
from safeswap.operators.kernels.random_masks import draw, kept
from safeswap.operators.kernels.sign_election import elect
from safeswap.operators.kernels.topk import magnitudes
from safeswap.operators.registry import operator
from safeswap.operators.ties import NORMALIZE
from safeswap.parameters import Parameter, Value


@operator
class Della(Operator):
    """TIES with MagPrune in the place of trimming: in each row of n elements, the one of rank r by
    magnitude (0 the smallest) is kept with chance ``q = density − ε + 2ε · r/(n − 1)`` and then
    divided by q.

    Deep, Bhardwaj & Poria, "DELLA-Merging: Reducing Interference in Model Merging through
    Magnitude-Based Sampling", arXiv 2406.11617; the authors' example drops 0.3, with a window of
    0.14 (ε = 0.07) and λ = 1.1. mergekit's ``della`` has density 1.0 (drops nothing) and ε = 0.15
    by default, and restores each tensor's sum of magnitudes instead of dividing by q. A row of one
    element has the chance ``density``; equal magnitudes are ranked by their place.
    """

    name = "della"
    summary = "Drop small changes more often than large ones, rescale, elect signs, average."
    source = "Deep, Bhardwaj & Poria, arXiv 2406.11617"
    parameters = (
        Parameter("density", 0.7, "mean chance that a change is kept", float, 0, 1, open_low=True),
        Parameter("epsilon", 0.07, "half the width of the window of chances", float, 0, 0.5),
        SEED,
        SCALE,
        NORMALIZE,
    )

    def check(self, settings: Mapping[str, Value], where: str) -> None:
        density, epsilon = float(settings["density"]), float(settings["epsilon"])
        if density < 1 and (density - epsilon <= 0 or density + epsilon > 1):
            raise PlanError(
                f"{where}: della: density {density:g} ± epsilon {epsilon:g} are chances and must "
                "lie in (0, 1]. Use a smaller epsilon."
            )

    def grain(self, context: TensorContext) -> int:
        return context.row

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = task_vectors(base, experts)
        if float(context.settings["density"]) < 1:
            for place, vector in zip(context.places, vectors, strict=True):
                self._prune(context, place, vector, at)
        return add(
            base, elect(context.weights, vectors, bool(context.settings["normalize"])), context
        )

    def _prune(self, context: TensorContext, place: int, vector: Numbers, at: int) -> None:
        density, epsilon = float(context.settings["density"]), float(context.settings["epsilon"])
        rising = np.linspace(density - epsilon, density + epsilon, context.row)
        chances = rising if context.row > 1 else np.array([density])
        chance = _by_rank(magnitudes(vector).reshape(-1, context.row), chances).reshape(-1)
        bits = draw(int(context.settings["seed"]), context.name, place, at, len(vector))
        np.multiply(vector, kept(bits, chance), out=vector)
        np.divide(vector, chance, out=vector, casting="same_kind")


def _by_rank(rows: NDArray[np.float32], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each element the value of its rank in its row.

    Magnitude and column are sorted as one 64-bit number: keys differ, so any sort gives one order.
    """
    columns = np.arange(rows.shape[1], dtype=np.uint64)
    keys = rows.view(np.uint32).astype(np.uint64) << np.uint64(32) | columns
    keys.sort(axis=1)
    order = (keys & np.uint64(0xFFFFFFFF)).astype(np.intp)
    found = np.empty(rows.shape)
    np.put_along_axis(found, order, values[np.newaxis], axis=1)
    return found
