"""What an operator is: its name and parameters, and how it joins the task vectors of a tensor.

An operator works on blocks of a tensor, so that no model and no large tensor has to fit in memory:

- ``merge`` turns a block of the base and of the experts into a block of the result;
- ``n_passes`` says how often it wants to see the whole tensor first: in each pass ``update`` adds
  what a block shows to an array, and ``finish_pass`` turns the finished array into the tensor's
  state;
- ``whole`` asks for the tensor in one block (factorizations), ``grain`` for blocks of whole rows.

Everything is a function of its arguments alone: the result depends neither on how a tensor was cut
into blocks nor on which worker took them. Files that settings name (``regmean``'s) are arguments
too: ``pinned`` puts their digest into the plan, and ``check_files`` refuses what does not fit
    before work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.errors import PlanError
from safeswap.parameters import Parameter, Value, resolve_settings

Numbers = NDArray[Any]
"""Weights of one tensor, flat, float32 or float64."""

DENSITY = Parameter(
    "density", 0.2, "part of each task vector that is kept", float, 0, 1, open_low=True
)
SCALE = Parameter("scale", 1.0, "factor of the joined task vector (the papers' λ)")
SEED = Parameter("seed", 0, "of the random masks", int, 0, 2**63 - 1)


@dataclass(frozen=True)
class Operation:
    """An operator with its settings, as a plan names it.

    Attributes:
        settings: the parameters that were given; the rest have their defaults.
    """

    name: str = "linear"
    settings: Mapping[str, Value] = field(default_factory=dict)

    @property
    def plain(self) -> str | dict[str, str | Value]:
        """As it stands in a plan's file: the name alone, or a table with the settings."""
        table: dict[str, str | Value] = {"name": self.name, **self.settings}
        return table if self.settings else self.name

    def __str__(self) -> str:
        # paths and digests stand in the plan; here they would hide the rest
        shown = {name: v for name, v in self.settings.items() if not isinstance(v, str)}
        given = ", ".join(f"{name}={value}" for name, value in shown.items())
        return f"{self.name}({given})" if given else self.name


