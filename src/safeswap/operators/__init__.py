"""Operators join the task vectors of one unit; the plan names one.

A new operator is a file with a subclass of `Operator` and its line in `OPERATORS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safeswap.errors import PlanError, nearest
from safeswap.operators.base import (
    Numbers,
    Operation,
    Operator,
    Parameter,
    TensorContext,
    Value,
    blocks,
    merge_arrays,
)
from safeswap.operators.breadcrumbs import Breadcrumbs
from safeswap.operators.dare import Dare
from safeswap.operators.dare_ties import DareTies
from safeswap.operators.della import Della
from safeswap.operators.iso_c import IsoC
from safeswap.operators.karcher import Karcher
from safeswap.operators.kernels.factorize import one_blas_thread
from safeswap.operators.linear import Join, Linear, TensorOp, linear
from safeswap.operators.model_stock import ModelStock
from safeswap.operators.nuslerp import Nuslerp
from safeswap.operators.project import Project
from safeswap.operators.regmean import RegMean
from safeswap.operators.sce import Sce
from safeswap.operators.slerp import Slerp
from safeswap.operators.ties import Ties
from safeswap.operators.tsv import Tsv
from safeswap.operators.wudi import Wudi
from safeswap.roles import BASE

OPERATORS: dict[str, Operator] = {
    operator.name: operator
    for operator in (
        Linear(),
        Slerp(),
        Nuslerp(),
        Ties(),
        Dare(),
        DareTies(),
        Della(),
        Breadcrumbs(),
        Sce(),
        ModelStock(),
        Karcher(),
        Tsv(),
        IsoC(),
        Wudi(),
        Project(),
        RegMean(),
    )
}
"""Every operator by its name, in the order in which they are listed."""


def find_operator(name: str, where: str) -> Operator:
    """The operator of a name.

    Raises:
        PlanError: there is none; names the nearest.
    """
    if name not in OPERATORS:
        raise PlanError(f"{where}: unknown operator {name!r}{nearest(name, OPERATORS)}")
    return OPERATORS[name]


def read_operation(content: Any, where: str) -> Operation:
    """An operator with its settings from plain values: its name, or a table with ``name`` in it.

    Raises:
        PlanError: unknown names or parameters (with the nearest), values out of their range.
    """
    table = {"name": content} if isinstance(content, str) else content
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise PlanError(f"{where}: operator must be a name, or e.g. {{name: ties, density: 0.2}}.")
    given = {key: value for key, value in table.items() if key != "name"}
    operator = find_operator(table["name"], where)
    settings = operator.resolve_settings(given, where)
    return Operation(operator.name, {key: settings[key] for key in given})


def pin_operation(operation: Operation, experts: Sequence[str], where: str) -> Operation:
    """An operation whose files are named by absolute paths and digests (see `Operator.pinned`).

    Raises:
        CalibrationError: there is no such file, or its digest is not the one that is given.
    """
    operator = find_operator(operation.name, where)
    return replace(operation, settings=operator.pinned(operation.settings, experts, where))


def paths_in(operation: Operation) -> dict[str, str]:
    """The files and folders that an operation's settings name: parameter → path."""
    paths = (parameter.name for parameter in OPERATORS[operation.name].parameters if parameter.path)
    return {name: str(operation.settings[name]) for name in paths if operation.settings.get(name)}


def place_operation(operation: Operation, folder: Path) -> Operation:
    """The paths in an operation's settings, those that are relative, as seen from a folder."""
    found = {
        name: str((folder / Path(path).expanduser()).resolve())
        for name, path in paths_in(operation).items()
    }
    return replace(operation, settings={**operation.settings, **found})


def applies(operation: Operation, weights: Mapping[str, float]) -> bool:
    """Whether a unit is joined by its operator: where two or more experts have weight.

    With one expert, ``base + w · t`` is all there is to do (at weight 1 a copy), whatever the
    operator; `project` reads the safety expert besides, and so takes one other expert alone.
    """
    given = [expert for expert, weight in weights.items() if weight != 0.0]
    if operation.name == "linear":
        return False
    if OPERATORS[operation.name].reads_all:
        return any(expert != next(iter(weights)) for expert in given)
    return len(given) >= 2


def check_operation(operation: Operation, weights: Mapping[str, float], where: str) -> None:
    """Refuse what cannot be joined, before any weight is read.

    Args:
        weights: of all experts of a unit, safety first.

    Raises:
        PlanError: unknown names, settings out of range, a wrong number of experts.
    """
    operator = find_operator(operation.name, where)
    operator.resolve_settings(operation.settings, where)
    if applies(operation, weights):
        operator.check_weights(_read(operator, weights), where)


def _read(operator: Operator, weights: Mapping[str, float]) -> dict[str, float]:
    return {e: w for e, w in weights.items() if w != 0.0 or operator.reads_all}


def tensor_op(
    operation: Operation,
    weights: Mapping[str, float],
    *,
    name: str,
    shape: tuple[int, ...],
    inside: bool,
) -> TensorOp:
    """How one tensor is made.

    Args:
        weights: of all experts of the plan, safety first; checked before by `check_operation`.
        inside: whether it is a weight of an attention or MLP.
    """
    if not applies(operation, weights):
        return linear(weights)
    operator = OPERATORS[operation.name]
    read = _read(operator, weights)
    places = tuple(number for number, expert in enumerate(weights) if expert in read)
    settings = operator.resolve_settings(operation.settings, operation.name)
    task = TensorContext(name, shape, tuple(read.values()), settings, places, inside, tuple(read))
    terms = tuple((expert, float(weight)) for expert, weight in read.items())
    first = ((BASE, 1.0),) if operator.reads_base else ()
    return TensorOp((*first, *terms), Join(operator, task, str(operation)))


__all__ = [
    "OPERATORS",
    "Join",
    "Numbers",
    "Operation",
    "Operator",
    "Parameter",
    "TensorContext",
    "TensorOp",
    "Value",
    "applies",
    "blocks",
    "check_operation",
    "find_operator",
    "linear",
    "merge_arrays",
    "one_blas_thread",
    "paths_in",
    "pin_operation",
    "place_operation",
    "read_operation",
    "tensor_op",
]
