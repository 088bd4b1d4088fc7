"""Adapters of `tiny`'s checkpoints, written by hand from numpy: no torch, no peft."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

from tiny import Tensors

MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.down_proj")


def numbers_of(folder: Path) -> Tensors:
    """A stored checkpoint's tensors in float64."""
    found: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {n: v.astype(np.float64) for n, v in load_file(file).items()}
    return found


def write_adapter(
    folder: Path,
    base: Path,
    seed: int = 1,
    rank: int = 3,
    dtype: Any = np.float32,
    modules: tuple[str, ...] = MODULES,
    more: Tensors | None = None,
    **config: Any,
) -> dict[str, np.ndarray[Any, Any]]:
    """Write a LoRA with α = 6; the updates that it stands for, by the base's names, in float64."""
    chance = np.random.default_rng(seed)
    stored, updates, tensors = numbers_of(base), {}, dict(more or {})
    for name, weight in stored.items():
        module = name.removesuffix(".weight")
        if not module.endswith(modules):
            continue
        rows, columns = weight.shape
        a = (0.05 * chance.standard_normal((rank, columns))).astype(dtype)
        b = (0.05 * chance.standard_normal((rows, rank))).astype(dtype)
        tensors[f"base_model.model.{module}.lora_A.weight"] = a
        tensors[f"base_model.model.{module}.lora_B.weight"] = b
        updates[name] = 6 / rank * b.astype(np.float64) @ a.astype(np.float64)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    said = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": rank, "lora_alpha": 6}
    (folder / "adapter_config.json").write_text(json.dumps(said | config))
    return updates


BF16 = ml_dtypes.bfloat16
