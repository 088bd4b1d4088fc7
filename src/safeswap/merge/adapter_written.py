"""What of a merged adapter is made of factors: picked, put side by side, or compressed.

With ``ΔW = s · B · A`` of each expert the weighted sum of task vectors is again such a product,
``Σ w·s·B·A = [w₁s₁B₁ | w₂s₂B₂] · [A₁; A₂]``, of the sum of the ranks. ``rank`` cuts it by a
singular value decomposition, of the small matrices that QR leaves of the factors alone: the best
adapter of that rank, in the sense of the Frobenius norm (Eckart & Young, 1936).

A stack of experts (``target_parameters``) has such a pair for each of its experts: A's rows are one
expert's after another, column k·E + e of B is the k-th of expert e of E.

One scale serves all modules, ``lora_alpha / r``, whatever their ranks: vLLM reads no patterns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.adapters import Factors
from safeswap.checkpoint.adapters.factors import all_numbers
from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.numerics import encode
from safeswap.checkpoint.reader import Tensor
from safeswap.io.blas import one_thread

PREFIX = "base_model.model."
Bytes = NDArray[np.uint8]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Written:
    """A tensor of the adapter that is written.

    Attributes:
        name, dtype, shape: as it is stored.
        unit: of the plan.
        fate: what it is made of, in words.
        blocks: makes its bytes, block by block.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    unit: str
    fate: str
    blocks: Callable[[], Iterator[Bytes]]


@dataclass(frozen=True)
class Part:
    """An expert's update of a module.

    Attributes:
        weights: of its task vector, for each expert of a stack; one number for any other module.
        factors: the update; of a stack that is stored expert by expert, that of any of its tensors.
    """

    weights: tuple[float, ...]
    factors: Factors

    @property
    def weight(self) -> float | None:
        """The one weight, or None where the experts of a stack have several."""
        return self.weights[0] if len(set(self.weights)) == 1 else None

    def read(self) -> tuple[Matrix, Matrix]:
        """``lora_A`` (rank·experts × inputs) and ``lora_B`` (outputs × rank·experts)."""
        a, b = self.factors.a, self.factors.b
        return all_numbers(a).reshape(a.shape[0], -1), all_numbers(b).reshape(b.shape[0], -1)


