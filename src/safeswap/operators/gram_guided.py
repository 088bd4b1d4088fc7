"""The safety update, let through where harmful requests act and harmless chats do not.

Two Gram matrices per weight matrix, both of what the *language expert's* layer sees: ``G_h`` at the
answers to harmful requests, ``G_b`` at the answers to harmless chats in its language. From them

    P = G_h (G_h + γ G_b + λ I)⁻¹

lets a direction of inputs through as far as harmful requests excite it and harmless text does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from safeswap.operators.base import Numbers, TensorContext, task_vectors
from safeswap.operators.calibrated import GRAMS, OneLanguage, grams_of, solved
from safeswap.operators.gram_store import GramRecord
from safeswap.operators.kernels.positive import Triangle, Wide
from safeswap.operators.kernels.products import add_into, add_product
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter
from safeswap.roles import SAFETY

HARMFUL, HARMLESS = "harmful", "harmless"


class _Guided(OneLanguage):
    """What addition and swap share."""

    how = "--harmful REFUSALS.jsonl --harmless LANGUAGE=CHATS.jsonl"
    kinds = (HARMFUL, HARMLESS)
    parameters = (
        *GRAMS,
        Parameter("balance", 1.0, "weight of harmless text against harmful requests (γ)", low=0),
        Parameter(
            "ridge", 1e-4, "λ, in mean diagonals of G_h + γ G_b", float, 0, 1e3, open_low=True
        ),
    )

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        safe = context.experts.index(SAFETY)
        vectors = task_vectors(base, experts)
        safety, language = vectors[safe], vectors[1 - safe]
        strength, kept = context.weights[safe], context.weights[1 - safe]
        records = self.records(context)
        # nothing says what its inputs are: the language expert's stays
        direction = None if records is None else self.direction(safety, language)
        np.multiply(language, base.dtype.type(kept), out=language)
        joined: Numbers = np.add(base, language, out=language)
        if records is None or direction is None:
            return joined
        direction, target = direction.reshape(context.shape), joined.reshape(context.shape)
        if records[0].inputs == "rows":  # GPT-2's [in, out]; from here on [out, in]
            direction, target = direction.T, target.T
        matrices = zip(self.entries(context.experts), records, strict=True)
        add_into(target, _through(context, matrices, direction), strength)
        return joined

    def direction(self, safety: Numbers, language: Numbers) -> Numbers:
        """What is let through, from both task vectors; either may be overwritten."""
        raise NotImplementedError


@operator
class GramAdd(_Guided):
    """``base + w_l t_l + w_s t_s P`` with ``P = G_h (G_h + γ G_b + λ I)⁻¹`` for weight matrices of
    attention and MLP (written for weights [out, in]); all other tensors get ``base + w_l t_l``.

    safeswap. ``t_s P`` is the update D with the least ``‖X_h(D − t_s)ᵀ‖² + γ‖X_b Dᵀ‖² + λ‖D‖²``
    (means over rows): on what the language expert's layers see at answers to harmful requests it
    acts as the safety update does, on harmless chats in the language as little as possible. γ is
    ``balance``, λ is ``ridge`` times the mean of the diagonal of ``G_h + γ G_b``, ``w_s`` the
    safety expert's weight in the plan (k in the docs; ``--method chat-vector --set gamma=4``).
    Both matrices come from ``safeswap calibrate … --harmful … --harmless …``. Not in mergekit
    0.1.5. Added memory per worker: half a square float64 matrix of the layer's inputs, and one
    float64 of the tensor's size.
    """

    name = "gram-add"
    summary = "Add the safety update where harmful requests act and harmless chats do not."
    source = "safeswap; the least squares are RegMean's (arXiv 2212.09849)"

    def direction(self, safety: Numbers, language: Numbers) -> Numbers:
        return safety


@operator
class GramSwap(_Guided):
    """``base + w_l t_l + w_s (t_s − t_l) P`` with ``P = G_h (G_h + γ G_b + λ I)⁻¹`` for weight
    matrices of attention and MLP (weights [out, in]); all other tensors get ``base + w_l t_l``.

    safeswap. At both weights 1 it is the W with the least
    ``‖X_h(W − W_s)ᵀ‖² + γ‖X_b(W − W_l)ᵀ‖² + λ‖W − W_l‖²``: the safety expert's outputs on harmful
    requests, the language expert's on harmless chats in its language. RegMean is this with γ = 1,
    λ = 0 and each expert's own inputs. Settings and matrices are those of ``gram-add``.
    """

    name = "gram-swap"
    summary = "The safety expert's outputs on harmful requests, the language expert's elsewhere."
    source = "safeswap; RegMean (arXiv 2212.09849) with two sets of texts"

    def direction(self, safety: Numbers, language: Numbers) -> Numbers:
        return np.subtract(safety, language, out=safety)


def _through(
    context: TensorContext, matrices: Iterable[tuple[str, GramRecord]], direction: Numbers
) -> Wide:
    """``D G_h (G_h + γ G_b + λ I)⁻¹`` for D [out, in], float64 [out, in].

    Args:
        matrices: entry and record of ``G_h``, then of ``G_b``.
    """
    grams, settings = grams_of(context), context.settings
    harmful, harmless = matrices
    side, ridge = direction.shape[1], float(settings["ridge"])
    system, known = Triangle(side), np.zeros(direction.shape)
    for begin, block in grams.blocks(*harmful):
        add_product(known[:, begin : begin + len(block)], direction, block)  # G is symmetric
        system.add(begin, block)
    for begin, block in grams.blocks(*harmless):
        system.add(begin, block, float(settings["balance"]))
    system.add_to_diagonal(ridge * system.trace / side)
    if not system.any():
        return known  # nothing was ever seen but zeros: nothing is let through
    return solved(context, system, known, f"ridge {ridge:g}", "or more texts")
