"""A plan made ready: checked against its checkpoints, and every output byte given its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.shards import Layout, OutputTensor, group_by_size, lay_out
from safeswap.checkpoint.tokenizers import has_tokenizer
from safeswap.errors import FamilyError, OutputError, PlanError
from safeswap.io.workers import chunks_of
from safeswap.operators import TensorOp, applies, linear, tensor_op
from safeswap.plan import Plan, check_operators, check_units
from safeswap.profile import Profile
from safeswap.roles import BASE, SAFETY


@dataclass(frozen=True, slots=True)
class Chunk:
    """A run of elements of one output tensor: a chunk of its grid, or all of it.

    Attributes:
        job: the number of its job in the run.
        name: the tensor.
        begin, end: elements.
    """

    job: int
    name: str
    begin: int
    end: int

    @property
    def key(self) -> str:
        """Its name in the journal."""
        return f"{self.job}:{self.name}:{self.begin}"


@dataclass(frozen=True)
class MergeJob:
    """One plan, ready to be carried out.

    Attributes:
        folder: name of the output below the run's root ("" when it is the root itself).
        ops: tensor → which inputs are read with which coefficients, and how they are joined.
        layout: where every output byte will lie.
        dtypes: tensor → format it is written in.
        states: tensor → what its operator found out before it merges (see ``run_passes``).
    """

    plan: Plan
    folder: str
    ops: Mapping[str, TensorOp]
    layout: Layout
    dtypes: Mapping[str, Dtype]
    states: dict[str, Any] = field(default_factory=dict)

    def chunks(self, name: str, elements: int, number: int = 0) -> list[Chunk]:
        """The runs in which a tensor is made: the chunks of its grid, or all of it at once.

        Args:
            number: of the job in its run.
        """
        runs = [(0, elements)] if self.ops[name].whole else chunks_of(elements)
        return [Chunk(number, name, begin, end) for begin, end in runs]

    def is_copy(self, family: Family, name: str) -> bool:
        """Whether a tensor's bytes are one input's bytes."""
        role = self.ops[name].copied
        return role is not None and family.members[role].tensors[name].dtype == self.dtypes[name]


def prepare(
    family: Family,
    plan: Plan,
    *,
    folder: str = "",
    dtype: Dtype | None = None,
    shard_size: int | None = None,
) -> MergeJob:
    """Check a plan against its family and fix every output byte's place; nothing is written.

    Args:
        dtype: format of all output weights; by default each tensor's format in the donor.
        shard_size: bytes of a shard; by default the base's sharding.

    Raises:
        PlanError: units that do not match the model, weights that would untie tied tensors.
    """
    check_units(plan, family.anatomy.units)
    check_operators(plan)
    ops = {name: _tensor_op(family, plan, name) for name in family.names}
    _check_tied(family, plan)
    layout, dtypes = output_layout(family, plan.donor, dtype=dtype, shard_size=shard_size)
    return MergeJob(plan, folder, ops, layout, dtypes)


def _tensor_op(family: Family, plan: Plan, name: str) -> TensorOp:
    placement = family.anatomy.placements[name]
    if not family.is_weight(name):
        return TensorOp(((plan.donor, 1.0),))
    operation, weights = plan.operation(placement.unit), plan.parts(placement.unit)
    given = [family.members[role].tensors[name] for role, weight in weights.items() if weight]
    if all(tensor == family.base.tensors[name] for tensor in given):
        return TensorOp(((BASE, 1.0),))  # adapters that leave it as it is: nothing to compute
    if not applies(operation, weights):
        return linear(plan.units[placement.unit].weights)
    shape, inside = family.base.tensors[name].shape, placement.role == "projection"
    return tensor_op(operation, weights, name=name, shape=shape, inside=inside)


def output_layout(
    family: Family, donor: str, *, dtype: Dtype | None = None, shard_size: int | None = None
) -> tuple[Layout, dict[str, Dtype]]:
    """Where every output byte will lie, and each tensor's format; needs no plan, only its donor.

    Args:
        dtype, shard_size: as in :func:`prepare`.
    """
    given = family.members[donor].tensors
    dtypes = {n: dtype if dtype and family.is_weight(n) else given[n].dtype for n in family.names}
    tensors = {n: OutputTensor(n, dtypes[n], family.base.tensors[n].shape) for n in family.names}
    if shard_size is None:
        groups = [[tensors[name] for name in names] for names in _sharding(family) if names]
    else:
        groups = group_by_size(list(tensors.values()), shard_size)
    return lay_out(groups), dtypes


def _sharding(family: Family) -> list[list[str]]:
    """The merged tensors as the base's files group them; those of no file come last, together."""
    left = dict.fromkeys(family.names)
    family_name = {tensor.name: name for name, tensor in family.base.tensors.items()}
    files = []
    for file in family.base.files:
        names = [family_name.get(tensor.name, "") for tensor in file.tensors]
        files.append([name for name in names if name in left])
        for name in files[-1]:
            del left[name]
    return [*files, list(left)]


