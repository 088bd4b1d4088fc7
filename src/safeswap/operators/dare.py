"""DARE: drop changes at random and rescale the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safeswap.operators.base import (
    SEED,
    Numbers,
    Operator,
    TensorContext,
    task_vectors,
    weighted_sum,
)
from safeswap.operators.kernels.random_masks import draw, kept
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter

DROP = Parameter(
    "drop", 0.9, "chance that an element's change is dropped", float, 0, 1, open_high=True
)


def dropped(context: TensorContext, vectors: Sequence[Numbers], at: int) -> Sequence[Numbers]:
    """``m · t / (1 − p)`` with m = 0 at chance p, in place; masks differ between experts."""
    drop, seed = float(context.settings["drop"]), int(context.settings["seed"])
    if drop == 0.0:
        return vectors
    for place, vector in zip(context.places, vectors, strict=True):
        bits = draw(seed, context.name, place, at, len(vector))
        np.multiply(vector, kept(bits, 1.0 - drop), out=vector)
        np.multiply(vector, vector.dtype.type(1.0 / (1.0 - drop)), out=vector)
    return vectors


@operator
class Dare(Operator):
    """``base + Σ w · m·t / (1 − p)``, where each element of m is 0 with chance p, else 1.

    Yu et al., "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a
    Free Lunch", ICML 2024, arXiv 2311.03099; its title result drops 90 % (p = 0.9). mergekit's
    ``dare_linear`` has a density of 1.0 by default (drops nothing) and restores the sum of
    magnitudes that the mask took, instead of dividing by 1 − p.
    """

    name = "dare"
    summary = "Drop changes at random (chance p), rescale the rest by 1/(1 − p), add."
    source = "Yu et al., ICML 2024, arXiv 2311.03099"
    parameters = (DROP, SEED)

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = dropped(context, task_vectors(base, experts), at)
        joined = weighted_sum(context.weights, vectors)
        return np.add(base, joined, out=joined)
