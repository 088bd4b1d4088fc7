"""Mixtures, hybrids, mixers, encoder-decoders and towers: merged, verified, loaded and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import safeswap
from families import save_tiny
from tiny import swap

ROLES = ("base", "safety", "sw")


def merged(tmp_path: Path) -> Path:
    trio = {role: tmp_path / role for role in ROLES}
    swap(trio, tmp_path / "out")
    assert safeswap.verify_merge(tmp_path / "out").nbytes > 0
    return tmp_path / "out"


def save_all(tmp_path: Path, auto: Any, make: Any) -> None:
    """A trio of `make()`'s model: two experts half-way to other weights."""
    base: dict[str, torch.Tensor] = {}
    for seed, role in enumerate(ROLES):
        torch.manual_seed(seed)
        model = auto(make()).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if seed:
                    weight.copy_((weight + base[name]) / 2)
                else:
                    base[name] = weight.detach().clone()
        model.save_pretrained(tmp_path / role)


@pytest.mark.parametrize("name", ["granite-moe", "jamba", "mamba2"])
def test_a_merge_loads_and_runs(name: str, tmp_path: Path) -> None:
    for seed, role in enumerate(ROLES):
        save_tiny(name, tmp_path / role, seed=seed, of=0 if seed else None)
    auto: Any = transformers.AutoModelForCausalLM
    model, info = auto.from_pretrained(merged(tmp_path), output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        assert model(torch.tensor([[1, 5, 9]])).logits.isfinite().all()


def test_an_encoder_decoder_loads_and_runs(tmp_path: Path) -> None:
    def make() -> Any:
        return transformers.T5Config(
            vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4
        )

    save_all(tmp_path, transformers.T5ForConditionalGeneration, make)
    auto: Any = transformers.T5ForConditionalGeneration
    model, info = auto.from_pretrained(merged(tmp_path), output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        assert model(input_ids=ids, decoder_input_ids=ids).logits.isfinite().all()


def test_towers_are_the_donors_to_the_bit(tmp_path: Path) -> None:
    def make() -> Any:
        text = {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
        }
        vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
        return transformers.Qwen2VLConfig(text_config=text, vision_config=vision)

    save_all(tmp_path, transformers.Qwen2VLForConditionalGeneration, make)
    out = merged(tmp_path)
    auto: Any = transformers.Qwen2VLForConditionalGeneration
    _, info = auto.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours, donor, other = (
        load_file(folder / "model.safetensors")
        for folder in (out, tmp_path / "sw", tmp_path / "safety")
    )
    towers = [name for name in ours if "visual" in name]
    assert towers
    assert all(torch.equal(ours[name], donor[name]) for name in towers)
    assert any(not torch.equal(ours[name], other[name]) for name in towers)
