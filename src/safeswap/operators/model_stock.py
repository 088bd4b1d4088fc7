"""Model stock: between the base and the experts' mean, as far as their angle says."""

from __future__ import annotations

from itertools import combinations

from safeswap.operators.base import TensorContext
from safeswap.operators.kernels.inner_products import Gram, GramOperator, cosine, parts
from safeswap.operators.registry import operator


@operator
class ModelStock(GramOperator):
    """``base + s · Σ w·t / Σ w`` with ``s = N cos θ / (1 + (N − 1) cos θ)``, θ the angle between
    the N task vectors of a tensor (the mean of the cosines over all pairs).

    Jang, Yun & Han, "Model Stock: All we need is just a few fine-tuned models", ECCV 2024,
    arXiv 2403.19522, per tensor as there; equal weights give its formula. Where the denominator
    vanishes the base is kept, as in mergekit, which takes no weights and measures cosines of task
    vectors shorter than 1e-3 too small (its product of norms is at least 1e-6).
    """

    name = "model-stock"
    summary = "From the base towards the experts' mean, as far as the angle between them says."
    source = "Jang, Yun & Han, ECCV 2024, arXiv 2403.19522"
    positive = True
    of_task_vectors = True

    def coefficients(self, context: TensorContext, gram: Gram) -> list[float]:
        pairs = list(combinations(range(len(context.weights)), 2))
        mean = sum(cosine(gram, i, j) for i, j in pairs) / len(pairs)
        count = len(context.weights)
        denominator = 1 + (count - 1) * mean
        share = 0.0 if abs(denominator) < 1e-6 else count * mean / denominator
        return [share * part for part in parts(context)]
