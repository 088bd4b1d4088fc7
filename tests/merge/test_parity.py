"""Merged weights equal the paper's rules computed in float64 by `oracle`.

Swapped tensors are equal bit for bit. Blends are within one unit in the last place of the output's
format; the one exception is an element whose two terms cancel to a thousandth or less of their
size, where what remains is the rounding of the arithmetic (float32 for 16-bit weights).
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import safeswap
from families import SMALL, save_tiny
from oracle import Expected, State, expect, state_of, steps_apart
from safeswap.report.plan_figure import draw
from tiny import swap

CONFIGS = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "phi3": "Phi3Config"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ROLES = ("base", "safety", "sw")
# How far each expert moves each of four layers: safety leads in the first, the language in the
# second, neither in the last two, so that every decision is met.
REACH = {"safety": (2.0, 1.0, 1.5, 1.5), "sw": (1.0, 2.0, 1.5, 1.5)}
BUFFER = "model.layers.0.self_attn.rotary_emb.inv_freq"

SETTINGS: tuple[dict[str, Any], ...] = (
    {"by": "module", "tau": 0.03},
    {"by": "module", "tau": 0.03, "alpha": 0.3, "norms": "follow", "outside": "safety"},
    {"by": "module", "tau": 0.24, "tau_relative": True, "norms": "safety", "outside": "base"},
    {"by": "module", "tau": 0.03, "alpha": 0.3, "norms": "blend", "outside": "language"},
    {"by": "layer", "tau": 0.05},
    {"by": "layer", "tau": 0.05, "alpha": 0.3, "norms": "language", "outside": "language"},
    {"by": "layer", "tau": 0.2, "tau_relative": True, "norms": "safety", "outside": "base"},
)


def make_config(family: str, tied: bool) -> Any:
    settings = {**SMALL, "num_hidden_layers": 4, "tie_word_embeddings": tied}
    return getattr(transformers, CONFIGS[family])(**settings)


def make_states(family: str, dtype: torch.dtype, tied: bool = False) -> dict[str, State]:
    """The state dicts of a trio; biases are not zero, a tied lm_head is not listed."""
    config = make_config(family, tied)
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM
    chance = torch.Generator().manual_seed(1)
    base: State = {}
    for name, weight in model.from_config(config).state_dict().items():
        if name.endswith(".bias"):
            weight = 0.1 * torch.randn(weight.shape, generator=chance)
        if not (tied and name == "lm_head.weight"):
            base[name] = weight.to(dtype)
    states = {"base": base}
    for role, reach in REACH.items():
        states[role] = {}
        for name, weight in base.items():
            layer = name.split("layers.")[1].split(".")[0] if "layers." in name else "3"
            size = 0.05 * reach[int(layer)] * (weight.float().abs().mean().item() or 0.1)
            noise = size * torch.randn(weight.shape, generator=chance)
            states[role][name] = (weight.float() + noise).to(dtype)
    return states


def store(folder: Path, state: State, config: Any, pickled: bool = False, shards: int = 1) -> Path:
    folder.mkdir(parents=True)
    config.dtype = next(iter(state.values())).dtype
    config.save_pretrained(folder)
    names = list(state)
    stem, end = ("pytorch_model", "bin") if pickled else ("model", "safetensors")
    table = {}
    for number in range(shards):
        file = f"{stem}.{end}" if shards == 1 else f"{stem}-{number + 1:05}-of-{shards:05}.{end}"
        part = {name: state[name].clone() for name in names[number::shards]}
        table |= dict.fromkeys(part, file)
        if pickled:
            torch.save(part, folder / file)
        else:
            save_file(part, folder / file, metadata={"format": "pt"})
    if shards > 1:
        index = {"metadata": {}, "weight_map": table}
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps(index))
    return folder


def store_trio(
    folder: Path, states: dict[str, State], family: str, tied: bool = False, **how: Any
) -> dict[str, Path]:
    config = make_config(family, tied)
    return {role: store(folder / role, states[role], config, **how) for role in ROLES}


def compare(found: State, wanted: Expected, states: dict[str, State], alpha: float) -> int:
    """Check every tensor; the number of blended elements that are not the nearest number."""
    assert found.keys() == wanted.weights.keys()
    apart = 0
    for name, exact in wanted.weights.items():
        source = wanted.source[name]
        if source is not None:
            copied = states["sw" if source == "language" else source][name]
            assert copied.dtype == found[name].dtype
            assert torch.equal(found[name].view(torch.uint8), copied.view(torch.uint8)), name
            continue
        steps = steps_apart(found[name], exact.to(found[name].dtype))
        terms = (alpha * states["safety"][name].double()).abs() + (
            (1 - alpha) * states["sw"][name].double()
        ).abs()
        cancelled = exact.abs() < terms / 1000
        assert steps[~cancelled].le(1).all(), name
        unit = 2.0**-52 if found[name].dtype == torch.float32 else 2.0**-22
        residue = (found[name].double() - exact).abs() - exact.abs() * 2.0**-8
        assert (residue <= terms * unit)[cancelled].all(), name
        apart += int(steps.ne(0).sum())
    return apart


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", CONFIGS)
def test_weights_equal_a_float64_computation(tmp_path: Path, family: str, dtype: str) -> None:
    states = make_states(family, DTYPES[dtype])
    for number, role in enumerate(ROLES):  # stored, but not a weight: the donor's goes along
        states[role][BUFFER] = torch.arange(4, dtype=torch.float32) + number
    trio = store_trio(tmp_path, states, family, shards=3)
    languages = {"sw": trio["sw"]}
    profile = safeswap.make_profile(trio["base"], safety=trio["safety"], languages=languages)
    assert (family == "qwen2") == any(name.endswith("q_proj.bias") for name in states["base"])
    extremes = ({"by": by, "tau": tau} for by in ("module", "layer") for tau in (0.0, 1.0))
    for number, options in enumerate((*SETTINGS, *extremes)):
        wanted = expect(states["base"], states["safety"], states["sw"], **options)
        met = {1.0: {"blend"}, 0.0: {"safety", "language"}}
        assert set(wanted.decisions.values()) == met.get(
            options["tau"], {"safety", "language", "blend"}
        )
        plan = safeswap.make_plan(profile, **options)
        out = tmp_path / f"out-{number}"
        safeswap.merge_plans([plan], out, profile=profile, figure=False)
        compare(state_of(out), wanted, states, options.get("alpha", 0.5))
        assert len(list(out.glob("*.safetensors"))) == 3


def test_an_even_blend_of_16_bit_weights_is_the_nearest_number(tmp_path: Path) -> None:
    """With α = 0.5 float32 holds the sum of two such weights exactly, so one rounding is all."""
    states = make_states("llama", torch.float16)
    trio = store_trio(tmp_path, states, "llama")
    wanted = expect(states["base"], states["safety"], states["sw"], by="module", tau=1.0)
    assert compare(state_of(swap(trio, tmp_path / "out", tau=1.0)), wanted, states, 0.5) == 0


def test_terms_that_cancel_leave_only_the_rounding_of_the_arithmetic(tmp_path: Path) -> None:
    """0.3 · 7 − 0.7 · 3 is zero but for rounding: no number of steps is a fair measure there."""
    states = make_states("llama", torch.bfloat16)
    name = "model.layers.0.mlp.up_proj.weight"
    states["safety"][name].fill_(7.0)
    states["sw"][name].fill_(-3.0)
    trio = store_trio(tmp_path, states, "llama")
    found = state_of(swap(trio, tmp_path / "out", tau=1.0, alpha=0.3, force=True))
    assert found[name].abs().max().item() <= 4.2 * 2.0**-22


def test_pickled_checkpoints_give_the_same_weights(tmp_path: Path) -> None:
    states = make_states("qwen2", torch.bfloat16)
    found = []
    for shards, pickled in itertools.product((1, 2), (False, True)):
        folder = tmp_path / f"{shards}-{pickled}"
        trio = store_trio(folder, states, "qwen2", pickled=pickled, shards=shards)
        found.append(state_of(swap(trio, folder / "out", tau=0.03)))
        assert len(list((folder / "out").glob("*.safetensors"))) == shards
        assert not list((folder / "out").glob("*.bin*"))
        assert safeswap.verify_merge(folder / "out").from_inputs
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[name], found[0][name]) for name in other)


@pytest.mark.parametrize("stored", DTYPES)
@pytest.mark.parametrize("asked", DTYPES)
def test_another_dtype_is_one_rounding_of_the_exact_weights(
    tmp_path: Path, stored: str, asked: str
) -> None:
    states = make_states("llama", DTYPES[stored])
    trio = store_trio(tmp_path, states, "llama")
    wanted = expect(states["base"], states["safety"], states["sw"], by="module", tau=0.03)
    found = state_of(swap(trio, tmp_path / "out", tau=0.03, dtype=asked))
    for name, exact in wanted.weights.items():
        assert found[name].dtype == DTYPES[asked]
        limit = 1 if wanted.source[name] is None else 0
        assert steps_apart(found[name], exact.to(DTYPES[asked])).max().item() <= limit, name
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["dtype"] == asked


def test_shard_size_bounds_every_shard(tmp_path: Path) -> None:
    states = make_states("phi3", torch.float32)
    trio = store_trio(tmp_path, states, "phi3")
    whole = state_of(swap(trio, tmp_path / "whole"))
    split = state_of(swap(trio, tmp_path / "split", shard_size="40KB"))
    assert all(torch.equal(whole[name], split[name]) for name in whole)
    assert whole.keys() == split.keys()
    index = json.loads((tmp_path / "split/model.safetensors.index.json").read_text())
    files = sorted((tmp_path / "split").glob("*.safetensors"))
    assert len(files) > 2
    for file in files:
        held = load_file(file)
        assert sum(w.numel() * w.element_size() for w in held.values()) <= 40_000
        assert all(index["weight_map"][name] == file.name for name in held)
    assert index["weight_map"].keys() == whole.keys()
    assert index["metadata"]["total_size"] == sum(w.numel() * 4 for w in whole.values())


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("family", CONFIGS)
def test_the_result_loads_and_generates(tmp_path: Path, family: str, tied: bool) -> None:
    states = make_states(family, torch.float32, tied)
    trio = store_trio(tmp_path, states, family, tied, shards=2)
    found = state_of(swap(trio, tmp_path / "out", tau=0.03, alpha=0.3))
    wanted = expect(
        states["base"], states["safety"], states["sw"], by="module", tau=0.03, alpha=0.3
    )
    compare(found, wanted, states, 0.3)
    assert ("lm_head.weight" in found) != tied
    auto: Any = AutoModelForCausalLM
    model, info = auto.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tie = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert tie == tied
    reference = auto.from_config(make_config(family, tied))
    result = reference.load_state_dict(
        {name: weight.float() for name, weight in wanted.weights.items()}, strict=False
    )
    assert not result.unexpected_keys
    assert result.missing_keys == (["lm_head.weight"] if tied else [])
    for start in ([1, 5, 9], [1, 33], [1, 60, 61, 62]):
        prompt = torch.tensor([start])
        texts = [
            m.eval().generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None)
            for m in (model, reference)
        ]
        assert texts[0].shape[1] == len(start) + 12
        assert torch.equal(*texts)


@pytest.mark.parametrize("by", ["module", "layer"])
def test_a_model_whose_norms_have_no_weights_is_merged(tmp_path: Path, by: str) -> None:
    """OLMo 1: no norms in the layers, no final norm; the plan has no such units."""
    trio = {}
    auto: Any = AutoModelForCausalLM
    base = save_tiny("olmo", tmp_path / "base")
    for seed, role in enumerate(ROLES):
        model = auto.from_pretrained(base)
        chance = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters() if seed else ():
                spread = 0.01 * (0.5 + torch.rand(1, generator=chance))
                weight += spread * torch.randn(weight.shape, generator=chance)
        model.save_pretrained(tmp_path / role)
        trio[role] = tmp_path / role
    states = {role: state_of(folder) for role, folder in trio.items()}
    options = {"by": by, "tau": 0.01}
    found = state_of(swap(trio, tmp_path / "out", norms="follow", **options))
    wanted = expect(states["base"], states["safety"], states["sw"], **options)
    compare(found, wanted, states, 0.5)
    plan = safeswap.Plan.load(tmp_path / "out/safeswap-plan.yaml")
    assert len(plan.units) == 2 * 2 + 2 and not any("norm" in unit for unit in plan.units)
    assert safeswap.verify_merge(tmp_path / "out").edited == ()
    draw(plan, tmp_path / "plan.png")
    _, info = auto.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
