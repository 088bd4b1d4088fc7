"""What the tensors of a merged adapter are: factors picked, put together, or compressed.

With ``ΔW = s · B · A`` of each expert the weighted sum of task vectors is again such a product,
``Σ w·s·B·A = [w₁s₁B₁ | w₂s₂B₂] · [A₁; A₂]``, of the sum of the ranks. ``rank`` cuts it by a
singular value decomposition, of the small matrices that QR leaves of the factors alone: the best
adapter of that rank, in the sense of the Frobenius norm (Eckart & Young, 1936).

One scale serves all modules, ``lora_alpha / r``, whatever their ranks: vLLM reads no patterns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint.adapters import Adapter, Factors, update_of
from safeswap.checkpoint.adapters.factors import all_numbers
from safeswap.checkpoint.adapters.tensors import ConvertedTensor
from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.numerics import encode
from safeswap.checkpoint.reader import StoredTensor, Tensor
from safeswap.errors import PlanError
from safeswap.io.blas import one_thread
from safeswap.merge.chunks import chunk_bytes
from safeswap.merge.prepare import MergeJob
from safeswap.operators import applies
from safeswap.plan import Plan
from safeswap.roles import BASE

_PREFIX = "base_model.model."
Bytes = NDArray[np.uint8]


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


@dataclass
class Module:
    """A module of the adapter: the updates that it joins.

    Attributes:
        tensor: the base's tensor.
        name: the module, as peft names it.
        parts: expert → the weight of its task vector, and its update.
        scale: ``lora_alpha / r`` of the adapter that is written.
        limit: the greatest rank, or None.
        energy: after it was made: (squares that were cut off, all of them).
    """

    tensor: str
    unit: str
    name: str
    parts: Mapping[str, tuple[float, Factors]]
    scale: float = 1.0
    limit: int | None = None
    energy: tuple[float, float] = (0.0, 0.0)
    made: tuple[Bytes, Bytes] | None = field(default=None, repr=False)

    @property
    def rank(self) -> int:
        """Its rank in the adapter that is written."""
        total = sum(factors.rank for _, factors in self.parts.values())
        return min(total, self.limit or total)

    @property
    def cut(self) -> bool:
        """Whether its rank is less than its parts have together."""
        return self.rank < sum(factors.rank for _, factors in self.parts.values())

    @property
    def picked(self) -> Factors | None:
        """The update whose factors it has, byte for byte; None where they are computed."""
        if len(self.parts) != 1 or self.cut:
            return None
        ((weight, factors),) = self.parts.values()
        return factors if weight * factors.scale == self.scale else None

    def written(self) -> Iterator[Written]:
        """Its two tensors."""
        one = next(iter(self.parts.values()))[1]
        kinds = ("lora_A.weight", "lora_B.weight")
        if one.embedding:
            kinds = ("lora_embedding_A", "lora_embedding_B")
        inputs, outputs = one.a.shape[1], one.b.shape[0]
        fate = " + ".join(f"{weight:.9g} · {role}" for role, (weight, _) in self.parts.items())
        fate = f"rank {self.rank} of {fate}" if self.cut else fate
        picked = self.picked
        if picked is not None:
            fate = f"copied from {next(iter(self.parts))}"
        for index, shape in enumerate(((self.rank, inputs), (outputs, self.rank))):
            tensor = None if picked is None else (picked.a, picked.b)[index]
            dtype = tensor.dtype if tensor is not None else DTYPES["F32"]
            name = f"{_PREFIX}{self.name}.{kinds[index]}"
            yield Written(name, dtype, shape, self.unit, fate, partial(self._bytes, index))

    def _bytes(self, index: int) -> Iterator[Bytes]:
        picked = self.picked
        if picked is not None:
            tensor = (picked.a, picked.b)[index]
            raw = np.empty(tensor.nbytes, np.uint8)
            with tensor.reader() as reader:
                reader.read_raw(0, tensor.elements, raw)
            yield raw
            return
        if self.made is None:
            self.made = self._make()
        yield self.made[index]
        if index:
            self.made = None

    def _make(self) -> tuple[Bytes, Bytes]:
        rights = [all_numbers(f.a).reshape(f.a.shape) for _, f in self.parts.values()]
        lefts = [
            all_numbers(f.b).reshape(f.b.shape) * (weight * f.scale / self.scale)
            for weight, f in self.parts.values()
        ]
        right, left = np.concatenate(rights, axis=0), np.concatenate(lefts, axis=1)
        if self.cut:
            left, right, self.energy = _compressed(left, right, self.rank)
        return _encoded(right), _encoded(left)


def _encoded(values: NDArray[np.float64]) -> Bytes:
    raw = np.empty(values.size * 4, np.uint8)
    encode(np.ascontiguousarray(values).reshape(-1), DTYPES["F32"], raw)
    return raw


def _compressed(
    left: NDArray[np.float64], right: NDArray[np.float64], rank: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float]]:
    """The product's best approximation of a rank, as two factors of one size, and what is lost."""
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


