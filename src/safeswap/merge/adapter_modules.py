"""What a merged adapter is made of: for every tensor that experts change, the form that holds it.

Factors where all experts have factors, with magnitudes where one has them (``adapter_dora``); rows
of tokens; biases, which peft stores whole; and whole tensors (``modules_to_save``) for all else.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod

from safeswap.checkpoint.adapters import Adapter, Factors
from safeswap.checkpoint.adapters.tensors import DoraTensor, LowRankTensor, RowsTensor
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import PlanError
from safeswap.merge.adapter_dora import DoraModule
from safeswap.merge.adapter_written import PREFIX, Bytes, Module, Part, Written
from safeswap.merge.chunks import chunk_bytes
from safeswap.merge.prepare import Chunk, MergeJob
from safeswap.operators import applies
from safeswap.plan import Plan, rows_for
from safeswap.roles import BASE

_OTHERWISE = "Use --as checkpoint (the default) to write a whole checkpoint."
Parts = Mapping[str, tuple[float, Tensor]]


@dataclass
class AdapterParts:
    """All that a merged adapter is made of.

    Attributes:
        modules: with factors.
        whole: tensors that are written whole: ``modules_to_save``, biases, rows of tokens.
        owners: the modules of ``modules_to_save``.
        biases: the parameters among the whole tensors that peft takes by ``bias``.
        tokens: module → the rows of it that are written.
        scale: ``lora_alpha / r``.
        fan_in_fan_out: as the experts' adapters say.
        dora: modules have magnitudes.
    """

    modules: list[Module] = field(default_factory=list)
    whole: list[Written] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    biases: list[str] = field(default_factory=list)
    tokens: dict[str, tuple[int, ...]] = field(default_factory=dict)
    scale: float = 1.0
    fan_in_fan_out: bool = False
    dora: bool = False

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
            task vectors, forms that one adapter of peft cannot have together; names them.
    """
    run = _Run(family, job, adapters_of(family, job.plan.experts))
    for name in family.names:
        parts = _parts(family, job.plan, name)
        if parts:
            _refuse_operator(job.plan, _row_of(family, job.plan, name))
            run.take(name, parts)
    return run.parts(rank)


