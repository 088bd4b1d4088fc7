"""From a plan's rows to the steps by which tensors, or pieces of them, are made."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from safeswap.checkpoint.family import Family
from safeswap.checkpoint.reader import Tensor
from safeswap.merge.pieces import Piece, pieces_of
from safeswap.operators import TensorOp, applies, linear, tensor_op
from safeswap.plan import Plan, rows_for
from safeswap.roles import BASE

Pieces = dict[str, tuple[Piece, ...]]
"""Tensor → the pieces that it is made in."""


def steps_of(family: Family, plan: Plan) -> tuple[dict[str, TensorOp], Pieces]:
    """How every tensor is made, and the pieces of those that are made in several."""
    ops: dict[str, TensorOp] = {}
    pieces: Pieces = {}
    for name in family.names:
        placement = family.anatomy.placements[name]
        if not family.is_weight(name):
            ops[name] = TensorOp(((plan.donor, 1.0),))
            continue
        inside = placement.role == "projection"
        op_of = partial(_tensor_op, plan, inside)
        rows = rows_for(plan.units, placement)
        if len(rows) > 1:
            made = pieces_of(family, name, rows, op_of)
            if len(made) > 1:
                pieces[name] = made
                ops |= {piece.name: piece.op for piece in made}
                continue
        ops[name] = op_of(rows[0], name, family.tensors(name))
    return ops, pieces


def _tensor_op(
    plan: Plan, inside: bool, row: str, name: str, tensors: Mapping[str, Tensor]
) -> TensorOp:
    """How a tensor, or a piece of one, is made that a row of the plan decides."""
    operation, weights, base = plan.operation(row), plan.parts(row), tensors[BASE]
    given = [tensors[role] for role, weight in weights.items() if weight]
    if all(tensor == base for tensor in given):
        return TensorOp(((BASE, 1.0),))  # adapters that leave it as it is: nothing to compute
    if not applies(operation, weights):
        return linear(plan.units[row].weights)
    return tensor_op(operation, weights, name=name, shape=base.shape, inside=inside)
