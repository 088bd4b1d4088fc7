"""SCE: select where the experts differ most, weigh them by their energy, erase minority signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.numerics import inner_product
from safeswap.io.buffers import buffer
from safeswap.operators.base import Numbers, Operator, TensorContext, task_vectors
from safeswap.operators.kernels import topk
from safeswap.operators.kernels.topk import OrderStatistic, magnitudes
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter


@dataclass(frozen=True, slots=True)
class _State:
    """What is known after each pass: the variance sought, the least that is kept, the energies."""

    sought: OrderStatistic | None = None
    least: float | None = None
    energies: tuple[float, ...] | None = None


@operator
class Sce(Operator):
    """``base + Σ_A c·t / Σ_A c``: t are the task vectors at the elements whose variance between the
    experts is among the top ``select_topk`` of those not 0, ``c_e = w_e · Σ t_e² / Σ_e w_e Σ t_e²``
    and A, per element, the experts whose t has the sign of ``Σ t``.

    Wan et al., "FuseChat: Knowledge Fusion of Chat Models", EMNLP 2025, arXiv 2408.07990. At equal
    weights the plan's weights do not matter, as in the paper, which has none. mergekit's ``sce``
    selects everything by default (select_topk 1.0), knows no weights, and takes all c as equal
    where the mean squares of a tensor's task vectors sum to less than 1e-6: where changes are below
    1e-3, as in most fine-tunes, its weights by energy do nothing. This one has no such limit.
    """

    name = "sce"
    summary = "Select elements of high variance, weigh experts by energy, erase minority signs."
    source = "Wan et al., EMNLP 2025, arXiv 2408.07990"
    parameters = (
        Parameter(
            "select_topk", 0.1, "part of the elements that is kept", float, 0, 1, open_low=True
        ),
    )
    positive = True

    def n_passes(self, context: TensorContext) -> int:
        if not context.elements:
            return 0
        return 3 if float(context.settings["select_topk"]) < 1 else 1

    def init_state(self, context: TensorContext, state: _State | None) -> Numbers:
        if self.n_passes(context) == 1 or (state and state.least is not None):
            return np.zeros(len(context.weights))
        bins = topk.UPPER + 1 if state is None else topk.LOWER  # one more: those of 0
        return np.zeros((1, bins), np.int64)

    def update(
        self,
        context: TensorContext,
        state: _State | None,
        base: Numbers,
        experts: Sequence[Numbers],
        total: Numbers,
    ) -> None:
        vectors = task_vectors(base, experts)
        if self.n_passes(context) == 1 or (state and state.least is not None):
            self._mask(state, vectors)
            total += [inner_product(vector, vector) for vector in vectors]
        elif state is None:
            spread = _variance(vectors)
            topk.count_upper(spread, total[0, : topk.UPPER])
            total[0, topk.UPPER] += len(spread) - np.count_nonzero(spread)
        elif state.sought:
            topk.count_lower(state.sought, _variance(vectors), total[0])

    def finish_pass(self, context: TensorContext, state: _State | None, total: Numbers) -> _State:
        if self.n_passes(context) == 1 or (state and state.least is not None):
            return _State(least=state.least if state else None, energies=tuple(total.tolist()))
        if state is None:
            differing = context.elements - int(total[0, topk.UPPER])
            rank = int(float(context.settings["select_topk"]) * differing)
            return _State(topk.find_upper(context.name, [OrderStatistic(0, rank)], total)[0])
        assert state.sought is not None
        return _State(least=float(topk.find_number(state.sought, total[0])))

    def merge(
        self,
        context: TensorContext,
        state: _State | None,
        base: Numbers,
        experts: Sequence[Numbers],
        at: int,
    ) -> Numbers:
        vectors = task_vectors(base, experts)
        self._mask(state, vectors)
        energies = state.energies if state and state.energies else (1.0,) * len(vectors)
        if not sum(energies):
            energies = (1.0,) * len(vectors)
        parts = [weight * energy for weight, energy in zip(context.weights, energies, strict=True)]
        joined = _erase([part / sum(parts) for part in parts], vectors)
        return np.add(base, joined, out=joined)

    def _mask(self, state: _State | None, vectors: Sequence[Numbers]) -> None:
        if state is None or state.least is None:
            return
        mask = _variance(vectors) >= state.least
        for vector in vectors:
            np.multiply(vector, mask, out=vector)


def _variance(vectors: Sequence[Numbers]) -> NDArray[np.float32]:
    """The variance between the experts, element by element (of the population)."""
    kind, size = vectors[0].dtype, len(vectors[0])
    mean, away, spread = (buffer(f"variance {n}", size, kind) for n in range(3))
    share = kind.type(1 / len(vectors))
    mean[:] = spread[:] = 0
    for vector in vectors:
        np.add(mean, vector, out=mean)
    np.multiply(mean, share, out=mean)
    for vector in vectors:
        np.subtract(vector, mean, out=away)
        np.multiply(away, away, out=away)
        np.add(spread, away, out=spread)
    np.multiply(spread, share, out=spread)
    return magnitudes(spread)


def _erase(parts: Sequence[float], vectors: Sequence[Numbers]) -> Numbers:
    """``Σ_A c·t / Σ_A c``; the sign is that of the plain sum, unlike in TIES."""
    kind, size = vectors[0].dtype, len(vectors[0])
    sign, joined, divisor, agrees = (buffer(f"erase {n}", size, kind) for n in range(4))
    joined[:] = divisor[:] = sign[:] = 0
    for vector in vectors:
        np.add(sign, vector, out=sign)
    np.copysign(kind.type(1), sign, out=sign)
    for part, vector in zip(parts, vectors, strict=True):
        np.multiply(vector, sign, out=vector)
        np.maximum(vector, 0, out=vector)  # what agrees, without its sign; NaN stays NaN
        np.greater(vector, 0, out=agrees, casting="unsafe")
        np.multiply(agrees, kind.type(part), out=agrees)
        np.add(divisor, agrees, out=divisor)
        np.multiply(vector, kind.type(part), out=vector)
        np.add(joined, vector, out=joined)
    np.add(divisor, divisor == 0, out=divisor)
    np.divide(joined, divisor, out=joined)
    return np.asarray(np.multiply(joined, sign, out=vectors[0]))