@dataclass
class AdapterParts:
    """All that a merged adapter is made of.

    Attributes:
        modules: with factors.
        whole: tensors that are written whole (``modules_to_save``).
        scale: ``lora_alpha / r``.
        fan_in_fan_out: as the experts' adapters say.
    """

    modules: list[Module]
    whole: list[Written]
    scale: float
    fan_in_fan_out: bool

    def written(self) -> Iterator[Written]:
        """Every tensor, in the order in which it is made."""
        for module in self.modules:
            yield from module.written()
        yield from self.whole

    def discarded(self) -> dict[str, float]:
        """Unit → the share of its update's squares that compressing cut off, once it is made."""
        sums: dict[str, list[float]] = {}
        for module in self.modules:
            if module.cut:
                lost, whole = sums.setdefault(module.unit, [0.0, 0.0])
                sums[module.unit] = [lost + module.energy[0], whole + module.energy[1]]
        return {unit: lost / whole if whole else 0.0 for unit, (lost, whole) in sums.items()}


def adapter_parts(family: Family, job: MergeJob, rank: int | None) -> AdapterParts:
    """What the adapter of a plan is made of; reads no weights.

    Args:
        rank: the greatest rank of a module, or None.

    Raises:
        PlanError: experts that are no adapters of the base, operators that are not linear in the
            task vectors, forms of LoRA whose sums are no LoRA; names them.
    """
    adapters = adapters_of(family, job.plan.experts)
    modules: list[Module] = []
    whole: list[Written] = []
    for name in family.names:
        unit = family.anatomy.placements[name].unit
        parts = _parts(family, job.plan, name, unit)
        if not parts:
            continue
        _refuse_operator(job.plan, unit)
        base = family.base.tensors[name]
        updates = {role: update_of(tensor, base) for role, (_, tensor) in parts.items()}
        plain = {r: (parts[r][0], factors) for r, factors in updates.items() if factors is not None}
        stored = base.name
        peft_name = next(adapters[r].applied.names[stored] for r in parts)
        if len(plain) == len(parts) and all(f.experts == 1 for _, f in plain.values()):
            modules.append(Module(name, unit, peft_name, plain, limit=rank))
        else:
            _refuse_others(name, parts, adapters)
            whole.append(_whole(family, job, name, unit, peft_name))
    scale = _common_scale(modules)
    for module in modules:
        module.scale = scale
    turned = any(adapter.config.fan_in_fan_out for adapter in adapters.values())
    if not modules and not whole:
        raise PlanError(
            "--as adapter: by this plan no expert changes anything, so there is no adapter to "
            "write. Give units weights other than 0."
        )
    return AdapterParts(modules, whole, scale, turned)


def adapters_of(family: Family, experts: Iterable[str]) -> dict[str, Adapter]:
    """The adapters of experts, all of them on the run's base.

    Raises:
        PlanError: an expert is none.
    """
    found: dict[str, Adapter] = {}
    for role in experts:
        member = family.members[role]
        if member.adapter is None or member.folder != family.base.folder:
            what = "is a whole checkpoint" if member.adapter is None else "stands on another base"
            raise PlanError(
                f"--as adapter: all experts must be adapters of {family.base.text}, and the {role} "
                f"expert {member.text} {what}. Use --as checkpoint (the default) to write a whole "
                "checkpoint."
            )
        found[role] = member.adapter
    return found


def _parts(family: Family, plan: Plan, name: str, unit: str) -> dict[str, tuple[float, Tensor]]:
    """The experts that change a tensor and have weight in its unit, with that weight."""
    if not family.is_weight(name):
        weights = {plan.donor: 1.0} if plan.donor != BASE else {}
    else:
        weights = dict(plan.parts(unit))
    tensors = family.tensors(name)
    return {
        role: (weight, tensors[role])
        for role, weight in weights.items()
        if weight != 0.0 and tensors[role] != tensors[BASE]
    }