@dataclass
class _Run:
    """The tensors of a plan, sorted into what holds them."""

    family: Family
    job: MergeJob
    adapters: Mapping[str, Adapter]
    plain: dict[str, Parts] = field(default_factory=dict)
    stacks: dict[str, dict[str, Parts]] = field(default_factory=lambda: defaultdict(dict))
    rows: dict[str, Parts] = field(default_factory=dict)
    whole: dict[str, Parts] = field(default_factory=dict)

    def take(self, name: str, parts: Parts) -> None:
        """Decide how a tensor is held."""
        base = self.family.base.tensors[name]
        kinds = {type(t) if _under(t) == base else None for _, t in parts.values()}
        if kinds == {LowRankTensor} and self._depth(name, parts) is not None:
            self.stacks[self._peft_name(name, parts)][name] = parts
        elif kinds <= {LowRankTensor, DoraTensor}:
            self.plain[name] = parts
        elif kinds == {RowsTensor}:
            self.rows[name] = parts
        else:
            self.whole[name] = parts

    def parts(self, rank: int | None) -> AdapterParts:
        """All that was taken, as it is written."""
        found = AdapterParts()
        dora = [p for p in self.plain.values() if any(_is_dora(t) for _, t in p.values())]
        found.dora = bool(dora)
        self._refuse_together(found.dora)
        for name, parts in self.plain.items():
            found.modules.append(self._module(name, parts, found.dora))
        found.modules += self._stacks()
        for module in found.modules:
            module.limit = rank
        self._scale(found)
        self._put_whole(found)
        for name, parts in self.rows.items():
            self._put_rows(found, name, parts)
        turned = (adapter.config.fan_in_fan_out for adapter in self.adapters.values())
        found.fan_in_fan_out = any(turned)
        if not found.modules and not found.whole:
            raise PlanError(
                "--as adapter: by this plan no expert changes anything, so there is no adapter to "
                "write. Give units weights other than 0."
            )
        return found

    def _refuse_together(self, dora: bool) -> None:
        if dora and self.stacks:
            raise PlanError(
                "--as adapter: one expert is DoRA (use_dora) and one changes parameters of experts "
                f"({next(iter(self.stacks))}), and peft has no DoRA for those, nor a flag for each "
                f"module. {_OTHERWISE}"
            )

    def _unit(self, name: str) -> str:
        return _row_of(self.family, self.job.plan, name)

    def _peft_name(self, name: str, parts: Parts) -> str:
        stored = self.family.base.tensors[name].name
        return next(self.adapters[role].applied.names[stored] for role in parts)

    def _depth(self, name: str, parts: Parts) -> int | None:
        """How deep a parameter of experts is wrapped; None of a module's weight."""
        stored = self.family.base.tensors[name].name
        depths = (self.adapters[role].applied.parameters.get(stored) for role in parts)
        return max((depth for depth in depths if depth is not None), default=None)

    def _module(self, name: str, parts: Parts, dora: bool) -> Module:
        base = self.family.base.tensors[name]
        updates = {r: Part((w,), _factors(tensor)) for r, (w, tensor) in parts.items()}
        peft_name = self._peft_name(name, parts)
        if not dora:
            return Module(self._unit(name), peft_name, updates)
        if len(base.shape) != 2:
            raise PlanError(
                f"--as adapter: one expert is DoRA (use_dora), and {name} has {len(base.shape)} "
                f"sides: magnitudes are written for matrices. {_OTHERWISE}"
            )
        scaled = {r: t.magnitudes for r, (_, t) in parts.items() if isinstance(t, DoraTensor)}
        return DoraModule(self._unit(name), peft_name, updates, base=base, magnitudes=scaled)

    def _stacks(self) -> Iterator[Module]:
        """The parameters of experts; several of one owner are wrapped around each other."""
        owners: dict[str, list[str]] = defaultdict(list)
        for key in self.stacks:
            owners[key.rpartition(".")[0]].append(key)
        for keys in owners.values():
            depths = {
                key: max(self._depth(n, p) or 0 for n, p in self.stacks[key].items())
                for key in keys
            }
            ordered = sorted(keys, key=lambda k: (-depths[k], not k.endswith("gate_up_proj"), k))
            for number, key in enumerate(ordered):
                yield self._stack(key, len(ordered) - 1 - number)

    def _stack(self, key: str, wrapped: int) -> Module:
        """One parameter, of the tensors that it is stored as: one, or one for each expert."""
        weights: dict[str, list[float]] = {}
        factors: dict[str, Factors] = {}
        for parts in self.stacks[key].values():
            for role, (weight, tensor) in parts.items():
                found = _factors(tensor)
                factors[role] = found
                each = weights.setdefault(role, [0.0] * found.experts)
                whole = range(found.experts) if found.expert is None else (found.expert,)
                for expert in whole:
                    each[expert] = weight
        joined = {role: Part(tuple(each), factors[role]) for role, each in weights.items()}
        unit = self._unit(next(iter(self.stacks[key])))
        return Module(unit, key, joined, parameter=True, wrapped=wrapped)

    def _scale(self, found: AdapterParts) -> None:
        """The scale that most of the picked factors have, so that most bytes stay theirs."""
        votes = Counter(module.vote for module in found.modules if module.vote is not None)
        found.scale = max(votes, key=lambda one: (votes[one], one)) if votes else 1.0
        for module in found.modules:
            module.scale = found.scale

    def _put_whole(self, found: AdapterParts) -> None:
        """Tensors that are written whole; a bias by itself is none of a module's."""
        names = {name: self._owned(name, parts) for name, parts in self.whole.items()}
        owners = [owner for owner, leaf in names.values() if leaf != "bias"]
        found.owners = list(dict.fromkeys(owners))
        factored = {module.name for module in found.modules}
        for name, (owner, leaf) in names.items():
            parameter = f"{owner}.{leaf}"
            if owner not in found.owners:
                found.biases.append(parameter)
                inside = ".base_layer" if owner in factored else ""
                parameter = f"{owner}{inside}.{leaf}"
            elif leaf != "bias":
                self._refuse_stack(name, self.whole[name])
            found.whole.append(self._written(name, f"{PREFIX}{parameter}"))

    def _owned(self, name: str, parts: Parts) -> tuple[str, str]:
        """Module and last word of a tensor that is written whole, as peft names them."""
        found = self._peft_name(name, parts)
        leaf = self.family.base.tensors[name].name.rpartition(".")[2]
        return found.removesuffix(f".{leaf}"), leaf

    def _refuse_stack(self, name: str, parts: Parts) -> None:
        if self._depth(name, parts) is not None:
            raise PlanError(
                f"--as adapter: {name} is a stack of experts that one expert changes by factors "
                f"and one otherwise, and no form of peft holds both. {_OTHERWISE}"
            )

    def _written(self, name: str, stored: str) -> Written:
        dtype, shape = self.job.dtypes[name], self.family.base.tensors[name].shape
        blocks = partial(_whole_blocks, self.job, name, prod(shape))
        return Written(stored, dtype, shape, self._unit(name), self.job.fate(name), blocks)

    def _put_rows(self, found: AdapterParts, name: str, parts: Parts) -> None:
        """The rows that any expert trained, as a whole checkpoint would have them."""
        shape = self.family.base.tensors[name].shape
        trained = [t.rows for _, t in parts.values() if isinstance(t, RowsTensor)]
        rows = tuple(sorted({row for one in trained for row in one}))
        module = self._peft_name(name, parts)
        found.tokens[module] = rows
        stored = f"{PREFIX}{module}.token_adapter.trainable_tokens_delta"
        dtype, width = self.job.dtypes[name], prod(shape[1:])
        blocks = partial(_row_blocks, self.job, name, rows, width)
        fate = self.job.fate(name)
        made = Written(stored, dtype, (len(rows), *shape[1:]), self._unit(name), fate, blocks)
        found.whole.append(made)


