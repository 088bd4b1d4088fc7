"""The main path as a user runs it, against a float64 oracle that shares no code with safeswap."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import safeswap
from families import tiny_model
from oracle import expect, state_of, steps_apart
from tiny import digest_of, swap

FAMILIES = ("llama", "qwen2", "phi3")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def make_trio(
    folder: Path, family: str, dtype: torch.dtype, spread: float = 0.02
) -> dict[str, Path]:
    """A base and two experts whose updates differ in size from tensor to tensor."""
    base = tiny_model(family, seed=0).to(dtype)
    with torch.no_grad():
        for name, parameter in base.named_parameters():
            if name.endswith(".bias"):
                parameter.copy_(torch.randn(parameter.shape) * 0.1)
    base.save_pretrained(folder / "base", max_shard_size="20KB")
    for seed, role in enumerate(("safety", "sw"), 1):
        expert = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
        chance = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in expert.parameters():
                scale = spread * (0.5 + torch.rand(1, generator=chance).item())
                noise = torch.randn(parameter.shape, generator=chance)
                size = parameter.float().abs().mean().item() or 1.0
                parameter.copy_((parameter.float() + scale * size * noise).to(dtype))
        expert.save_pretrained(folder / role, max_shard_size="20KB")
    return {role: folder / role for role in ("base", "safety", "sw")}


def expected(trio: dict[str, Path], by: str, tau: float, alpha: float) -> dict[str, torch.Tensor]:
    """The merged weights by the oracle, in float64 and not yet rounded."""
    states = [state_of(trio[role]) for role in ("base", "safety", "sw")]
    found = expect(*states, by=by, tau=tau, alpha=alpha)
    # the widest threshold blends all, none blends nothing: every decision is met
    made = set(found.decisions.values())
    assert tau < 0.5 or made == {"blend"}
    assert tau > 0.0 or made == {"safety", "language"}
    return found.weights


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d).removeprefix("torch."))
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_weights_equal_a_float64_computation(
    tmp_path: Path, family: str, dtype: torch.dtype
) -> None:
    trio = make_trio(tmp_path, family, dtype)
    for by, tau, alpha in (
        ("module", 0.0, 0.5),
        ("module", 0.05, 0.5),
        ("module", 0.5, 0.3),
        ("layer", 0.02, 0.5),
        ("layer", 0.5, 0.7),
    ):
        out = tmp_path / f"{by}-{tau}"
        swap(trio, out, by=by, tau=tau, alpha=alpha)
        found, wanted_of = state_of(out), expected(trio, by, tau, alpha)
        assert found.keys() == wanted_of.keys()
        for name, wanted in wanted_of.items():
            rounded = wanted.to(dtype)
            steps = steps_apart(found[name], rounded).max().item()
            assert steps <= 1, f"{name}: {steps} units in the last place"
            if torch.equal(rounded.double(), wanted):  # a swap, or exact
                assert torch.equal(found[name], rounded), name


def test_the_result_loads_and_generates_in_transformers(tmp_path: Path) -> None:
    trio = make_trio(tmp_path, "llama", torch.float32)
    out = swap(trio, tmp_path / "out", tau=0.0, figure=True)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    oracle_model = AutoModelForCausalLM.from_pretrained(trio["sw"])
    weights = {k: v.float() for k, v in expected(trio, "module", 0.0, 0.5).items()}
    oracle_model.load_state_dict(weights, strict=False)
    prompt = torch.tensor([[1, 5, 9]])
    both = [m.generate(prompt, max_new_tokens=8, do_sample=False) for m in (model, oracle_model)]
    assert torch.equal(*both)


def test_a_corrupted_piece_of_an_interrupted_run_is_written_again(
    trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"safety": trio["safety"], "languages": {"sw": trio["sw"]}, "figure": False}
    safeswap.api.merge(trio["base"], out=tmp_path / "whole", **options)

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safeswap.merge.run.companions.copy_rest", fail)
        with pytest.raises(KeyboardInterrupt):
            safeswap.api.merge(trio["base"], out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    (shard, *_) = sorted((tmp_path / ".out.safeswap-partial/out").glob("*.safetensors"))
    with shard.open("r+b") as stream:
        stream.seek(-8, os.SEEK_END)
        stream.write(b"\0" * 8)
    (merged,) = safeswap.api.merge(trio["base"], out=tmp_path / "out", **options)
    assert 0 < merged.resumed_bytes < merged.nbytes
    assert digest_of(tmp_path / "out") == digest_of(tmp_path / "whole")