def _refuse_operator(plan: Plan, unit: str) -> None:
    operation = plan.operation(unit)
    if applies(operation, plan.parts(unit)):
        raise PlanError(
            f"--as adapter: unit {unit} is joined by {operation.name}, which looks at weights one "
            "by one, so that what comes of it has no low rank. Use linear (the default), a sum of "
            "the experts' factors; or leave --as adapter out."
        )


def _refuse_others(
    name: str, parts: Mapping[str, tuple[float, Tensor]], adapters: Mapping[str, Adapter]
) -> None:
    """What is neither factors nor a tensor that was trained whole is refused."""
    for role, (_, tensor) in parts.items():
        if isinstance(tensor, StoredTensor | ConvertedTensor):
            continue
        kind = type(tensor).__name__.removesuffix("Tensor")
        reasons = {
            "Dora": "DoRA scales every output by its norm, and sums of such are no LoRA",
            "Rows": "trainable_token_indices are rows of one adapter's own vocabulary",
            "Added": "lora_bias stands on the base's own bias",
            "LowRank": "a stack of experts, or an update besides a tensor that was trained whole",
        }
        where = adapters[role].config.path
        raise PlanError(
            f"--as adapter: {name} of the {role} adapter ({where}): "
            f"{reasons.get(kind, 'is computed')}. Use --as checkpoint (the default) to write a "
            "whole checkpoint."
        )


def _whole(family: Family, job: MergeJob, name: str, unit: str, parameter: str) -> Written:
    def blocks() -> Iterator[Bytes]:
        for chunk in job.chunks(name, family.base.tensors[name].elements):
            for _, raw in chunk_bytes(job, chunk):
                yield raw

    dtype, shape = job.dtypes[name], family.base.tensors[name].shape
    return Written(f"{_PREFIX}{parameter}", dtype, shape, unit, str(job.ops[name]), blocks)


def _common_scale(modules: list[Module]) -> float:
    """The scale that most of the picked factors have, so that most bytes stay theirs."""
    votes: Counter[float] = Counter()
    for module in modules:
        for weight, factors in module.parts.values():
            if len(module.parts) == 1 and weight * factors.scale > 0:
                votes[weight * factors.scale] += 1
    return max(votes, key=lambda scale: (votes[scale], scale)) if votes else 1.0


def adapter_config(family: Family, plan: Plan, parts: AdapterParts) -> dict[str, Any]:
    """The ``adapter_config.json`` of a merged adapter, as peft reads it."""
    source = family.base.source
    named = {family.members[role].adapter.config.base for role in plan.experts}  # type: ignore[union-attr]
    said = next(iter(named)) if len(named) == 1 else ""
    base = source.hub_id or said or str(source.folder)
    ranks = [module.rank for module in parts.modules]
    most = max(ranks, default=1)
    others = {f"^{_escaped(m.name)}": m.rank for m in parts.modules if m.rank != most}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": source.revision if base == source.hub_id else None,
        "inference_mode": True,
        "r": most,
        "lora_alpha": _plain(parts.scale * most),
        "rank_pattern": others,
        "alpha_pattern": {name: _plain(parts.scale * r) for name, r in others.items()},
        "target_modules": _targets(family, [module.name for module in parts.modules]),
        "modules_to_save": _owners(parts.whole) or None,
        "fan_in_fan_out": parts.fan_in_fan_out,
        "bias": "none",
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _escaped(name: str) -> str:
    return name.replace(".", r"\.")


def _owners(whole: list[Written]) -> list[str]:
    names = (one.name.removeprefix(_PREFIX).rpartition(".")[0] for one in whole)
    return list(dict.fromkeys(names))


def _targets(family: Family, modules: list[str]) -> list[str]:
    """Last words where they name these modules and no others of the base, else whole names."""
    words = {name.rpartition(".")[2] for name in modules}
    there = {n.removesuffix(".weight") for n in family.base.tensors if n.endswith(".weight")}
    alike = [name for name in there if name.rpartition(".")[2] in words]
    return sorted(words) if len(alike) == len(set(modules)) else list(modules)
