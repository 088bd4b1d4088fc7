"""Operators join the task vectors of one unit; the plan names one.

A new operator is a file with a subclass of ``Operator`` under ``@operator``, and its name in the
import below; docs/extend.md shows one. ``registry`` holds the table, ``base`` what an operator is,
``tensor_op`` what the merge does with one tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safeswap.errors import PlanError
from safeswap.operators.base import (
    DENSITY,
    SCALE,
    SEED,
    Numbers,
    Operation,
    Operator,
    TensorContext,
    blocks,
    merge_arrays,
    task_vectors,
    weighted_sum,
)
from safeswap.operators.linear import Linear
from safeswap.operators.registry import OPERATORS, find_operator, operator
from safeswap.operators.tensor_op import OperatorStep, TensorOp, linear
from safeswap.parameters import Parameter, Value
from safeswap.roles import BASE

# registers each; the order of `safeswap methods`, after linear
from safeswap.operators import (  # isort: skip
    slerp,  # noqa: F401
    nuslerp,  # noqa: F401
    ties,  # noqa: F401
    dare,  # noqa: F401
    dare_ties,  # noqa: F401
    della,  # noqa: F401
    breadcrumbs,  # noqa: F401
    sce,  # noqa: F401
    model_stock,  # noqa: F401
    karcher,  # noqa: F401
    tsv,  # noqa: F401
    iso_c,  # noqa: F401
    wudi,  # noqa: F401
    project,  # noqa: F401
    regmean,  # noqa: F401
    gram_guided,  # noqa: F401
    sparse_edit,  # noqa: F401
)


def read_operation(content: Any, where: str) -> Operation:
    """An operator with its settings from plain values: its name, or a table with ``name`` in it.

    Raises:
        PlanError: unknown names or parameters (with the nearest), values out of their range.
    """
    table = {"name": content} if isinstance(content, str) else content
    if not isinstance(table, Mapping) or not isinstance(table.get("name"), str):
        raise PlanError(f"{where}: operator must be a name, or e.g. {{name: ties, density: 0.2}}.")
    given = {key: value for key, value in table.items() if key != "name"}
    found = find_operator(table["name"], where)
    settings = found.resolve_settings(given, where)
    return Operation(found.name, {key: settings[key] for key in given})


def pin_operation(operation: Operation, experts: Sequence[str], where: str) -> Operation:
    """An operation whose files are named by absolute paths and digests (see ``Operator.pinned``).

    Raises:
        CalibrationError: there is no such file, or its digest is not the one that is given.
    """
    found = find_operator(operation.name, where)
    return replace(operation, settings=found.pinned(operation.settings, experts, where))


def paths_in(operation: Operation) -> dict[str, str]:
    """The files and folders that an operation's settings name: parameter → path."""
    paths = (
        parameter.name for parameter in OPERATORS[operation.name].parameters if parameter.is_path
    )
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
    operator; ``project`` reads the safety expert besides, and so takes one other expert alone.
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
    found = find_operator(operation.name, where)
    found.resolve_settings(operation.settings, where)
    if applies(operation, weights):
        found.check_weights(_read(found, weights), where)


def _read(one: Operator, weights: Mapping[str, float]) -> dict[str, float]:
    return {e: w for e, w in weights.items() if w != 0.0 or one.reads_all}


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
        weights: of all experts of the plan, safety first; checked before by ``check_operation``.
        inside: whether it is a weight of an attention or MLP.
    """
    if not applies(operation, weights):
        return linear(weights)
    found = OPERATORS[operation.name]
    read = _read(found, weights)
    places = tuple(number for number, expert in enumerate(weights) if expert in read)
    settings = found.resolve_settings(operation.settings, operation.name)
    context = TensorContext(
        name, shape, tuple(read.values()), settings, places, inside, tuple(read)
    )
    terms = tuple((expert, float(weight)) for expert, weight in read.items())
    first = ((BASE, 1.0),) if found.reads_base else ()
    return TensorOp((*first, *terms), OperatorStep(found, context, str(operation)))


__all__ = [
    "DENSITY",
    "OPERATORS",
    "SCALE",
    "SEED",
    "Linear",
    "Numbers",
    "Operation",
    "Operator",
    "OperatorStep",
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
    "operator",
    "paths_in",
    "pin_operation",
    "place_operation",
    "read_operation",
    "task_vectors",
    "tensor_op",
    "weighted_sum",
]
