"""Tensors that hold all experts of a layer, where a plan decides these apart.

Such a tensor is made of pieces: runs of elements, each by a step of its own, as if every expert's
matrix were stored by itself. Neighbours that are added up alike are one piece. What is written is
the whole tensor, on the grid of chunks that it always has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from safeswap.checkpoint.family import Family
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.sliced import SlicedTensor
from safeswap.operators import TensorOp

OpOf = Callable[[str, str, Mapping[str, Tensor]], TensorOp]
"""``(row, name, role → tensor)`` → the step that makes a tensor which that row decides."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a tensor's elements that is made by itself.

    Attributes:
        name: ``TENSOR[7]``, or ``TENSOR[7:10]`` for several experts that are made alike.
        begin, end: elements.
        experts: how many lie in it.
        op: how it is made.
        tensors: role → the same run of the member's tensor.
    """

    name: str
    begin: int
    end: int
    experts: int
    op: TensorOp
    tensors: Mapping[str, Tensor]


def pieces_of(family: Family, name: str, rows: tuple[str, ...], op_of: OpOf) -> tuple[Piece, ...]:
    """The pieces of a tensor that several rows decide, one for each expert.

    Args:
        rows: the row that decides each expert, in their order.
    """
    stacked = _Stacked(family, name, len(rows))
    made = [op_of(row, *stacked.run(e, e + 1)) for e, row in enumerate(rows)]

    def alike(expert: int) -> object:
        # what an operator makes of a matrix hangs on the matrix; sums do not
        return expert if made[expert].step else made[expert].terms

    found: list[Piece] = []
    for _, group in groupby(range(len(rows)), key=alike):
        run = list(group)
        first, last = run[0], run[-1] + 1
        place, tensors = stacked.run(first, last)
        begin, end = first * stacked.each, last * stacked.each
        found.append(Piece(place, begin, end, last - first, made[first], tensors))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Stacked:
    """A tensor in which experts lie one after another along its first dimension."""

    family: Family
    name: str
    experts: int

    @property
    def each(self) -> int:
        """Elements of an expert."""
        return self.family.base.tensors[self.name].elements // self.experts

    def run(self, first: int, last: int) -> tuple[str, dict[str, Tensor]]:
        """Some experts: what they are called, and role → tensor; one alone has the shape that it
        would be stored with.
        """
        shape = self.family.base.tensors[self.name].shape
        rows, alone = shape[0] // self.experts, last - first == 1
        own = shape[1:] if alone and rows == 1 else ((last - first) * rows, *shape[1:])
        place = f"{self.name}[{first}]" if alone else f"{self.name}[{first}:{last}]"
        return place, {
            role: SlicedTensor(place, member.tensors[self.name], first * self.each, own)
            for role, member in self.family.members.items()
        }


def meeting(pieces: tuple[Piece, ...], begin: int, end: int) -> Iterator[tuple[Piece, int, int]]:
    """The pieces that a run meets, with where in each it begins and ends."""
    for piece in pieces:
        first, last = max(begin, piece.begin), min(end, piece.end)
        if first < last:
            yield piece, first - piece.begin, last - piece.begin


def said(pieces: tuple[Piece, ...]) -> str:
    """How a tensor is made, in words, for the manifest: how many experts by which step."""
    counts: dict[str, int] = {}
    for piece in pieces:
        counts[str(piece.op)] = counts.get(str(piece.op), 0) + piece.experts
    return "by expert: " + "; ".join(f"{count} × {step}" for step, count in counts.items())
