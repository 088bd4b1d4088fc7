"""Adapters that peft itself makes, with random numbers everywhere, and what it merges of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

peft = pytest.importorskip("peft")

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

State = dict[str, torch.Tensor]


def make_adapter(
    base: Path,
    folder: Path,
    seed: int = 1,
    dtype: torch.dtype | None = None,
    size: float = 0.15,
    **settings: Any,
) -> Path:
    """A LoRA of `base` as peft's save_pretrained writes it; `settings` go to its LoraConfig.

    All that it would train has random numbers; `size` is that of both factors.
    """
    settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]} | settings
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    given = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in given.named_parameters():
            if not value.requires_grad:
                continue
            if "magnitude" in name:
                value.mul_(1 + 0.2 * torch.rand_like(value))
            elif "lora_" in name and value.dim() > 1:
                value.normal_(std=size)
            else:
                value.add_(0.05 * torch.randn_like(value))
        if dtype is not None:
            for value in given.parameters():
                if value.requires_grad:
                    value.data = value.data.to(dtype)
    given.save_pretrained(str(folder))
    return folder


def state_of(folder: Path) -> State:
    """All tensors of a folder of safetensors."""
    found: State = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def merged_by_peft(base: Path, adapter: Path, out: Path, dtype: Any = "auto") -> State:
    """What peft's merge_and_unload makes, by the names of the stored checkpoint."""
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    whole = peft.PeftModel.from_pretrained(model, str(adapter))
    whole.merge_and_unload().save_pretrained(str(out))
    return state_of(out)
