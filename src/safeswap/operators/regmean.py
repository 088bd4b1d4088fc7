"""RegMean: the weights whose outputs are nearest to every expert's on what that expert saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safeswap.operators.base import Numbers, TensorContext, task_vectors, weighted_sum
from safeswap.operators.calibrated import GRAMS, CalibratedOperator, grams_of, solved
from safeswap.operators.gram_store import GramRecord
from safeswap.operators.kernels.inner_products import parts
from safeswap.operators.kernels.positive import Triangle, Wide
from safeswap.operators.kernels.products import add_into, add_product
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter


@operator
class RegMean(CalibratedOperator):
    """``base + (Σ w G)⁻¹ Σ w G t`` for the weight matrices of attention and MLP (written for
    weights [in, out]), with ``G = XᵀX / rows`` the Gram matrix of an expert's inputs to the layer;
    all other tensors get the mean ``base + Σ w·t / Σ w``.

    Jin, Ren, Preotiuc-Pietro & Cheng, "Dataless Knowledge Fusion by Merging Weights of Language
    Models", ICLR 2023, arXiv 2212.09849. It minimises ``Σ w ‖X(W − W_e)‖² / rows``: X are the
    expert's own inputs, which ``safeswap calibrate`` collects in the folder ``grams``. Weights
    multiply the Gram matrices, as in the authors' code, so only their ratio counts; for task
    vectors the formula is the one for whole weights. G has its entries off the diagonal multiplied
    by ``scale``, the paper's α (0.1 in the authors' published configurations for RoBERTa, DeBERTa
    and T5), and ``ridge`` times the mean of the diagonal of ``Σ w G / Σ w`` added to its diagonal:
    an input that was never seen gets the mean of the experts' weights. Differences: the authors
    have no ridge, and they take output layers too; here embeddings, outputs, biases and norms are
    averaged, and so is what the calibration left out (``grams.json`` says why). Not in mergekit
    0.1.5. Added memory per worker: half a square float64 matrix of the layer's inputs, and one
    float64 of the tensor's size.
    """

    name = "regmean"
    summary = "Least change of every layer's outputs on calibration texts (from Gram matrices)."
    source = "Jin et al., ICLR 2023, arXiv 2212.09849"
    positive = True
    parameters = (
        *GRAMS,
        Parameter("scale", 0.9, "factor of G off the diagonal (the paper's α)", float, 0, 1),
        Parameter(
            "ridge", 1e-6, "pull to the experts' mean, in mean diagonals of G", float, 0, 1e3
        ),
    )

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        vectors = task_vectors(base, experts)
        records = self.records(context)
        if records is None:
            joined = weighted_sum(parts(context), vectors)
            return np.add(base, joined, out=joined)
        matrices = [vector.reshape(context.shape) for vector in vectors]
        target = base.reshape(context.shape)
        if records[0].inputs == "rows":  # GPT-2's [in, out]; from here on [out, in]
            matrices, target = [matrix.T for matrix in matrices], target.T
        add_into(target, _regression_mean(context, records, matrices))
        return base


def _regression_mean(
    context: TensorContext, records: Sequence[GramRecord], matrices: Sequence[Numbers]
) -> Wide:
    """``(Σ w t G)(Σ w G)⁻¹`` for task vectors [out, in], float64; their weighted mean where the
    experts saw nothing but zeros.
    """
    grams, weights = grams_of(context), parts(context)
    alpha, ridge = np.float32(context.settings["scale"]), float(context.settings["ridge"])
    side = matrices[0].shape[1]
    system, known = Triangle(side), np.zeros(matrices[0].shape)
    for role, record, weight, matrix in zip(
        context.experts, records, weights, matrices, strict=True
    ):
        for begin, block in grams.blocks(role, record):
            end = begin + len(block)
            diagonal = block[:, begin:end].diagonal().copy()
            block *= alpha
            np.fill_diagonal(block[:, begin:end], diagonal)
            add_product(known[:, begin:end], matrix, block, weight)  # G is symmetric
            system.add(begin, block, weight)
    pull = ridge * system.trace / side
    system.add_to_diagonal(pull)
    seen = system.any()
    for weight, matrix in zip(weights, matrices, strict=True):
        add_into(known, matrix, weight * pull if seen else weight)
    if not seen:
        return known
    at = f"scale {alpha:g} and ridge {ridge:g}"
    return solved(context, system, known, at, "a smaller scale, or more calibration texts")
