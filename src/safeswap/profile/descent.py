"""Is an expert a fine-tune of this base at all? By how far its weights are from the base's.

The measure is the relative change over all projections, ‖W_expert − W_base‖ / ‖W_base‖. Two models
from different starts have nothing in common: their cosine is 0, so that the change is √(1 + s²),
with s the size of the one in the other's, which is 1 at least and √2 for models of one size. For a
fine-tune it is small: training moves weights by much less than their own size. `LIMIT` lies
between; docs/inputs.md has what was measured on both sides.

The same of the embeddings, token by token, tells whether a tokenizer is the one that the weights
were trained with: rows of other tokens have nothing in common either.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import numpy as np

from safeswap.checkpoint.family import Family
from safeswap.checkpoint.numerics import inner_product
from safeswap.checkpoint.reader import Tensor, announce
from safeswap.checkpoint.vocabularies.rows import Rows, shared_rows
from safeswap.errors import FamilyError
from safeswap.io.blas import one_thread
from safeswap.io.workers import BLOCK_ELEMENTS
from safeswap.profile.table import Profile
from safeswap.roles import BASE

LIMIT = 0.9
"""The relative change from which on an expert is no fine-tune of its base."""
_SAMPLES = 16
_ROWS = 128

_log = logging.getLogger("safeswap.profile")


def check_descent(
    profile: Profile, roles: Iterable[str] | None = None, *, force: bool = False
) -> None:
    """Refuse experts that are no fine-tunes of the base, by a profile's numbers.

    Args:
        roles: the experts to look at; by default all.
        force: warn instead.

    Raises:
        FamilyError: names the expert and its relative change.
    """
    projections = [t for t in profile.tensors if t.role == "projection" and t.base_norm]
    base = math.fsum((t.base_norm or 0.0) ** 2 for t in projections)
    for role in roles or [role for role in profile.inputs if role != BASE]:
        moved = math.fsum(t.update_norm[role] ** 2 for t in projections)
        change = math.sqrt(moved / base) if base else 0.0
        if change >= LIMIT:
            text = _sentence(role, profile.inputs[role].given, profile.inputs[BASE].source, change)
            if not force:
                raise FamilyError(f"{text} {_REMEDY}")
            _log.warning(text)


def refuse_strangers(family: Family) -> None:
    """The same from a sample of the weights, so that nobody waits for a profile in vain; and
    whether the tokens are in the order that the tokenizers say.

    Raises:
        FamilyError: names the expert, its relative change and the cosine.
        CheckpointError: a read fails.
    """
    _refuse_other_weights(family)
    _refuse_other_order(family)


def _refuse_other_weights(family: Family) -> None:
    placements = family.anatomy.placements
    names = [n for n in family.names if placements[n].role == "projection" and family.is_weight(n)]
    chosen = names[:: max(1, len(names) // _SAMPLES)]
    squares = dict.fromkeys(family.members, 0.0)
    inner = dict.fromkeys(family.experts, 0.0)
    for name in chosen if family.is_remote else ():
        tensors = [member.tensors[name] for member in family.members.values()]
        announce(tensors, 0, min(BLOCK_ELEMENTS, *(tensor.elements for tensor in tensors)))
    for name in chosen:
        with one_thread():
            numbers = {role: _first(family, role, name) for role in family.members}
        with np.errstate(over="ignore", invalid="ignore"):
            for role, values in numbers.items():
                squares[role] += inner_product(values, values)
                if role != BASE:
                    inner[role] += inner_product(values, numbers[BASE])
    base = squares[BASE]
    for role in family.experts:
        change = math.sqrt(max(0.0, squares[role] + base - 2 * inner[role]) / base) if base else 0.0
        if LIMIT <= change < math.inf:  # the profile refuses weights that are no numbers, by name
            cosine = inner[role] / (math.sqrt(base * squares[role]) or 1.0)
            expert, source = (family.members[r].text for r in (role, BASE))
            raise FamilyError(f"{_sentence(role, expert, source, change, cosine)} {_REMEDY}")


def _refuse_other_order(family: Family) -> None:
    """Compare rows of the embeddings, matched as they would be merged."""
    names = [n for n in family.anatomy.tensors("embeddings") if family.is_weight(n)]
    tables = [n for n in names if len(family.base.tensors[n].shape) == 2]
    if not tables:
        return
    name = max(tables, key=lambda n: family.base.tensors[n].shape[0])
    measured = family.measured(name)
    for role in family.experts:
        rows = shared_rows(measured[role])
        if not len(rows):
            continue
        rows = rows[:: max(1, len(rows) // _ROWS)]
        change, cosine = _apart(measured[BASE], measured[role], rows)
        if LIMIT <= change < math.inf:
            stored = family.members[role].tensors[name]
            by_number = rows[rows < stored.shape[0]]
            seen = _apart(measured[BASE], stored, by_number)[1] if len(by_number) else 0.0
            raise FamilyError(
                f"{role} expert {family.members[role].text}: the rows of {stored.name!r} "
                f"for the tokens that the base has too are {change:.2f} of the base's own size "
                f"away from it (cosine {cosine:.2f}, and {seen:.2f} row by row as they are stored; "
                f"{len(rows)} rows, by a sample), where fine-tunes are below {LIMIT:g}. Its "
                "tokenizer is not the one that its weights were trained with, or its embeddings "
                "were made anew. Give its own tokenizer, or an expert that kept the base's "
                "embeddings; --force (force=True) goes on all the same."
            )


def _apart(base: Tensor, expert: Tensor, rows: Rows) -> tuple[float, float]:
    """The relative change over some rows, and the cosine."""
    width = base.shape[1]
    found = []
    for tensor in (base, expert):
        values = np.empty(len(rows) * width, np.float64)
        with tensor.reader() as reader:
            for row in rows.tolist():
                reader.prefetch(row * width, (row + 1) * width)
            for at, row in enumerate(rows.tolist()):
                part = values[at * width : (at + 1) * width]
                reader.read_numbers(row * width, (row + 1) * width, part)
        found.append(values)
    with np.errstate(over="ignore", invalid="ignore"):
        ours, theirs = (inner_product(values, values) for values in found)
        apart = found[1] - found[0]
        change = math.sqrt(inner_product(apart, apart) / ours) if ours else 0.0
        return change, inner_product(*found) / (math.sqrt(ours * theirs) or 1.0)


def _first(family: Family, role: str, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    tensor = family.members[role].tensors[name]
    values = np.empty(min(BLOCK_ELEMENTS, tensor.elements), np.float64)
    with tensor.reader() as reader:
        reader.read_numbers(0, len(values), values)
    return values


_REMEDY = (
    "Give the base that it was trained from; --force (force=True) goes on all the same, but the "
    "difference of two such models is no task vector."
)


def _sentence(role: str, expert: str, base: str, change: float, cosine: float | None = None) -> str:
    seen = "" if cosine is None else f", cosine {cosine:.2f}, by a sample"
    return (
        f"{role} expert {expert}: is no fine-tune of the base {base}: its projections are "
        f"{change:.2f} of the base's own size away from it{seen}, where fine-tunes are below "
        f"{LIMIT:g} and unrelated models at 1 or more."
    )
