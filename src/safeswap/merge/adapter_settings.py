"""The ``adapter_config.json`` of a merged adapter, as peft reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from safeswap.checkpoint.family import Family
from safeswap.merge.adapter_modules import AdapterParts
from safeswap.merge.adapter_written import Module
from safeswap.plan import Plan

_NO_MODULES = "dummy-target-modules"
"""What peft takes for ``target_modules`` where there are none; it refuses an empty list."""


def adapter_config(family: Family, plan: Plan, parts: AdapterParts) -> dict[str, Any]:
    """What ``adapter_config.json`` says of an adapter's parts.

    Patterns are of whole names; the scale of all modules is one, ``lora_alpha / r``.
    """
    source = family.base.source
    named = {family.members[role].adapter.config.base for role in plan.experts}  # type: ignore[union-attr]
    said = next(iter(named)) if len(named) == 1 else ""
    base = source.hub_id or said or str(source.folder)
    most = max((module.rank for module in parts.modules), default=1)
    others = {f"^{_escaped(m.name)}": m.rank for m in parts.modules if m.rank != most}
    parameters = [module.name for module in parts.modules if module.parameter]
    modules = [module for module in parts.modules if not module.parameter]
    found = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "revision": source.revision if base == source.hub_id else None,
        "inference_mode": True,
        "r": most,
        "lora_alpha": _plain(parts.scale * most),
        "rank_pattern": others,
        "alpha_pattern": {name: _plain(parts.scale * r) for name, r in others.items()},
        "target_modules": _targets(family, modules) if modules or parameters else _NO_MODULES,
        "modules_to_save": parts.owners or None,
        "fan_in_fan_out": parts.fan_in_fan_out and not parameters,
        "bias": "all" if parts.biases else "none",
        "lora_dropout": 0.0,
        "use_rslora": False,
        "use_dora": parts.dora,
        "init_lora_weights": True,
    }
    if parameters:
        found["target_parameters"] = parameters
    if parts.tokens:
        found["trainable_token_indices"] = {name: list(rows) for name, rows in parts.tokens.items()}
    return found


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _escaped(name: str) -> str:
    return name.replace(".", r"\.")


def _targets(family: Family, modules: Iterable[Module]) -> list[str]:
    """Last words where they name these modules and no others of the base, else whole names."""
    names = {module.name for module in modules}
    words = {name.rpartition(".")[2] for name in names}
    there = {n.removesuffix(".weight") for n in family.base.tensors if n.endswith(".weight")}
    alike = [name for name in there if name.rpartition(".")[2] in words]
    return sorted(words) if len(alike) == len(names) else sorted(names)
