"""Sums of DoRA are DoRA: a merged adapter's modules with magnitudes.

DoRA's weight is ``D · (W + s·B·A)`` with ``D`` the diagonal of magnitude over norm, output by
output (Liu et al., ICML 2024, 2402.09353). The weighted sum of task vectors of several is

    W + Σ w·(D(W + sBA) − W)  =  S·W + Σ w·D·s·B·A  =  S · (W + S⁻¹ · Σ w·D·s·B·A),
    S = 1 + Σ w·(D − 1),

once more an update of the sum of the ranks under magnitudes ``S · ‖W + …‖``. A plain LoRA is such
an expert with D = 1, so that it may stand beside: ``use_dora`` is one flag for a whole adapter. The
base's weight is read for the norms, in panels, twice. ``rank`` cuts ``Σ w·D·s·B·A``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from safeswap.checkpoint.adapters.factors import all_numbers
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import PlanError
from safeswap.io.blas import one_thread
from safeswap.merge.adapter_written import Bytes, Matrix, Module, Part, Written, compressed, encoded

_PANEL = 1 << 19
"""Elements of the base's weight that are looked at at once."""


@dataclass
class DoraModule(Module):
    """A module with magnitudes.

    Attributes:
        base: the base's weight.
        magnitudes: of the experts that have them; the others are plain LoRA.
    """

    base: Tensor = field(kw_only=True)
    magnitudes: Mapping[str, Tensor] = field(kw_only=True)

    @property
    def vote(self) -> float | None:
        """The scale with which its factors would be picked: of the whole of one expert."""
        found = super().vote
        return found if found and next(iter(self.parts.values())).weight == 1.0 else None

    def written(self) -> Iterator[Written]:
        """Its two factors, and the magnitudes."""
        yield from super().written()
        (role, part), *_ = self.parts.items()
        kept = self.magnitudes.get(role) if self.picked is not None else None
        fate = self.fate() if kept is not None or self.picked is None else f"norms of {role}"
        shape = (part.factors.b.shape[0],)
        yield self._one("lora_magnitude_vector", shape, 2, fate, kept)

    def make(self) -> tuple[Bytes, ...]:
        """The bytes of all its tensors: A, B, magnitudes.

        Raises:
            PlanError: an output of which nothing is left has no norm.
        """
        read = {role: (part, *part.read()) for role, part in self.parts.items()}
        with one_thread():
            scales = {r: self._scales(r, *read[r]) for r in self.magnitudes}
            whole = self._whole(scales)
            left = self._left(read.values(), scales)
            right = np.concatenate([a for _, a, _ in read.values()], axis=0)
            full = left, right
            if self.cut:
                left, right, (lost, _) = compressed(left, right, self.rank)
            if self.picked is not None:
                ((_, a, b),) = read.values()
                stored_left, stored_right = b, a
            else:
                stored_left = (left / whole[:, None]).astype(np.float32).astype(np.float64)
                stored_right = right.astype(np.float32).astype(np.float64)
            norms = self._norms(stored_left * self.scale, stored_right)
            self._check(norms)
            if self.cut:
                self.energy = lost, self._change(whole, *full)
        return encoded(stored_right), encoded(stored_left), encoded(whole * norms)

    def _scales(self, role: str, part: Part, a: Matrix, b: Matrix) -> Matrix:
        """D: an expert's magnitudes over the norms of its sums."""
        wanted = all_numbers(self.magnitudes[role])
        norms = self._norms(b * part.factors.scale, a)
        self._check(norms)
        found: Matrix = wanted / norms
        return found

    def _whole(self, scales: Mapping[str, Matrix]) -> Matrix:
        """S, output by output."""
        total = np.ones(self._outputs)
        for role, found in scales.items():
            total += (self.parts[role].weight or 0.0) * (found - 1.0)
        if not bool((np.abs(total) > 1e-12).all()):
            raise self._gone(int(np.abs(total).argmin()))
        return total

    def _left(
        self, read: Iterable[tuple[Part, Matrix, Matrix]], scales: Mapping[str, Matrix]
    ) -> Matrix:
        """``Σ w·D·s·B`` side by side, over the adapter's scale."""
        lefts = []
        for role, (part, _, b) in zip(self.parts, read, strict=True):
            one = b * ((part.weight or 0.0) * part.factors.scale / self.scale)
            lefts.append(one * scales[role][:, None] if role in scales else one)
        return np.concatenate(lefts, axis=1)

    @property
    def _outputs(self) -> int:
        return next(iter(self.parts.values())).factors.b.shape[0]

    def _norms(self, left: Matrix, right: Matrix) -> Matrix:
        """``‖W + left · right‖``, output by output."""

        def squares(weight: Matrix, update: Matrix, outputs: slice) -> Matrix:
            total = weight + update
            found: Matrix = np.vecdot(total, total)
            return found

        return np.sqrt(self._sums(left, right, squares))

    def _change(self, whole: Matrix, left: Matrix, right: Matrix) -> float:
        """The squares of ``(S − 1)·W + update``, in the units of the factors."""

        def squares(weight: Matrix, update: Matrix, outputs: slice) -> Matrix:
            scaled = weight * ((whole[outputs] - 1.0) / self.scale)[:, None] + update
            found: Matrix = np.vecdot(scaled, scaled)
            return found

        return float(self._sums(left, right, squares).sum())

    def _sums(
        self, left: Matrix, right: Matrix, of: Callable[[Matrix, Matrix, slice], Matrix]
    ) -> Matrix:
        """What ``of`` gives for the outputs of each panel of (weight, left · right), summed."""
        factors = next(iter(self.parts.values())).factors
        rows, columns = self.base.shape
        step = max(1, min(rows, _PANEL // columns))
        total = np.zeros(self._outputs)
        with self.base.reader() as reader:
            for row in range(0, rows, step):
                end = min(row + step, rows)
                weight = np.empty((end - row) * columns, np.float64)
                reader.read_numbers(row * columns, end * columns, weight)
                panel = weight.reshape(end - row, columns)
                if factors.transposed:  # rows are inputs: every panel has a part of all outputs
                    total += of(panel.T, left @ right[:, row:end], slice(None))
                else:
                    part = slice(row, end)
                    total[part] = of(panel, left[part] @ right, part)
        return total

    def _check(self, norms: Matrix) -> None:
        if not bool((norms > 0).all() and np.isfinite(norms).all()):
            raise self._gone(int(np.where(np.isfinite(norms), norms, -1.0).argmin()))

    def _gone(self, output: int) -> PlanError:
        return PlanError(
            f"--as adapter: output {output} of {self.name} would be all zeros before it is scaled, "
            "and DoRA divides by its norm. Use other weights for unit "
            f"{self.unit}, or --as checkpoint (the default) to write a whole checkpoint."
        )
