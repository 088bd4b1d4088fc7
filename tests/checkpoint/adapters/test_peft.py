"""Every form of LoRA that is a difference of weights, against peft's own merge_and_unload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")

from transformers import AutoModelForCausalLM  # noqa: E402

from adapted import make_adapter, merged_by_peft, state_of  # noqa: E402
from families import save_tiny  # noqa: E402
from safeswap.checkpoint.adapted import open_member  # noqa: E402
from safeswap.checkpoint.model import open_checkpoint  # noqa: E402
from safeswap.checkpoint.reader import Tensor  # noqa: E402
from tiny import refused  # noqa: E402

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("llama", {}),
    "all-linear": ("llama", {"target_modules": "all-linear"}),
    "patterns": (
        "llama",
        {
            "target_modules": ALL,
            "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\..*": 8},
            "alpha_pattern": {"model.layers.0.mlp.down_proj": 3, "[kv]_proj": 16},
        },
    ),
    "rslora": ("llama", {"use_rslora": True, "rank_pattern": {"q_proj": 9}}),
    "dora": ("llama", {"use_dora": True}),
    "dora-embeddings": ("llama", {"use_dora": True, "target_modules": ["embed_tokens", "q_proj"]}),
    "dora-conv1d": ("gpt2", {"use_dora": True, "target_modules": ["c_attn", "c_proj"]}),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}),
    "modules-to-save": ("llama", {"modules_to_save": ["lm_head", "embed_tokens"]}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "v_proj"]}),
    "head": ("llama", {"target_modules": ["lm_head", "v_proj"]}),
    "tokens": ("llama", {"trainable_token_indices": [3, 5, 61]}),
    "tokens-by-name": ("llama", {"trainable_token_indices": {"embed_tokens": [0, 63, 7]}}),
    "tokens-tied": ("gemma", {"trainable_token_indices": [3, 5]}),
    "embeddings-tied": ("gemma", {"target_modules": ["embed_tokens", "v_proj"]}),
    "lora-bias": ("llama-biases", {"lora_bias": True, "target_modules": ["q_proj", "up_proj"]}),
    "bias-only": ("llama-biases", {"bias": "lora_only"}),
    "bias-all": ("qwen2", {"bias": "all"}),
    "layers": ("llama", {"layers_to_transform": [1], "target_modules": ALL}),
    "parameters-2d": ("llama", {"target_modules": [], "target_parameters": ["q_proj.weight"]}),
    "experts": (
        "gpt-oss",
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        },
    ),
    "experts-apart": (
        "qwen3-moe",
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        },
    ),
    "experts-down": (
        "qwen3-moe",
        {"target_modules": [], "target_parameters": ["mlp.experts.down_proj"]},
    ),
    "fused": ("phi3", {"target_modules": ["qkv_proj", "gate_up_proj"]}),
}


def numbers(tensor: Tensor, kind: type = np.float64) -> Any:
    values = np.empty(tensor.elements, kind)
    with tensor.reader() as reader:
        reader.read_numbers(0, tensor.elements, values)
    return torch.from_numpy(values).reshape(tensor.shape)


def adapted(base: Path, adapter: Path) -> Any:
    return open_member("sw", base, adapter, base=open_checkpoint(base))[0]


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_that_peft_merges(form: str, tmp_path: Path) -> None:
    family, settings = FORMS[form]
    base = save_tiny(family, tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", **settings)
    wanted = merged_by_peft(base, adapter, tmp_path / "merged", torch.float32)
    before, found = state_of(base), adapted(base, adapter).tensors
    assert set(found) == set(wanted)
    changed = 0
    for name, tensor in found.items():
        assert torch.allclose(numbers(tensor), wanted[name].double(), rtol=2e-6, atol=2e-6), name
        same = torch.equal(wanted[name].float(), before[name].float())
        assert same or name in adapted(base, adapter).adapter.applied.changed, name
        changed += not same
    assert changed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("form", "steps"), [("plain", 1), ("tokens", 0), ("dora", 2)])
def test_copies_in_sixteen_bits_are_peft_s_but_for_its_roundings(
    form: str, steps: int, dtype: Any, tmp_path: Path
) -> None:
    """peft rounds ΔW, and DoRA's norms, to 16 bits before the last rounding."""
    family, settings = FORMS[form]
    save_tiny(family, tmp_path / "wide")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "wide", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    base = tmp_path / "base"
    adapter = make_adapter(base, tmp_path / "adapter", dtype=dtype, size=0.03, **settings)
    wanted = merged_by_peft(base, adapter, tmp_path / "merged", torch.bfloat16)
    before = state_of(base)
    for name, tensor in adapted(base, adapter).tensors.items():
        assert tensor.dtype.name == "BF16"
        found = numbers(tensor, np.float32).bfloat16().double()
        # in units of the larger of base and result: where ΔW cancels W, the base's counts
        largest = torch.maximum(before[name].double().abs(), wanted[name].double().abs())
        apart = (found - wanted[name].double()).abs()
        assert (apart <= steps * largest * 2.0**-7 + 1e-12).all(), name


def test_adapters_tied_to_each_other_are_as_they_answer(tmp_path: Path) -> None:
    """peft's merge_and_unload adds such an update twice to the one tensor (peft 0.21.2)."""
    base = save_tiny("gemma", tmp_path / "base")
    targets = ["embed_tokens", "lm_head", "q_proj"]
    tied = {"target_modules": targets, "ensure_weight_tying": True}
    adapter = make_adapter(base, tmp_path / "adapter", size=0.05, **tied)
    whole = adapted(base, adapter)
    assert not whole.adapter.applied.notes
    auto: Any = AutoModelForCausalLM
    model, ids = auto.from_pretrained(base).eval(), torch.arange(1, 20)[None]
    state = model.state_dict()
    with torch.no_grad():
        for name, tensor in whole.tensors.items():
            state[name].copy_(numbers(tensor))
        unmerged = peft.PeftModel.from_pretrained(auto.from_pretrained(base), str(adapter)).eval()
        assert torch.allclose(model(ids).logits, unmerged(ids).logits, atol=1e-5)


@pytest.mark.parametrize("targets", [["lm_head", "q_proj"], ["lm_head"]])
def test_an_update_of_a_tied_head_alone_is_refused(targets: list[str], tmp_path: Path) -> None:
    base = save_tiny("gemma", tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "adapter", target_modules=targets)
    refused(lambda: adapted(base, adapter), "lm_head", "ties to its embeddings", "give a base")
