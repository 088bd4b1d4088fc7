"""Mixtures, hybrids, mixers, encoder-decoders and towers: merged, verified, loaded and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import safeswap
from families import save_all, save_tiny, t5, with_pictures
from tiny import swap

ROLES = ("base", "safety", "sw")


def merged(tmp_path: Path) -> Path:
    trio = {role: tmp_path / role for role in ROLES}
    swap(trio, tmp_path / "out")
    assert safeswap.verify_merge(tmp_path / "out").nbytes > 0
    return tmp_path / "out"


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
    save_all(tmp_path, transformers.T5ForConditionalGeneration, t5)
    auto: Any = transformers.T5ForConditionalGeneration
    model, info = auto.from_pretrained(merged(tmp_path), output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        assert model(input_ids=ids, decoder_input_ids=ids).logits.isfinite().all()


def test_towers_are_the_donors_to_the_bit(tmp_path: Path) -> None:
    save_all(tmp_path, transformers.Qwen2VLForConditionalGeneration, with_pictures)
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
