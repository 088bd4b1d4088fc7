"""Adam on coefficients, one state per step, so that a stopped fit goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safeswap.errors import OutputError

Array = np.ndarray[Any, Any]
FIRST, SECOND, SMALL = 0.9, 0.95, 1e-8
"""Adam's decays of the mean gradient and of its square, and what keeps it from dividing by 0."""


@dataclass(slots=True)
class Descent:
    """Coefficients and what Adam remembers.

    Attributes:
        weights: float64 (groups, 2): the safety expert's weight, the language expert's.
        mean, square: of the gradients, of the same shape.
        history: a row for each step that was made: its number and the parts of the objective.
    """

    weights: Array
    mean: Array
    square: Array
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def begin(cls, groups: int, safety: float, language: float) -> Descent:
        """The same two weights everywhere, and nothing remembered."""
        weights = np.tile(np.array([safety, language]), (groups, 1))
        return cls(weights, np.zeros_like(weights), np.zeros_like(weights))

    @property
    def steps(self) -> int:
        """How many steps were made."""
        return len(self.history)

    def step(self, gradient: Array, rate: float, high: float, parts: Mapping[str, float]) -> None:
        """One step of Adam, then back into [0, high]."""
        self.mean = FIRST * self.mean + (1 - FIRST) * gradient
        self.square = SECOND * self.square + (1 - SECOND) * gradient**2
        made = self.steps + 1
        mean = self.mean / (1 - FIRST**made)
        square = self.square / (1 - SECOND**made)
        moved = self.weights - rate * mean / (np.sqrt(square) + SMALL)
        self.weights = np.clip(moved, 0.0, high)
        self.history.append({"step": made, **parts})

    def as_dict(self) -> dict[str, Any]:
        """Plain data; numbers as they are, so that a resumed fit is the same to the bit."""
        arrays = {name: getattr(self, name).tolist() for name in ("weights", "mean", "square")}
        return arrays | {"history": self.history}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], groups: int, where: str) -> Descent:
        """The state from what ``as_dict`` gave.

        Raises:
            OutputError: it is damaged, or of a model of other groups.
        """
        try:
            arrays = [np.array(content[name], float) for name in ("weights", "mean", "square")]
            history = [dict(row) for row in content["history"]]
        except (KeyError, TypeError, ValueError) as error:
            raise OutputError(
                f"{where}: is damaged ({error}). Remove it: the fit begins anew."
            ) from error
        if any(a.shape != (groups, 2) or not np.isfinite(a).all() for a in arrays):
            raise OutputError(
                f"{where}: is of a model of other units, or damaged. Remove it: the fit begins "
                "anew."
            )
        weights, mean, square = arrays
        return cls(weights, mean, square, history)
