"""From a plan to a mergekit configuration that gives the same model.

mergekit's ``linear`` without normalisation is ``Σ c · W`` over the models listed, and a plan's unit
is ``base + Σ w · (W_e − base) = (1 − Σw) · base + Σ w · W_e``: the same sum with the base listed at
``1 − Σw``. What is written avoids what would make it another model:

- one explicit weight per unit: list-valued weights are interpolated at ``t = l / (L − 1)`` in
  floating point, which is not exact at 24, 36, 40, 48 … layers;
- filters that end with a dot (see :mod:`safeswap.interchange.filters`), and none that matches
  everything: a tensor without a weight is an error in mergekit, never a silent default;
- ``base_model`` is the plan's donor: for ``linear`` mergekit takes nothing but configuration and
  tokenizer from it, whereas ``tokenizer_source`` would rebuild the embeddings row by row and drop
  those that no token uses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from safeswap.checkpoint.dtypes import output_dtype, torch_name
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.model import Checkpoint
from safeswap.checkpoint.source import Source
from safeswap.errors import PlanError
from safeswap.interchange.filters import unit_filters
from safeswap.merge.run import family_of
from safeswap.operators import applies, linear
from safeswap.plan import Plan, check_units, rows_for
from safeswap.roles import BASE

_HEAD = """\
# mergekit 0.1.5, written by safeswap {version}: the same model as the plan's.
# Run: mergekit-yaml THIS OUT
# Every unit's tensors have a weight of their own; a name that none matches is an error.
# base_model gives configuration and tokenizer only: linear takes no weights from it.
"""


def to_mergekit(plan: Plan, *, dtype: str | None = None) -> str:
    """The configuration as YAML; opens the plan's checkpoints (their headers) for the names.

    Args:
        dtype: ``bfloat16``, ``float16`` or ``float32``; by default as stored in the donor.

    Raises:
        PlanError: operators other than linear, a donor with several formats, paths that mergekit
            reads otherwise.
        CheckpointError, FamilyError: the plan's checkpoints are not there or not one family.
    """
    from safeswap.version import __version__

    _refuse_operators(plan)
    roles = (BASE, *plan.experts)
    family = family_of([plan])
    check_units(plan, family.anatomy)
    for role, member in family.members.items():
        if member.packed:
            raise PlanError(
                f"{member.text}: the {role} checkpoint is stored in fp8, MXFP4 or GGUF, "
                "which mergekit does not read as numbers. Use safeswap merge for this plan."
            )
    if family.output(plan.language, plan.donor) is not family:
        raise PlanError(
            "the plan's checkpoints have tokens in other rows, or tie their output projection in "
            "part: safeswap matches rows by token, mergekit by number. Use safeswap merge, or "
            "experts with the base's tokenizer and tying."
        )
    weights = {n: _row_of(plan, family, n) for n in family.names if family.is_weight(n)}
    filters = unit_filters(weights)
    models = {role: _whole(family.members[role], role) for role in roles}
    content = {
        "merge_method": "linear",
        "base_model": models[plan.donor],
        "dtype": _computed_in(family, weights),
        "out_dtype": torch_name(kind)
        if (kind := output_dtype(dtype))
        else _stored_in(family, plan.donor),
        "parameters": {"normalize": False},
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)
    lines = [_HEAD.format(version=__version__) + text + "models:"]
    for role in roles:
        lines += [f"  - model: {_scalar(models[role])}", "    parameters:", "      weight:"]
        lines += _entries(plan, role, filters)
    return "\n".join(lines) + "\n"


def _row_of(plan: Plan, family: Family, name: str) -> str:
    rows = rows_for(plan.units, family.anatomy.placements[name])
    if len({tuple(plan.parts(row).values()) for row in rows}) > 1:
        raise PlanError(
            f"{name} holds {len(rows)} experts, to which the plan gives different weights; "
            "mergekit gives one weight to a whole tensor. Use safeswap merge, or plan with --by "
            "module."
        )
    return rows[0]


def _refuse_operators(plan: Plan) -> None:
    """An operator that joins nothing (one expert has weight) leaves a sum of whole tensors."""
    for unit in plan.units:
        operation = plan.operation(unit)
        if applies(operation, plan.parts(unit)):
            raise PlanError(
                f"unit {unit} has operator {operation.name!r}: safeswap convert writes sums of "
                "whole tensors only. Use safeswap merge, or set the operator to linear."
            )


def _whole(member: Checkpoint, role: str) -> str:
    """A member: mergekit joins a model and its adapter by a plus."""
    parts = [member.source, *((member.adapter.source,) if member.adapter else ())]
    return "+".join(_model(part, role) for part in parts)


def _model(source: Source, role: str) -> str:
    """A checkpoint as mergekit writes one: a folder, or ``org/name@commit``."""
    if source.address:
        raise PlanError(
            f"{role}: {source.address} is an address, which mergekit's files cannot hold. Fetch "
            "the checkpoint and give its folder."
        )
    if source.hub_id:
        elsewhere = urlsplit(source.text).scheme in ("http", "https")
        if elsewhere and urlsplit(source.text).netloc != "huggingface.co":
            raise PlanError(
                f"{role}: {source.text} is on another hub, whose address mergekit's files cannot "
                f"hold. Give the folder it was fetched to ({source.folder}) in the plan."
            )
        return f"{source.hub_id}@{source.revision}"
    text = str(source.folder)
    if "@" in text or "+" in text:
        raise PlanError(
            f"{role}: {text} holds @ or +, which mergekit reads as a revision or an adapter. "
            "Give the folder another name, or a link without them."
        )
    return text


def _computed_in(family: Family, names: Mapping[str, str]) -> str:
    """float32 holds sums of 16-bit weights well enough; 32-bit ones need float64."""
    stored = {m.tensors[n].dtype.name for m in family.members.values() for n in names}
    return "float64" if stored & {"F32", "F64"} else "float32"


def _stored_in(family: Family, donor: str) -> str:
    tensors = family.members[donor].tensors
    found = Counter(tensors[n].dtype for n in family.names if family.is_weight(n))
    if len(found) > 1:
        kinds = " and ".join(torch_name(kind) for kind in found)
        raise PlanError(
            f"the {donor} checkpoint stores {kinds}, and mergekit writes one format. Choose it "
            f"with --save-dtype, e.g. --save-dtype {torch_name(found.most_common(1)[0][0])}."
        )
    return torch_name(next(iter(found)))


def _entries(plan: Plan, role: str, filters: Mapping[str, list[str]]) -> list[str]:
    lines = []
    for unit in plan.units:
        weight = dict(linear(plan.units[unit].weights).terms).get(role, 0.0)
        for text in filters.get(unit, ()):
            lines.append(f"        - {{filter: {_scalar(text)}, value: {weight!r}}}")
    return lines


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, allow_unicode=True, width=10_000)
    return text.removesuffix("...\n").strip()
