"""The main path as a user runs it, against a float64 oracle that shares no code with safeswap."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import safeswap
from families import tiny_model
from safeswap.errors import SafeswapError

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


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        k: v for file in sorted(folder.glob("*.safetensors")) for k, v in load_file(file).items()
    }


def unit_of(name: str, by: str) -> tuple[str, ...] | None:
    """The oracle's own reading of these three families' names."""
    parts = name.split(".")
    if "layers" not in parts or "norm" in name:
        return None
    layer = parts[parts.index("layers") + 1]
    return (layer,) if by == "layer" else (layer, "attn" if "self_attn" in parts else "mlp")


def oracle(trio: dict[str, Path], by: str, tau: float, alpha: float) -> dict[str, torch.Tensor]:
    """The paper's rules (DESIGN) in float64: the merged weights, not yet rounded."""
    base, safety, spoken = (weights(trio[role]) for role in ("base", "safety", "sw"))
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
        safeswap.swap(
            trio["base"],
            safety=trio["safety"],
            languages={"sw": trio["sw"]},
            out=out,
            by=by,
            tau=tau,
            alpha=alpha,
            figure=False,
        )
        found, expected = weights(out), oracle(trio, by, tau, alpha)
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
    (merged,) = safeswap.swap(
        trio["base"],
        safety=trio["safety"],
        languages={"sw": trio["sw"]},
        out=tmp_path / "out",
        tau=0.0,
    )
    model, info = AutoModelForCausalLM.from_pretrained(merged.folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    oracle_model = AutoModelForCausalLM.from_pretrained(trio["sw"])
    expected = {k: v.float() for k, v in oracle(trio, "module", 0.0, 0.5).items()}
    oracle_model.load_state_dict(expected, strict=False)
    prompt = torch.tensor([[1, 5, 9]])
    both = [m.generate(prompt, max_new_tokens=8, do_sample=False) for m in (model, oracle_model)]
    assert torch.equal(*both)


def make_large_trio(folder: Path) -> dict[str, Path]:
    """About 90 MB, so that a merge takes long enough to be killed in the middle."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    chance = np.random.default_rng(0)
    shapes = {"model.embed_tokens.weight": (2000, 256), "model.norm.weight": (256,)}
    for layer in range(12):
        at = f"model.layers.{layer}."
        shapes[at + "self_attn.q_proj.weight"] = (256, 1024)
        shapes[at + "mlp.up_proj.weight"] = (1024, 512)
        shapes[at + "input_layernorm.weight"] = (256,)
    config = {"model_type": "llama", "num_hidden_layers": 12, "tie_word_embeddings": True}
    base = {n: chance.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    for role in ("base", "safety", "sw"):
        (folder / role).mkdir(parents=True)
        update = {"base": 0.0, "safety": 0.02, "sw": 0.03}[role]
        tensors = {
            n: w + np.float32(update * chance.uniform(0.5, 1.5)) * chance.standard_normal(w.shape)
            for n, w in base.items()
        }
        tensors = {n: w.astype(np.float32) for n, w in tensors.items()}
        save_file(tensors, folder / role / "model.safetensors", metadata={"format": "pt"})
        (folder / role / "config.json").write_text(json.dumps(config))
    return {role: folder / role for role in ("base", "safety", "sw")}


def digest_of(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_kill_at_random_times_leaves_nothing_half_made_and_resumes(tmp_path: Path) -> None:
    trio = make_large_trio(tmp_path)
    inputs = {role: digest_of(folder) for role, folder in trio.items()}

    def command(out: Path, workers: int) -> list[str]:
        arguments = ["merge", str(trio["base"]), "--safety", str(trio["safety"])]
        arguments += ["--language", f"sw={trio['sw']}", "--out", str(out), "--no-figure"]
        return [sys.executable, "-m", "safeswap", *arguments, "--workers", str(workers)]

    subprocess.run(command(tmp_path / "whole", 2), check=True, capture_output=True)
    whole = digest_of(tmp_path / "whole")
    begin = time.perf_counter()
    subprocess.run(command(tmp_path / "one", 1), check=True, capture_output=True)
    usual = time.perf_counter() - begin
    assert digest_of(tmp_path / "one") == whole  # any number of workers, the same bytes
    chance = random.Random(7)
    for attempt in range(10):
        out = tmp_path / f"killed-{attempt}"
        process = subprocess.Popen(
            command(out, 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(usual * chance.uniform(0.2, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():
            assert digest_of(out) == whole
        else:
            subprocess.run(command(out, 2), check=True, capture_output=True)
            assert digest_of(out) == whole
            assert not list(tmp_path.glob(f".{out.name}*"))
    assert {role: digest_of(folder) for role, folder in trio.items()} == inputs


def test_a_corrupted_piece_of_an_interrupted_run_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio = make_trio(tmp_path, "llama", torch.bfloat16)
    options = {"safety": trio["safety"], "languages": {"sw": trio["sw"]}, "figure": False}
    safeswap.swap(trio["base"], out=tmp_path / "whole", **options)

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("safeswap.api.provenance.copy_rest", fail)
        with pytest.raises(KeyboardInterrupt):
            safeswap.swap(trio["base"], out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    (shard, *_) = sorted((tmp_path / ".out.safeswap-partial/out").glob("*.safetensors"))
    with shard.open("r+b") as stream:
        stream.seek(-8, os.SEEK_END)
        stream.write(b"\0" * 8)
    (merged,) = safeswap.swap(trio["base"], out=tmp_path / "out", **options)
    assert 0 < merged.resumed_bytes < merged.nbytes
    assert digest_of(tmp_path / "out") == digest_of(tmp_path / "whole")


@pytest.mark.parametrize("victim", ["weights", "config.json", "input"])
def test_verify_finds_what_was_changed(tmp_path: Path, victim: str) -> None:
    trio = make_trio(tmp_path, "llama", torch.bfloat16)
    safeswap.swap(
        trio["base"],
        safety=trio["safety"],
        languages={"sw": trio["sw"]},
        out=tmp_path / "out",
        figure=False,
    )
    assert safeswap.verify_merge(tmp_path / "out").from_inputs
    if victim == "config.json":
        path = tmp_path / "out" / "config.json"
    else:
        folder = tmp_path / "out" if victim == "weights" else trio["sw"]
        path = max(folder.glob("*.safetensors"), key=lambda p: p.stat().st_size)
    # of an input every shard is touched: only tensors that the plan takes from it can show
    for file in trio["sw"].glob("*.safetensors") if victim == "input" else [path]:
        content = bytearray(file.read_bytes())
        content[-2] ^= 1
        file.write_bytes(content)
    expected = "An input changed" if victim == "input" else "was changed after"
    with pytest.raises(SafeswapError, match=expected):
        safeswap.verify_merge(tmp_path / "out")
