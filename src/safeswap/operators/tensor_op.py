"""How one tensor is made: which members of the family are read, and what is done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safeswap.operators.base import Operator, TensorContext
from safeswap.roles import BASE

_SUMS_TO_ONE = 1e-9


@dataclass(frozen=True, slots=True)
class OperatorStep:
    """What an operator other than ``linear`` does with one tensor."""

    operator: Operator
    context: TensorContext
    shown: str


@dataclass(frozen=True, slots=True)
class TensorOp:
    """Which members of the family are read for a tensor, and what is done with them.

    A single term with coefficient exactly 1 is a copy.

    Attributes:
        terms: the members with their coefficients; with a step, the base (where it is read) and
            then the experts with the weights of their task vectors.
        step: None where the terms are simply added.
    """

    terms: tuple[tuple[str, float], ...]
    step: OperatorStep | None = None

    @property
    def copied(self) -> str | None:
        """The role whose bytes are the result, or None when there is something to compute."""
        if self.step is None and len(self.terms) == 1 and self.terms[0][1] == 1.0:
            return self.terms[0][0]
        return None

    @property
    def whole(self) -> bool:
        """Whether the tensor must be made in one piece."""
        return self.step is not None and self.step.operator.whole(self.step.context)

    def __str__(self) -> str:
        """What is done, in words, for the manifest."""
        if self.copied:
            return f"copied from {self.copied}"
        terms = [term for term in self.terms if not (self.step and term[0] == BASE)]
        sum_of = " + ".join(f"{coefficient:.9g} · {role}" for role, coefficient in terms)
        return f"{self.step.shown}: {sum_of}" if self.step else sum_of


def linear(weights: Mapping[str, float]) -> TensorOp:
    """The step that makes a unit's tensors, from the weights of the experts' task vectors.

    ``base + Σ w_e (W_e − base) = (1 − Σ w_e) · base + Σ w_e W_e``: a weight of 0 is never read, and
    weights that sum to 1 (within 1e-9) need no base.
    """
    terms = tuple((expert, float(w)) for expert, w in weights.items() if w != 0.0)
    rest = 1.0 - sum(weight for _, weight in terms)
    if abs(rest) > _SUMS_TO_ONE or not terms:
        terms = ((BASE, rest), *terms)
    return TensorOp(terms)
