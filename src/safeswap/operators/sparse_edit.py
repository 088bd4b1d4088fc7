"""Sparse Weight Editing: a few neurons of the language expert answer harmful prompts in its
language as it answers the same prompts in English.

Everything is of one model, the language expert, run over pairs of prompts: harmful ones in English
and in the language, and harmless ones in both. Of a matrix with weights W [in, out], whose columns
are neurons, the columns S of the *safety neurons* get the update

    ΔW_S = R⁻¹ · trunc_r(R · Q⁻¹ · X_lowᵀ · D)   with   D = (X_high − X_low) W_S,
    Q = X_lowᵀX_low + γ X_safeᵀX_safe + λ I = RᵀR

of least ``‖X_low ΔW − D‖² + γ‖X_safe ΔW‖² + λ‖ΔW‖²`` among those of rank r (the paper's theorem
4.1). X_low and X_high are what the layer sees at harmful prompts in the language and in English,
X_safe at harmless ones in the language; three sums over prompts are all it needs of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.operators.base import Numbers, TensorContext
from safeswap.operators.calibrated import GRAMS, OneLanguage, entry_of, factored, grams_of
from safeswap.operators.gram_store import GramRecord
from safeswap.operators.kernels.factorize import svd
from safeswap.operators.kernels.positive import Triangle, Wide
from safeswap.operators.kernels.products import add_into, add_product
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter
from safeswap.roles import SAFETY

LOW, GAP, SAFE, NEURONS = "pairs-low", "pairs-gap", "pairs-safe", "pairs-neurons"
"""Kinds of entries: ``X_lowᵀX_low``, ``X_lowᵀ(X_high − X_low)`` and ``X_safeᵀX_safe`` over their
rows, and for every neuron the two scores by which safety neurons are told."""
SCORES = 2
MAGNITUDE = Parameter("magnitude", 2.0, "least z-score of a safety neuron's mean activation gap")
EFFECT = Parameter("effect", 1.0, "or its least effect size (Cohen's d)")


@operator
class SparseEdit(OneLanguage):
    """``base + w_l t_l + w_s ΔW`` for the safety neurons of the matrices that an MLP's inputs
    meet (gate and up), with ``ΔW = R⁻¹ trunc_r(R Q⁻¹ X_lowᵀ D)``, ``D = (X_high − X_low) W_S`` and
    ``Q = X_lowᵀX_low + γ X_safeᵀX_safe + λ I = RᵀR``; all other tensors get ``base + w_l t_l``.

    Liang, Wang & Wang, "Multilingual Safety Alignment Via Sparse Weight Editing", arXiv 2602.22554.
    From the paper: the formula; gate and up projections; r = 8; a neuron is a safety neuron
    where its mean activation at harmful prompts is above that at harmless ones by more than
    ``magnitude`` = 2 standard deviations of that gap over the layer's neurons, or by more than
    ``effect`` = 1 pooled standard deviations (Cohen's d). The paper leaves open, and here it is so:
    the neurons are those of the English prompts, where the target comes from; D is taken before
    the activation function, as its linear objective is; a harmful prompt counts by its last token,
    from which the answer is predicted (so that pairs have one row each), a harmless one by
    all of its tokens; sums are means over rows, γ is ``balance``, λ is ``ridge`` times the mean
    diagonal of ``X_lowᵀX_low + γ X_safeᵀX_safe`` (the paper gives neither value); every layer is
    edited whose unit has a weight of the safety expert, which is a factor of the update, 1 in the
    paper (it writes of "a layer" and does not say which). The safety expert's weights are not
    used: all texts run through the language expert, and where that is not safe in English there is
    nothing to carry over. Edit a merge then. Prompts come from ``safeswap calibrate … --parallel``.
    Not in mergekit 0.1.5. Added memory per worker: half a square float64 matrix of the layer's
    inputs, and the edited columns in float64, three times.
    """

    name = "sparse-edit"
    summary = "A few neurons answer harmful prompts in the language as they do in English."
    source = "Liang, Wang & Wang, arXiv 2602.22554"
    how = "--parallel LANGUAGE=PAIRS.csv"
    kinds = (LOW, GAP, SAFE, NEURONS)
    parameters = (
        *GRAMS,
        Parameter("rank", 8, "of the update of a matrix (r)", int, 1),
        Parameter("balance", 1.0, "weight of harmless prompts against harmful ones (γ)", low=0),
        Parameter("ridge", 1e-2, "λ, in mean diagonals", float, 0, 1e3, open_low=True),
        MAGNITUDE,
        EFFECT,
    )

    def per_output(self, entry: str) -> int:
        return SCORES if entry.endswith(f"@{NEURONS}") else 0

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        safe = context.experts.index(SAFETY)
        language, kept = experts[1 - safe], context.weights[1 - safe]
        records = self.records(context)
        found = None if records is None else self._update(context, records, language)
        if kept != 1.0:  # else it is the language expert to the last bit, where nothing is edited
            np.subtract(language, base, out=language)
            np.multiply(language, base.dtype.type(kept), out=language)
            np.add(base, language, out=language)
        if found is not None:
            rows, update = found
            target = _neurons_of(language, context, records)
            edited = target[rows]
            add_into(edited, update, context.weights[safe])
            target[rows] = edited
        return language

    def _update(
        self, context: TensorContext, records: Sequence[GramRecord], language: Numbers
    ) -> tuple[NDArray[np.intp], Wide] | None:
        """Which neurons are edited, and their updates float64 [neurons, in]; None for none."""
        (name,) = [role for role in context.experts if role != SAFETY]
        of = {
            kind: (entry_of(name, kind), record)
            for kind, record in zip(self.kinds, records, strict=True)
        }
        grams, settings = grams_of(context), context.settings
        scores = np.concatenate([block for _, block in grams.blocks(*of[NEURONS])])
        rows = safety_neurons(scores, float(settings["magnitude"]), float(settings["effect"]))
        if not len(rows):
            return None
        weights = _neurons_of(language, context, records)[rows]
        system, known = Triangle(weights.shape[1]), np.zeros(weights.shape)
        for begin, block in grams.blocks(*of[LOW]):
            system.add(begin, block)
        for begin, block in grams.blocks(*of[SAFE]):
            system.add(begin, block, float(settings["balance"]))
        for begin, block in grams.blocks(*of[GAP]):
            add_product(known[:, begin : begin + len(block)], weights, block)
        ridge = float(settings["ridge"])
        system.add_to_diagonal(ridge * system.trace / system.side)
        if not system.any():
            return None  # nothing was ever seen but zeros
        factored(context, system, f"ridge {ridge:g}", "or more prompts")
        low_rank = truncated(system.solve_forth(known), int(settings["rank"]))
        return rows, system.solve_back(low_rank)


def safety_neurons(scores: Numbers, magnitude: float, effect: float) -> NDArray[np.intp]:
    """The numbers of the neurons of which one score is above its limit.

    Args:
        scores: [2, neurons]: z-scores of the gap between mean activations at harmful and at
            harmless prompts, and Cohen's d of the two.
    """
    return np.flatnonzero((scores[0] > magnitude) | (scores[1] > effect))


def truncated(matrix: Wide, rank: int) -> Wide:
    """The nearest matrix of a rank (Eckart and Young)."""
    left, values, right = svd(matrix)
    return np.asarray(np.matmul(left[:, :rank] * values[:rank], right[:rank]))


def _neurons_of(
    flat: Numbers, context: TensorContext, records: Sequence[GramRecord] | None
) -> Numbers:
    """A view of weights with a neuron a row, [out, in]."""
    matrix = flat.reshape(context.shape)
    turned = records is not None and records[0].inputs == "rows"  # GPT-2's [in, out]
    return matrix.T if turned else matrix
