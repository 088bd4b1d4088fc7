"""The integral: gradients at a few points of the way, weighed by Gauss and Legendre."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from safeswap.profile.attribution import READOUTS, Readouts
from safeswap.search.attribute.path import AdditionPath
from safeswap.search.attribute.readings import Readings, Score
from safeswap.search.fit.gradient import CoefficientGradient

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Integrator:
    """A model on its way, and what is read off it.

    Attributes:
        gradient: of the safety vector's weight in every unit.
        advance: is told of every batch.
    """

    path: AdditionPath
    readings: Readings
    gradient: CoefficientGradient
    score: Score
    advance: Callable[[int], None]

    def shares(self, points: int) -> Array:
        """What every unit brings to every readout, nats, float64 (units, readouts)."""
        at, weights = np.polynomial.legendre.leggauss(points)  # on (-1, 1), weights of sum 2
        found = 0.0
        for t, weight in zip((1 + at) / 2, weights / 2, strict=True):
            self.path.move(float(t))
            found += weight * np.column_stack([self._slope(readout) for readout in READOUTS])
        return np.asarray(found)

    def values(self, t: float) -> Readouts:
        """The readouts at a point of the way."""
        self.path.move(t)
        with torch.inference_mode():
            return Readouts(**{readout: self._value(readout) for readout in READOUTS})

    def _slope(self, readout: str) -> Array:
        """⟨∇_W readout, τ_safety⟩ of every unit where the model is now."""
        for part in self.readings.parts(readout, self.score):
            part.backward()
            self.advance(1)
        return self.gradient.take()[:, 0]

    def _value(self, readout: str) -> float:
        total = 0.0
        for part in self.readings.parts(readout, self.score):
            total += float(part)
            self.advance(1)
        return total
