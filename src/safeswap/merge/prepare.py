"""A plan made ready: checked against its checkpoints, and every output byte given its place."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.precisions import PackedTensor, Packing, parts_of
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.shards import Layout, OutputTensor, group_by_size, lay_out
from safeswap.checkpoint.stored import StoredTensor
from safeswap.checkpoint.tokenizers import has_tokenizer
from safeswap.errors import ConfigError, FamilyError, OutputError, PlanError
from safeswap.io.workers import chunks_of
from safeswap.merge.pieces import Piece, said
from safeswap.merge.steps import steps_of
from safeswap.operators import TensorOp
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
        family: as the output sees it (``Family.output``): tensors as high as they are written.
        folder: name of the output below the run's root ("" when it is the root itself).
        ops: tensor → which inputs are read with which coefficients, and how they are joined.
        layout: where every output byte will lie.
        dtypes: tensor → format it is written in.
        states: tensor → what its operator found out before it merges (see ``run_passes``).
        packings: tensor → how it is written in parts, for those that are quantized again.
        pieces: tensor → the runs that are made each by itself, for those whose experts a plan
            decides apart; ``ops``, ``dtypes`` and ``states`` know a piece by its name, and nothing
            of the whole tensor.
    """

    family: Family
    plan: Plan
    folder: str
    ops: Mapping[str, TensorOp]
    layout: Layout
    dtypes: Mapping[str, Dtype]
    states: dict[str, Any] = field(default_factory=dict)
    packings: Mapping[str, Packing] = field(default_factory=dict)
    pieces: Mapping[str, tuple[Piece, ...]] = field(default_factory=dict)

    @cached_property
    def _piece(self) -> dict[str, Piece]:
        return {piece.name: piece for own in self.pieces.values() for piece in own}

    def tensor(self, role: str, name: str) -> Tensor:
        """A member's tensor, or its part in a piece."""
        if name in self._piece:
            return self._piece[name].tensors[role]
        return self.family.members[role].tensors[name]

    def makes(self, name: str) -> tuple[TensorOp, ...]:
        """The steps that a tensor of the family is made with: one, or one for each piece."""
        if name in self.pieces:
            return tuple(piece.op for piece in self.pieces[name])
        return (self.ops[name],)

    def fate(self, name: str) -> str:
        """How a tensor of the family is made, in words."""
        return said(self.pieces[name]) if name in self.pieces else str(self.ops[name])

    def chunks(self, name: str, elements: int, number: int = 0) -> list[Chunk]:
        """The runs in which a tensor is made: the chunks of its grid, or all of it at once.

        Args:
            number: of the job in its run.
        """
        whole = any(op.whole for op in self.makes(name))
        runs = [(0, elements)] if whole else list(chunks_of(elements))
        if name in self.packings:
            runs = self.packings[name].runs()
        return [Chunk(number, name, begin, end) for begin, end in runs]

    def is_copy(self, name: str) -> bool:
        """Whether a tensor's bytes are one input's bytes."""
        role = None if name in self.pieces else self.ops[name].copied
        if role is None:
            return False
        tensor = self.tensor(role, name)
        if name in self.packings:
            return self.packings[name].holds(tensor)
        return tensor.dtype == self.dtypes[name]

    def elements(self, name: str) -> int:
        """Elements of an output tensor, or of a piece of one."""
        return self.tensor(BASE, name).elements

    def extra(self, name: str) -> dict[str, StoredTensor]:
        """Output name → the scales of activations that go with a tensor that is written in parts:
        those of the checkpoint that it is copied from, where they fit, else the donor's.
        """
        if name not in self.packings:
            return {}
        role = self.ops[name].copied if self.is_copy(name) else None
        own = _extra(self.family, role or self.plan.donor, name)
        return {
            n: own[n] if n in own and (own[n].dtype, own[n].shape) == (t.dtype, t.shape) else t
            for n, t in _extra(self.family, self.plan.donor, name).items()
        }

    def outputs(self, name: str) -> list[OutputTensor]:
        """What is written of one of the family's tensors."""
        if name not in self.packings:
            shape = self.family.base.tensors[name].shape
            return [OutputTensor(name, self.dtypes[name], shape)]
        found = [OutputTensor(p.name, p.dtype, p.shape) for p in self.packings[name].parts]
        extra = _extra(self.family, self.plan.donor, name)
        return found + [OutputTensor(n, t.dtype, t.shape) for n, t in extra.items()]


def prepare(
    family: Family,
    plan: Plan,
    *,
    folder: str = "",
    dtype: Dtype | None = None,
    shard_size: int | None = None,
    same: bool = False,
) -> MergeJob:
    """Check a plan against its family and fix every output byte's place; nothing is written.

    Args:
        dtype: format of all output weights; by default each tensor's format in the donor.
        shard_size: bytes of a shard; by default the base's sharding.
        same: quantized weights are quantized again, as the donor's are.

    Raises:
        PlanError: units that do not match the model, weights that would untie tied tensors.
    """
    check_units(plan, family.anatomy)
    check_operators(plan)
    family = family.output(plan.language, plan.donor)
    ops, pieces = steps_of(family, plan)
    _check_tied(family, plan)
    layout, dtypes, packings = output_layout(
        family, plan.donor, dtype=dtype, shard_size=shard_size, same=same
    )
    dtypes |= {piece.name: dtypes[name] for name, own in pieces.items() for piece in own}
    return MergeJob(family, plan, folder, ops, layout, dtypes, packings=packings, pieces=pieces)


