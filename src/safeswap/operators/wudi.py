"""WUDI: the task vector that disturbs every expert least on what it saw."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safeswap.operators.base import SCALE, Numbers, TensorContext
from safeswap.operators.kernels.factorize import MatrixOperator
from safeswap.operators.registry import operator
from safeswap.parameters import Parameter


@operator
class Wudi(MatrixOperator):
    """``base + λ · X`` with X the minimum of
    ``Σ_e ‖(X − t_e) t_eᵀ‖² / ‖t_e‖² + ρ ‖X − Σ t_e‖²``, in closed form.

    Cheng et al., "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging
    via Task Vectors", ICML 2025, arXiv 2503.08099 (WUDI-Merging). The authors minimise the first
    term with Adam (300 steps, rate 1e-5) from the sum of the task vectors; the ridge ρ stands for
    the early stop: what no task vector sees stays the sum. With ``A`` the rows of all
    ``t_e/‖t_e‖``, ``D_e = Σ t − t_e`` and ``C = [D_e A_eᵀ]`` the minimum is ``X = Σ t − C (A Aᵀ +
    ρ)⁻¹ A = Σ t − C A (AᵀA + ρ)⁻¹``, of which the smaller system is solved in float64; ρ =
    ``ridge`` times the mean eigenvalue of that system. Here t are weighted; weights 1 give the
    paper's objective. Not in mergekit 0.1.5. Added memory: A and C, and two square float64 matrices
    of the side ``min(columns, N · rows)``.
    """

    name = "wudi"
    summary = "The task vector that disturbs each expert least in its own subspace (closed form)."
    source = "Cheng et al., ICML 2025, arXiv 2503.08099"
    parameters = (
        SCALE,
        Parameter(
            "ridge", 1e-3, "pull to the sum, in mean eigenvalues", float, 0, 1e3, open_low=True
        ),
    )

    def factorize(self, context: TensorContext, matrices: Sequence[Numbers]) -> Numbers:
        norms = [float(np.linalg.norm(matrix)) for matrix in matrices]
        used = [(matrix, norm) for matrix, norm in zip(matrices, norms, strict=True) if norm]
        total = np.sum(matrices, axis=0)
        if not used:
            return np.asarray(total)
        ridge = float(context.settings["ridge"])
        wide = len(used) * context.shape[0] <= context.shape[1]
        correction = (_by_rows if wide else _by_columns)(total, used, ridge)
        return np.asarray(np.subtract(total, correction, out=total))


def _by_rows(total: Numbers, used: Sequence[tuple[Numbers, float]], ridge: float) -> Numbers:
    """``C (A Aᵀ + ρ)⁻¹ A``: the system has a side of N · rows."""
    rows = np.concatenate([matrix / matrix.dtype.type(norm) for matrix, norm in used])
    height = len(total)
    known = np.concatenate(
        [
            np.matmul(total - matrix, rows[n * height : (n + 1) * height].T)
            for n, (matrix, _) in enumerate(used)
        ],
        axis=1,
    )
    return np.asarray(np.matmul(_solved(np.matmul(rows, rows.T), known, ridge), rows))


def _by_columns(total: Numbers, used: Sequence[tuple[Numbers, float]], ridge: float) -> Numbers:
    """``C A (AᵀA + ρ)⁻¹``: the system has a side of the columns."""
    system, known = (np.zeros((n, total.shape[1]), total.dtype) for n in total.shape[::-1])
    for matrix, norm in used:
        unit = matrix / matrix.dtype.type(norm)
        square = np.matmul(unit.T, unit)
        np.add(system, square, out=system)
        np.add(known, np.matmul(total - matrix, square), out=known)
    return _solved(system, known, ridge)


def _solved(system: Numbers, known: Numbers, ridge: float) -> Numbers:
    """``known (system + ρ)⁻¹``, in float64."""
    wide = system.astype(np.float64)
    side = len(wide)
    wide[np.diag_indices(side)] += ridge * np.trace(wide) / side
    return np.asarray(np.linalg.solve(wide, known.T).T.astype(known.dtype))
