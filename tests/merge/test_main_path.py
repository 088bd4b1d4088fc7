"""The main path as a user runs it, against a float64 oracle that shares no code with safeswap."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import safeswap
from families import tiny_model
from oracle import state_of
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


def unit_of(name: str, by: str) -> tuple[str, ...] | None:
    """The oracle's own reading of these three families' names."""
    parts = name.split(".")
    if "layers" not in parts or "norm" in name:
        return None
    layer = parts[parts.index("layers") + 1]
    return (layer,) if by == "layer" else (layer, "attn" if "self_attn" in parts else "mlp")


def oracle(trio: dict[str, Path], by: str, tau: float, alpha: float) -> dict[str, torch.Tensor]:
    """The paper's rules (DESIGN) in float64: the merged weights, not yet rounded."""
    base, safety, spoken = (state_of(trio[role]) for role in ("base", "safety", "sw"))
    share: list[dict[tuple[str, ...], float]] = []
    for expert in (safety, spoken):
        sums: dict[tuple[str, ...], float] = {}
        for name, weight in base.items():
            unit = unit_of(name, by)
            if unit is None:
                continue
            norm = weight.double().norm().item()
            r = (expert[name].double() - weight.double()).norm().item() / (
                norm if norm > 1e-8 else 1
            )
            sums[unit] = sums.get(unit, 0.0) + (r if by == "layer" else r * r)
        n = {u: (v if by == "layer" else v**0.5) for u, v in sums.items()}
        share.append({u: v / (sum(n.values()) + 1e-8) for u, v in n.items()})
    part = {}
    for unit, p in share[0].items():
        d = p - share[1][unit]
        part[unit] = 1.0 if d > tau else 0.0 if d < -tau else alpha
    # the widest threshold blends all, none blends nothing: every decision is met
    assert tau < 0.5 or set(part.values()) == {alpha}
    assert tau > 0.0 or set(part.values()) == {0.0, 1.0}
    merged = {}
    for name in base:
        unit = unit_of(name, by)
        if unit is not None:
            a = part[unit]
        elif "layers" not in name:
            a = alpha
        else:
            a = 0.0 if by == "module" else part[(name.split("layers.")[1].split(".")[0],)]
        merged[name] = a * safety[name].double() + (1 - a) * spoken[name].double()
        if a in (0.0, 1.0):
            merged[name] = (safety if a else spoken)[name].double()
    return merged


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
        found, expected = state_of(out), oracle(trio, by, tau, alpha)
        assert found.keys() == expected.keys()
        for name, wanted in expected.items():
            rounded = wanted.to(dtype)
            bits = torch.int32 if dtype == torch.float32 else torch.int16
            steps = (found[name].view(bits).long() - rounded.view(bits).long()).abs().max().item()
            assert steps <= 1, f"{name}: {steps} units in the last place"
            if torch.equal(rounded.double(), wanted):  # a swap, or exact
                assert torch.equal(found[name], rounded), name


def test_the_result_loads_and_generates_in_transformers(tmp_path: Path) -> None:
    trio = make_trio(tmp_path, "llama", torch.float32)
    out = swap(trio, tmp_path / "out", tau=0.0, figure=True)
    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    oracle_model = AutoModelForCausalLM.from_pretrained(trio["sw"])
    expected = {k: v.float() for k, v in oracle(trio, "module", 0.0, 0.5).items()}
    oracle_model.load_state_dict(expected, strict=False)
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