def output_layout(
    family: Family,
    donor: str,
    *,
    dtype: Dtype | None = None,
    shard_size: int | None = None,
    same: bool = False,
) -> tuple[Layout, dict[str, Dtype], dict[str, Packing]]:
    """Where every output byte will lie, each tensor's format, and how those are written that are
    quantized again; needs no plan, only its donor.

    Args:
        family: as the output sees it.
        dtype, shard_size, same: as in :func:`prepare`.
    """
    given = family.members[donor].tensors
    dtypes = {n: dtype if dtype and family.is_weight(n) else given[n].dtype for n in family.names}
    packings = _packings(family, donor) if same else {}
    tensors: dict[str, list[OutputTensor]] = {}
    for name in family.names:
        tensors[name] = [OutputTensor(name, dtypes[name], family.base.tensors[name].shape)]
        if name in packings:
            parts = packings[name].parts
            tensors[name] = [OutputTensor(p.name, p.dtype, p.shape) for p in parts]
            extra = _extra(family, donor, name).items()
            tensors[name] += [OutputTensor(n, t.dtype, t.shape) for n, t in extra]
            dtypes |= {one.name: one.dtype for one in tensors[name]}
    if shard_size is None:
        groups = [[t for n in names for t in tensors[n]] for names in _sharding(family) if names]
    else:
        groups = group_by_size([t for n in family.names for t in tensors[n]], shard_size)
    return lay_out(groups), dtypes, packings


def _packings(family: Family, donor: str) -> dict[str, Packing]:
    """How the donor's quantized weights would be written again.

    Raises:
        ConfigError: they are GGUF.
    """
    found = {}
    for name in family.names:
        given = family.members[donor].tensors[name]
        tensor = family.members[donor].beneath(given)
        if not isinstance(tensor, PackedTensor) or tensor.shape != given.shape:
            continue
        packing = tensor.packing(name)
        if packing is None:
            raise ConfigError(
                f"--save-dtype same: the {donor} checkpoint is {tensor.precision}, which is read "
                "and not written. Use --save-dtype bfloat16, and llama.cpp's llama-quantize on it."
            )
        found[name] = packing
    return found


def _extra(family: Family, role: str, name: str) -> dict[str, StoredTensor]:
    """Output name → the scales of activations that a member has for a tensor."""
    member = family.members[role]
    stored = member.tensors[name].name
    taken = stored.removesuffix(name) if stored.endswith(name) else ""
    given = name.removesuffix(stored) if name.endswith(stored) else ""
    return {given + one.name.removeprefix(taken): one for one in member.extra.get(stored, ())}


def _sharding(family: Family) -> list[list[str]]:
    """The merged tensors as the base's files group them, or the donor's where names are its own;
    those of no file come last, together.
    """
    left = dict.fromkeys(family.names)
    family_name: dict[str, str] = {}
    member = family.members[family.sharded_by]
    for name, tensor in member.tensors.items():  # embeddings may serve as the head too
        for stored in parts_of(tensor)[:1] or (tensor,):
            family_name.setdefault(stored.name, name)
    files = []
    for file in member.files:
        names = [family_name.get(tensor.name, "") for tensor in file.tensors]
        files.append([name for name in names if name in left])
        for name in files[-1]:
            del left[name]
    return [*files, list(left)]


def _check_tied(family: Family, plan: Plan) -> None:
    units = plan.units
    outside = {family.anatomy.placements[name].unit for name in family.names}
    if not family.tying.tied[plan.donor] or not {"lm_head", "embeddings"} <= outside:
        return
    head, embeddings = units["lm_head"], units["embeddings"]
    same = plan.operation("lm_head") == plan.operation("embeddings")
    if head.weights != embeddings.weights or not same:
        raise PlanError(
            "plan: the model ties lm_head to its embeddings, so both units need the same weights "
            "and operator. Give lm_head those of embeddings."
        )


def check_donor(family: Family, donor: str) -> None:
    """The donor brings the tokenizer, where anyone has one, and a configuration that goes with the
    base's tensors.

    Raises:
        FamilyError: it has none; names who has. Or it lacks tensors, or has more.
    """
    whole = [role for role, member in family.members.items() if member.has_config]
    if donor not in whole:
        raise FamilyError(
            f"{family.members[donor].text}: is GGUF without a config.json, and the {donor} "
            f"checkpoint is the donor of the output's configuration and tokenizer. Use --donor "
            f"{whole[0]} (or donor: {whole[0]} in the plan), or put config.json and the "
            "tokenizer's files beside the file."
        )
    if donor in family.lent:
        raise FamilyError(
            f"{family.members[donor].folder}: its config.json is for other tensors than the output "
            f"has ({family.lent[donor].note(donor, len(family.names))}), and the {donor} "
            "checkpoint is the donor of the output's. Use --donor base (or donor: base in the "
            "plan)."
        )
    having = [role for role in whole if has_tokenizer(family.members[role].tokenizer_folder)]
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
        "rows": [
            {n: record.digest for n, record in job.family.rows.tables.items()} for job in jobs
        ],
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