def _check_tied(family: Family, plan: Plan) -> None:
    units = plan.units
    if not family.base.tied or "lm_head" not in units or "embeddings" not in units:
        return
    head, embeddings = units["lm_head"], units["embeddings"]
    same = plan.operation("lm_head") == plan.operation("embeddings")
    if head.weights != embeddings.weights or not same:
        raise PlanError(
            "plan: the model ties lm_head to its embeddings, so both units need the same weights "
            "and operator. Give lm_head those of embeddings."
        )


def check_donor(family: Family, donor: str) -> None:
    """The donor brings the tokenizer, where anyone has one.

    Raises:
        FamilyError: it has none; names who has.
    """
    having = [r for r, member in family.members.items() if has_tokenizer(member.tokenizer_folder)]
    if having and donor not in having:
        raise FamilyError(
            f"{family.members[donor].tokenizer_folder}: has no tokenizer, and the {donor} "
            f"checkpoint is the donor of the output's. Use --donor {having[0]} (or donor: "
            f"{having[0]} in the plan), "
            "or put the tokenizer's files into the folder."
        )


def identity(jobs: Sequence[MergeJob], profile: Profile) -> str:
    """What a resumed run must have in common with the first one (SHA-256, hex)."""
    content = {
        "inputs": {role: record.digest for role, record in profile.inputs.items()},
        "plans": [
            {unit: dict(row.weights) for unit, row in job.plan.units.items()} for job in jobs
        ],
        "operators": [
            {unit: job.plan.operation(unit).plain for unit in job.plan.units} for job in jobs
        ],
        "headers": [[shard.header.hex() for shard in job.layout.shards] for job in jobs],
        "donors": [job.plan.donor for job in jobs],
        "folders": [job.folder for job in jobs],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def refuse_overlap(family: Family, out: Path) -> None:
    """An output may not be, hold or lie in an input.

    Raises:
        OutputError: names the input.
    """
    target = out.expanduser().resolve()
    folders = ((r, folder) for r, member in family.members.items() for folder in member.folders)
    for role, folder in folders:
        if target == folder or folder in target.parents:
            raise OutputError(f"{out}: is (in) the {role} checkpoint. Choose another --out.")
        if target in folder.parents and out.exists():
            raise OutputError(f"{out}: holds the {role} checkpoint. Choose another --out.")


def check_operator_files(jobs: Sequence[MergeJob], digests: Mapping[str, str]) -> None:
    """The files that operators read fit the tensors and weights that they join.

    Args:
        digests: role → digest of its weights.

    Raises:
        CalibrationError: says what is missing, damaged, or of other weights.
    """
    for job in jobs:
        for op in job.ops.values():
            if op.step is not None:
                op.step.operator.check_files(op.step.context, digests)


def check_inputs(family: Family, plans: Sequence[Plan], profile: Profile) -> None:
    """A plan is for the weights that it was made from.

    Raises:
        FamilyError: an input's digest is not the one that the plan records.
    """
    for plan in plans:
        for role in (BASE, SAFETY, plan.language):
            wanted, found = plan.inputs[role].digest, profile.inputs[role].digest
            if wanted and wanted != found:
                raise FamilyError(
                    f"{role} checkpoint {family.members[role].folder}: its weights are not those "
                    f"that the plan was made from (digest {found[:12]}…, plan {wanted[:12]}…). "
                    "Profile and plan again, or give the original checkpoint."
                )