def _under(tensor: Tensor) -> Tensor | None:
    return getattr(tensor, "under", None)


def _is_dora(tensor: Tensor) -> bool:
    return isinstance(tensor, DoraTensor)


def _factors(tensor: Tensor) -> Factors:
    assert isinstance(tensor, LowRankTensor | DoraTensor)
    return tensor.factors


def _whole_blocks(job: MergeJob, name: str, elements: int) -> Iterator[Bytes]:
    for chunk in job.chunks(name, elements):
        for _, raw in chunk_bytes(job, chunk):
            yield raw


def _row_blocks(job: MergeJob, name: str, rows: Iterable[int], width: int) -> Iterator[Bytes]:
    for row in rows:
        for _, raw in chunk_bytes(job, Chunk(0, name, row * width, (row + 1) * width)):
            yield raw


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


def _row_of(family: Family, plan: Plan, name: str) -> str:
    """The row of the plan that decides a tensor; of one that no expert changes any will do.

    Raises:
        PlanError: several do, one for each expert of a mixture.
    """
    placement, tensors = family.anatomy.placements[name], family.tensors(name)
    if not family.is_weight(name):
        return placement.unit
    rows = rows_for(plan.units, placement)
    if len(rows) > 1 and any(tensors[role] != tensors[BASE] for role in plan.experts):
        raise PlanError(
            f"--as adapter: {name} holds {len(rows)} experts, which the plan decides apart, and an "
            "adapter's factors are of the whole tensor. Plan with --by module, or use --as "
            "checkpoint (the default)."
        )
    return rows[0]


def _parts(family: Family, plan: Plan, name: str) -> dict[str, tuple[float, Tensor]]:
    """The experts that change a tensor and have weight in its unit, with that weight."""
    if not family.is_weight(name):
        weights = {plan.donor: 1.0} if plan.donor != BASE else {}
    else:
        weights = dict(plan.parts(_row_of(family, plan, name)))
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
