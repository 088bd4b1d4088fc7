"""What the members are stored in, for who merges them: dtypes that differ, and what rounding took.

A quantized expert differs from its base by its training and by the rounding of its weights. How
much that is, is measured on a sample of a member that was not rounded: as far as its weights move
when they are brought to the same precision. A quantized base is in every task vector, with the
rounding's sign turned: what an expert did not change is then "changed" back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from safeswap.checkpoint.precisions.packed import PackedTensor
from safeswap.checkpoint.reader import Numbers, Tensor
from safeswap.errors import FamilyError
from safeswap.io.workers import BLOCK_ELEMENTS
from safeswap.roles import BASE

_SAMPLES = 12
DECODED = ", read as numbers"
"""What a note says of weights that are stored narrow."""
_Members = Mapping[str, Mapping[str, Tensor]]


def precision_notes(members: _Members, *, force: bool = False) -> list[str]:
    """A line for each member that is not stored like the base, or is stored in a narrow precision.

    Args:
        members: role → name → tensor, the same names in all.
        force: note a quantized base beside an expert that is not, instead of refusing it.

    Raises:
        FamilyError: the base is quantized and an expert is not; says what rounding takes.
        CheckpointError: the sample cannot be read.
    """
    packed = {role: _packed(tensors) for role, tensors in members.items()}
    plain = [role for role, names in packed.items() if not names]
    notes = _dtype_notes(members, packed)
    for role, names in packed.items():
        if not names:
            continue
        text = f"{role}: {_counted(members[role], names)}{DECODED}"
        if not plain:
            notes.append(text)
            continue
        loss = _loss(members, role, names, plain[0])
        text += (
            f"; rounding to it moves weights by {loss:.2%} of their size (measured on {plain[0]}'s)"
        )
        if role == BASE and not force:
            raise FamilyError(
                f"{text}. The base is quantized and {', '.join(plain)} "
                f"{'is' if len(plain) == 1 else 'are'} not: all task vectors would hold that "
                f"rounding, where {plain[0]}'s whole change from this base is "
                f"{_change(members, plain[0], names):.2%}. Use the base that was quantized; or go "
                "on all the same with --force (force=True)."
            )
        notes.append(text)
    if not plain:
        notes.append("all members are quantized: a change smaller than their steps is not seen")
    return notes


def _dtype_notes(members: _Members, packed: Mapping[str, list[str]]) -> list[str]:
    """One line where members are stored in different formats of 16 bits and more."""
    usual = {role: _usual(tensors) for role, tensors in members.items() if not packed[role]}
    if len(set(usual.values())) < 2:
        return []
    shown = ", ".join(f"{role} {name}" for role, name in usual.items())
    return [
        f"stored in different formats ({shown}): compared as numbers; the output has its donor's, "
        "unless --save-dtype says otherwise"
    ]


def _usual(tensors: Mapping[str, Tensor]) -> str:
    """The format of most of a member's numbers."""
    counted: Counter[str] = Counter()
    for tensor in tensors.values():
        if tensor.dtype.mergeable:
            counted[tensor.dtype.name] += tensor.elements
    return max(counted, key=lambda name: (counted[name], name), default="")


def _packed(tensors: Mapping[str, Tensor]) -> list[str]:
    return [n for n, t in tensors.items() if isinstance(t, PackedTensor) and t.narrow]


def _counted(tensors: Mapping[str, Tensor], names: list[str]) -> str:
    """``7 tensors in fp8 E4M3, a scale per 128 × 128``, of each precision."""
    counted = Counter(t.precision for n in names if isinstance(t := tensors[n], PackedTensor))
    return ", ".join(f"{count} tensors in {name}" for name, count in counted.most_common())


def _loss(members: _Members, role: str, names: list[str], plain: str) -> float:
    """‖Q(w) − w‖ / ‖w‖ for a sample of a plain member's weights and the role's precisions."""
    moved, whole = 0.0, 0.0
    for name in _sample(names):
        tensor = members[role][name]
        values = _first(members[plain][name])
        if isinstance(tensor, PackedTensor):
            moved += _square(tensor.rounded(values) - values)
            whole += _square(values)
    return math.sqrt(moved / whole) if whole else 0.0


def _change(members: _Members, role: str, names: list[str]) -> float:
    """‖w_role − w_base‖ / ‖w_base‖ of the same sample."""
    moved, whole = 0.0, 0.0
    for name in _sample(names):
        base = _first(members[BASE][name])
        moved += _square(_first(members[role][name]) - base)
        whole += _square(base)
    return math.sqrt(moved / whole) if whole else 0.0


def _sample(names: list[str]) -> list[str]:
    return names[:: max(1, len(names) // _SAMPLES)][:_SAMPLES]


def _first(tensor: Tensor) -> Numbers:
    values = np.zeros(min(BLOCK_ELEMENTS, tensor.elements), np.float64)
    with tensor.reader() as reader:
        reader.read_numbers(0, len(values), values)
    return values


def _square(values: Numbers) -> float:
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number is refused by name later
        return float(np.vdot(values, values))