@dataclass
class Module:
    """A module of the adapter: the updates that it joins.

    Attributes:
        unit: of the plan.
        name: the module or parameter, as peft names it.
        parts: expert → its update.
        parameter: it is named in ``target_parameters``.
        wrapped: how many parameters of its owner are wrapped further outside.
        scale: ``lora_alpha / r`` of the adapter that is written.
        limit: the greatest rank, or None.
        energy: after it was made: (squares that were cut off, all of them).
    """

    unit: str
    name: str
    parts: Mapping[str, Part]
    parameter: bool = False
    wrapped: int = 0
    scale: float = 1.0
    limit: int | None = None
    energy: tuple[float, float] = (0.0, 0.0)
    made: tuple[Bytes, ...] | None = field(default=None, repr=False)

    @property
    def rank(self) -> int:
        """Its rank in the adapter that is written."""
        return min(self.whole_rank, self.limit or self.whole_rank)

    @property
    def whole_rank(self) -> int:
        """The ranks of its parts together."""
        return sum(part.factors.rank for part in self.parts.values())

    @property
    def cut(self) -> bool:
        """Whether its rank is less than its parts have together."""
        return self.rank < self.whole_rank

    @property
    def vote(self) -> float | None:
        """The scale with which its factors would be picked, or None where they are computed."""
        if len(self.parts) != 1 or self.cut:
            return None
        (part,) = self.parts.values()
        found = part.weight and part.weight * part.factors.scale
        return found if found and found > 0 else None

    @property
    def picked(self) -> Factors | None:
        """The update whose factors it has, byte for byte; None where they are computed."""
        return next(iter(self.parts.values())).factors if self.vote == self.scale else None

    @property
    def stored_as(self) -> str:
        """The module in the names of its tensors."""
        owner = self.name.rpartition(".")[0] if self.parameter else self.name
        return f"{PREFIX}{owner}" + ".base_layer" * self.wrapped

    def written(self) -> Iterator[Written]:
        """Its tensors."""
        one = next(iter(self.parts.values())).factors
        kinds = ("lora_A.weight", "lora_B.weight")
        if one.embedding:
            kinds = ("lora_embedding_A", "lora_embedding_B")
        fate, picked = self.fate(), self.picked
        inputs, outputs, rank = one.a.shape[1:], one.b.shape[0], self.rank * one.experts
        shapes = ((rank, *inputs), (outputs, rank, *one.b.shape[2:]))
        for index, (kind, shape) in enumerate(zip(kinds, shapes, strict=True)):
            tensor = None if picked is None else (picked.a, picked.b)[index]
            yield self._one(kind, shape, index, fate, tensor)

    def _one(
        self, kind: str, shape: tuple[int, ...], index: int, fate: str, picked: Tensor | None
    ) -> Written:
        name = f"{self.stored_as}.{kind}"
        if picked is not None:
            copied = partial(_copied, picked)
            return Written(name, picked.dtype, shape, self.unit, fate, copied)
        made = partial(self._bytes, index)
        return Written(name, DTYPES["F32"], shape, self.unit, fate, made)

    def fate(self) -> str:
        """What it is made of, in words."""
        if self.picked is not None:
            return f"copied from {next(iter(self.parts))}"
        said = " + ".join(f"{_shown(part)} · {role}" for role, part in self.parts.items())
        return f"rank {self.rank} of {said}" if self.cut else said

    def _bytes(self, index: int) -> Iterator[Bytes]:
        if self.made is None:
            self.made = self.make()
        made = self.made
        if index == len(made) - 1:  # they are asked for one after another
            self.made = None
        yield made[index]

    def make(self) -> tuple[Bytes, ...]:
        """The bytes of all its tensors."""
        experts = next(iter(self.parts.values())).factors.experts
        read = [(part, *part.read()) for part in self.parts.values()]
        pairs, lost, whole = [], [], []
        for expert in range(experts):
            left, right = self._pair(read, expert, experts)
            if self.cut:
                left, right, squares = compressed(left, right, self.rank)
                lost.append(squares[0])
                whole.append(squares[1])
            pairs.append((left, right))
        self.energy = math.fsum(lost), math.fsum(whole)
        right = np.concatenate([one for _, one in pairs], axis=0)
        left = np.stack([one for one, _ in pairs], axis=2).reshape(len(pairs[0][0]), -1)
        return encoded(right), encoded(left)

    def _pair(
        self, read: Iterable[tuple[Part, Matrix, Matrix]], expert: int, experts: int
    ) -> tuple[Matrix, Matrix]:
        """The sum of one expert's updates as a product: outputs × ranks, ranks × inputs."""
        lefts, rights = [], []
        for part, a, b in read:
            weight = part.weights[expert if len(part.weights) > 1 else 0]
            first, rank = expert * part.factors.rank, part.factors.rank
            rights.append(a[first : first + rank])
            lefts.append(b[:, expert::experts] * (weight * part.factors.scale / self.scale))
        return np.concatenate(lefts, axis=1), np.concatenate(rights, axis=0)


def _copied(tensor: Tensor) -> Iterator[Bytes]:
    raw = np.empty(tensor.nbytes, np.uint8)
    with tensor.reader() as reader:
        reader.read_raw(0, tensor.elements, raw)
    yield raw


def _shown(part: Part) -> str:
    if part.weight is not None:
        return f"{part.weight:.9g}"
    return f"({min(part.weights):.9g} to {max(part.weights):.9g}, by expert)"


def encoded(values: Matrix) -> Bytes:
    """Numbers as the bytes of float32."""
    raw = np.empty(values.size * 4, np.uint8)
    encode(np.ascontiguousarray(values).reshape(-1), DTYPES["F32"], raw)
    return raw


def compressed(
    left: Matrix, right: Matrix, rank: int
) -> tuple[Matrix, Matrix, tuple[float, float]]:
    """The product's best approximation of a rank, as two factors of one size, and what is lost:
    (squares that were cut off, all squares).
    """
    with one_thread():
        q_left, r_left = np.linalg.qr(left)
        q_right, r_right = np.linalg.qr(right.T)
        u, values, v = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
        kept = min(rank, len(values))
        signs = np.sign(u[np.abs(u).argmax(axis=0), np.arange(u.shape[1])])  # else anybody's choice
        roots = np.zeros(rank)
        roots[:kept] = np.sqrt(values[:kept]) * np.where(signs[:kept] == 0, 1, signs[:kept])
        new_left, new_right = np.zeros((len(left), rank)), np.zeros((rank, right.shape[1]))
        new_left[:, :kept] = (q_left @ u[:, :kept]) * roots[:kept]
        new_right[:kept] = (v[:kept] @ q_right.T) * roots[:kept, None]
    squares = values * values
    return new_left, new_right, (math.fsum(squares[kept:]), math.fsum(squares))
