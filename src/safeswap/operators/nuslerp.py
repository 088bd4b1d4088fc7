"""NuSLERP: from one task vector to the other along the arc between them."""

from __future__ import annotations

import math

from safeswap.operators.base import TensorContext
from safeswap.operators.kernels.inner_products import Gram, GramOperator, arc, cosine, parts
from safeswap.operators.registry import operator


@operator
class Nuslerp(GramOperator):
    """``base + sin((1 − t)θ)/sin θ · t_1 + sin(tθ)/sin θ · t_2``, with t the second expert's part
    of the weights and θ the angle between the task vectors of a tensor; linear where they are
    parallel.

    mergekit's ``nuslerp`` with a base model and its default of one angle per tensor
    (``nuslerp_flatten``); there is no paper.
    """

    name = "nuslerp"
    summary = "Turn one expert's task vector into the other's, along the arc (two experts)."
    source = "mergekit (no paper); Shoemake, SIGGRAPH 1985"
    experts = (2, 2)
    positive = True
    of_task_vectors = True

    def coefficients(self, context: TensorContext, gram: Gram) -> list[float]:
        near = cosine(gram, 0, 1)
        _, t = parts(context)
        if 1 - near * near <= 1e-16:
            return [1 - t, t]
        return arc(t, math.acos(near))
