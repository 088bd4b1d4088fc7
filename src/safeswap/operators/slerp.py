"""Slerp: from one expert to the other along the arc between them."""

from __future__ import annotations

import math

from safeswap.operators.base import TensorContext
from safeswap.operators.kernels.inner_products import Gram, GramOperator, arc, cosine, parts
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter


@operator
class Slerp(GramOperator):
    """``sin((1 − t)θ)/sin θ · W_1 + sin(tθ)/sin θ · W_2``, with t the second expert's part of the
    weights and θ the angle between the experts' weights; linear where ``|cos θ| > dot_threshold``.

    Shoemake, "Animating rotation with quaternion curves", SIGGRAPH 1985; in mergekit as ``slerp``
    (its ``base_model`` is the first expert, ``t`` is given). The base is not read. Experts of one
    base are almost parallel (cosines above 0.9995 are the rule), and slerp is then linear: use
    ``nuslerp``, which turns the task vectors, to see a difference.
    """

    name = "slerp"
    summary = "Turn one expert's weights into the other's, along the arc (two experts)."
    source = "Shoemake, SIGGRAPH 1985; mergekit"
    parameters = (
        Parameter("dot_threshold", 0.9995, "cosine above which it is linear", float, 0, 1),
    )
    experts = (2, 2)
    positive = True
    reads_base = False
    of_task_vectors = False

    def coefficients(self, context: TensorContext, gram: Gram) -> list[float]:
        near = cosine(gram, 0, 1)
        _, t = parts(context)
        if abs(near) > float(context.settings["dot_threshold"]) or abs(near) == 1.0:
            return [1 - t, t]
        return arc(t, math.acos(near))