@dataclass(frozen=True)
class TensorContext:
    """One tensor that is to be joined.

    Attributes:
        name, shape: of the tensor; of an expert's matrix in one that holds all of a layer
            ``NAME[7]``, as if it were stored by itself.
        weights: of the experts' task vectors, in the order in which the experts are given.
        settings: every parameter of the operator.
        places: which expert of the plan each one is; random masks hang on it.
        inside: True for weights of an attention or MLP (not embeddings, norms or the output).
        experts: the experts' roles, for operators that keep files about each.
    """

    name: str
    shape: tuple[int, ...]
    weights: tuple[float, ...]
    settings: Mapping[str, Value]
    places: tuple[int, ...]
    inside: bool = True
    experts: tuple[str, ...] = ()

    @property
    def elements(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def is_piece(self) -> bool:
        """Whether it is an expert's matrix in a tensor that holds all of a layer."""
        return self.name.endswith("]")

    @property
    def row(self) -> int:
        """Numbers of a row; a vector is one row."""
        return max(1, self.shape[-1]) if self.shape else 1

    @property
    def is_matrix(self) -> bool:
        """Whether it is a weight matrix of an attention or MLP."""
        return self.inside and len(self.shape) == 2 and min(self.shape) > 0


class Operator:
    """How the task vectors of one unit are joined. Subclasses are registered by name.

    Attributes:
        name: as plans and the command line call it.
        summary: what it does, in one line.
        source: the paper, with its arXiv id.
        parameters: with defaults and ranges.
        experts: least and greatest number of experts that it joins; None for no limit.
        positive: whether all weights must be above 0 (they are used as parts of a whole).
        reads_all: whether it reads experts of weight 0 too, and works with one expert left.
        reads_base: whether it reads the base; without it gets an empty array.
    """

    name: str
    summary: str
    source: str
    parameters: tuple[Parameter, ...] = ()
    experts: tuple[int, int | None] = (2, None)
    positive: bool = False
    reads_all: bool = False
    reads_base: bool = True

    def resolve_settings(self, given: Mapping[str, Any], where: str) -> dict[str, Value]:
        """Every parameter's value: those given, checked, and the defaults of the others.

        Raises:
            PlanError: unknown names (with the nearest), values out of their range.
        """
        owner, place = f"{where}: operator {self.name}", f"{where}: {self.name}: "
        values = resolve_settings(self.parameters, given, owner, lambda name: f"{place}{name}")
        self.check(values, where)
        return values

    def check(self, settings: Mapping[str, Value], where: str) -> None:
        """Refuse settings that do not go together.

        Raises:
            PlanError: says which.
        """

    def pinned(
        self, given: Mapping[str, Value], experts: Sequence[str], where: str
    ) -> dict[str, Value]:
        """The given settings with files named so that they are found, and known again, anywhere:
        absolute paths, and the digest of what they hold. Most operators have none.

        Args:
            experts: the roles of the plan.

        Raises:
            CalibrationError: there is no such file, or its digest is not the one that is given.
        """
        return dict(given)

    def check_files(self, context: TensorContext, digests: Mapping[str, str]) -> None:
        """Refuse files that do not fit a tensor and the experts' weights.

        Args:
            digests: role → digest of the expert's weights.

        Raises:
            CalibrationError: says what is missing, damaged, or of other weights.
        """

    def check_weights(self, weights: Mapping[str, float], where: str) -> None:
        """Refuse a unit's weights (those that are not 0) that it cannot join.

        Raises:
            PlanError: too many or too few experts, or weights of 0 or less where parts are needed.
        """
        least, most = self.experts
        if len(weights) < least or (most is not None and len(weights) > most):
            wanted = f"exactly {least}" if least == most else f"{least} or more"
            raise PlanError(
                f"{where}: operator {self.name} joins {wanted} experts, not {len(weights)} "
                f"({', '.join(weights)}). Choose another operator for it, or set weights to 0."
            )
        for expert, weight in weights.items():
            if self.positive and weight <= 0:
                raise PlanError(
                    f"{where}: operator {self.name} takes weights as parts of a whole; that of "
                    f"{expert} is {weight:g}. Use weights above 0."
                )

    def n_passes(self, context: TensorContext) -> int:
        """How often the tensor has to be seen before it can be joined."""
        return 0

    def init_state(self, context: TensorContext, state: Any) -> Numbers:
        """The array that the next pass adds to, all zero."""
        raise NotImplementedError

    def update(
        self,
        context: TensorContext,
        state: Any,
        base: Numbers,
        experts: Sequence[Numbers],
        total: Numbers,
    ) -> None:
        """Add what a block shows to ``total``; the block may be overwritten."""
        raise NotImplementedError

    def finish_pass(self, context: TensorContext, state: Any, total: Numbers) -> Any:
        """The tensor's state after a pass (None before the first)."""
        raise NotImplementedError

    def whole(self, context: TensorContext) -> bool:
        """Whether ``merge`` needs the whole tensor in one block."""
        return False

    def grain(self, context: TensorContext) -> int:
        """Blocks begin and end at multiples of this many elements."""
        return 1

    def merge(
        self, context: TensorContext, state: Any, base: Numbers, experts: Sequence[Numbers], at: int
    ) -> Numbers:
        """The merged block, from element ``at`` on; the blocks given may be overwritten."""
        raise NotImplementedError


def blocks(begin: int, end: int, size: int, grain: int = 1) -> Iterator[tuple[int, int]]:
    """Cut [begin, end) into blocks of about ``size`` elements, in multiples of ``grain``."""
    step = max(grain, size - size % grain)
    for at in range(begin - begin % grain, end, step):
        yield at, min(at + step, end + -end % grain)


def merge_arrays(
    operator: Operator,
    context: TensorContext,
    base: Numbers,
    experts: Sequence[Numbers],
    size: int = 1 << 17,
) -> Numbers:
    """Join a tensor that lies in memory: what the merge does from files, in one call.

    Args:
        base, experts: of one shape and type, float32 or float64; they are left as they are.
        size: elements of a block.
    """
    flat, tasks = base.reshape(-1), [expert.reshape(-1) for expert in experts]
    state: Any = None
    for _ in range(operator.n_passes(context)):
        total = operator.init_state(context, state)
        for at, end in blocks(0, flat.size, size):
            cut = [expert[at:end].copy() for expert in tasks]
            operator.update(context, state, flat[at:end].copy(), cut, total)
        state = operator.finish_pass(context, state, total)
    step = max(1, flat.size) if operator.whole(context) else size
    merged = np.empty_like(flat)
    for at, end in blocks(0, flat.size, step, operator.grain(context)):
        cut = [expert[at:end].copy() for expert in tasks]
        merged[at:end] = operator.merge(context, state, flat[at:end].copy(), cut, at)
    return merged.reshape(base.shape)


def task_vectors(base: Numbers, experts: Sequence[Numbers]) -> Sequence[Numbers]:
    """Turn the experts into their task vectors, in place."""
    for expert in experts:
        np.subtract(expert, base, out=expert)
    return experts


def weighted_sum(weights: Sequence[float], vectors: Sequence[Numbers]) -> Numbers:
    """``Σ w · v``, in the first vector's place; the vectors are used up."""
    for weight, vector in zip(weights, vectors, strict=True):
        if weight != 1.0:
            np.multiply(vector, vector.dtype.type(weight), out=vector)
    for vector in vectors[1:]:
        np.add(vectors[0], vector, out=vectors[0])
    return vectors[0]


def add(base: Numbers, joined: Numbers, context: TensorContext) -> Numbers:
    """``base + λ · joined``, in ``joined``'s place."""
    scale = context.settings.get("scale", 1.0)
    if scale != 1.0:
        np.multiply(joined, joined.dtype.type(scale), out=joined)
    return np.add(base, joined, out=joined)
