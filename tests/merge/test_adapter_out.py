"""Merged adapters: what peft makes of them is what plan and experts say, by float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft")
torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from adapted import make_adapter, merged_by_peft, state_of  # noqa: E402
from families import save_tiny  # noqa: E402
from safeswap import api  # noqa: E402
from tiny import refused  # noqa: E402

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CONV = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
STACKS = {
    "target_modules": ["q_proj"],
    "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
}
Experts = dict[str, Path]


@pytest.fixture
def experts(tmp_path: Path) -> Experts:
    """Two adapters of other ranks and scales on overlapping modules of one base."""
    base = save_tiny("llama", tmp_path / "base")
    safety = {"r": 4, "lora_alpha": 8, "target_modules": ALL}
    spoken = {"r": 2, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]}
    return {
        "base": base,
        "safety": make_adapter(base, tmp_path / "safety", 1, size=0.05, **safety),
        "sw": make_adapter(base, tmp_path / "sw", 2, size=0.05, use_rslora=True, **spoken),
    }


def merge(experts: Experts, out: Path, **options: Any) -> Any:
    (made,) = api.merge(
        experts["base"],
        safety=experts["safety"],
        languages={"sw": experts["sw"]},
        out=out,
        as_adapter=True,
        **options,
    )
    return made


def wanted(experts: Experts, tmp_path: Path, plan: Any) -> dict[str, Any]:
    """``base + Σ w · (expert − base)`` in float64, of what peft merges."""
    base = {n: t.double() for n, t in state_of(experts["base"]).items()}
    whole = {
        role: merged_by_peft(experts["base"], experts[role], tmp_path / f"{role}-whole")
        for role in ("safety", "sw")
    }
    found = {}
    for name, stored in base.items():
        unit = unit_of(name)
        found[name] = stored.clone()
        for role, state in whole.items():
            found[name] += plan.units[unit].weights[role] * (state[name].double() - stored)
    return found


def unit_of(name: str) -> str:
    parts = name.split(".")
    if "layers" not in parts:
        return {"embed_tokens": "embeddings", "norm": "final_norm"}.get(parts[1], "lm_head")
    kind = {"self_attn": "attention", "mlp": "mlp"}.get(parts[3], "norms")
    return f"{parts[2]}.{kind}"


@pytest.mark.parametrize(
    "options",
    [
        {"tau": 1e-6},
        {"method": "uniform", "alpha": 0.3},
        {"method": "uniform", "form": "task-arithmetic"},
        {"tau": 0.01, "alpha": 0.25},
    ],
)
def test_peft_makes_of_it_what_the_plan_says(
    experts: Experts, options: dict[str, Any], tmp_path: Path
) -> None:
    made = merge(experts, tmp_path / "out", **options)
    found = merged_by_peft(experts["base"], made.folder, tmp_path / "merged")
    for name, values in wanted(experts, tmp_path, made.plan).items():
        assert torch.allclose(found[name].double(), values, rtol=1e-5, atol=2e-6), name
    assert api.verify_merge(made.folder).from_inputs


def test_a_swap_picks_the_factors_byte_for_byte(experts: Experts, tmp_path: Path) -> None:
    """One scale for all modules, so that vLLM, which reads no patterns, computes the same."""
    made = merge(experts, tmp_path / "out", tau=1e-6)
    found = state_of(made.folder)
    given = {role: state_of(experts[role]) for role in ("safety", "sw")}
    decided = {unit: row.decision for unit, row in made.plan.units.items()}
    assert {"safety", "sw"} <= set(decided.values())
    picked = [n for n in found if decided[unit_of(n.removeprefix("base_model.model."))] == "safety"]
    assert picked
    for name in picked:
        assert torch.equal(found[name], given["safety"][name]), name
    config = json.loads((made.folder / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    assert scale == 2
    for module, rank in config["rank_pattern"].items():
        assert config["alpha_pattern"][module] / rank == scale


def test_compressing_is_the_best_of_its_rank_and_says_what_is_lost(
    experts: Experts, tmp_path: Path
) -> None:
    made = merge(experts, tmp_path / "out", method="uniform", alpha=0.5, rank=3)
    found = merged_by_peft(experts["base"], made.folder, tmp_path / "merged")
    base = {n: t.double() for n, t in state_of(experts["base"]).items()}
    lost: dict[str, list[float]] = {}
    for name, values in wanted(experts, tmp_path, made.plan).items():
        change = values - base[name]
        if change.dim() != 2 or not change.any():
            continue
        u, s, v = torch.linalg.svd(change)
        best = u[:, :3] * s[:3] @ v[:3]
        assert torch.allclose(found[name].double() - base[name], best, rtol=1e-4, atol=3e-6), name
        part = lost.setdefault(unit_of(name), [0.0, 0.0])
        part[0] += float((s[3:] ** 2).sum())
        part[1] += float((s**2).sum())
    said = json.loads((made.folder / "safeswap.json").read_text())["adapter"]
    assert said["discarded"] == {
        unit: pytest.approx(cut / whole, abs=1e-6) for unit, (cut, whole) in lost.items()
    }
    card = (made.folder / "README.md").read_text()
    assert all(
        f"| {unit} | {100 * share:.4g} % |" in card for unit, share in said["discarded"].items()
    )
    assert any("cut to rank 3" in line for line in made.said)
    assert api.verify_merge(made.folder).from_inputs


def test_trained_modules_go_along_whole(experts: Experts, tmp_path: Path) -> None:
    for seed, role in enumerate(("safety", "sw"), 1):
        make_adapter(experts["base"], experts[role], seed, size=0.05, modules_to_save=["lm_head"])
    made = merge(experts, tmp_path / "out", tau=1e-6, alpha=0.25)
    found = merged_by_peft(experts["base"], made.folder, tmp_path / "merged")
    for name, values in wanted(experts, tmp_path, made.plan).items():
        assert torch.allclose(found[name].double(), values, rtol=1e-5, atol=2e-6), name
    assert any("modules_to_save" in line and "lm_head" in line for line in made.said)
    assert any("vLLM takes no modules_to_save" in line for line in made.said)
    assert api.verify_merge(made.folder).from_inputs


def test_factors_of_embeddings_and_conv1d(tmp_path: Path) -> None:
    base = save_tiny("gpt2", tmp_path / "base")
    targets = {"target_modules": ["wte", "c_attn", "c_proj"], "fan_in_fan_out": True}
    experts = {"base": base}
    for seed, role in enumerate(("safety", "sw"), 1):
        experts[role] = make_adapter(base, tmp_path / role, seed, size=0.05, **targets)
    made = merge(experts, tmp_path / "out", method="uniform", alpha=0.5)
    found = merged_by_peft(base, made.folder, tmp_path / "merged")
    whole = [merged_by_peft(base, experts[r], tmp_path / f"{r}-whole") for r in ("safety", "sw")]
    for name, values in found.items():
        mean = (whole[0][name].double() + whole[1][name].double()) / 2
        assert torch.allclose(values.double(), mean, rtol=1e-5, atol=2e-6), name


def test_what_is_no_sum_of_factors_is_refused(experts: Experts, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(lambda: merge(experts, out, operator="ties", method="uniform"), "ties", "linear")
    refused(lambda: merge(experts, out, dtype="float16"), "--save-dtype", "--as adapter")
    refused(lambda: merge(experts, out, rank=0), "--rank 0", "1 on")
    full = save_tiny("llama", tmp_path / "full", seed=3, of=0)
    refused(lambda: merge(experts | {"sw": full}, out), "sw", "whole checkpoint")
    other = save_tiny("llama", tmp_path / "other", seed=4, of=0)
    stacked = make_adapter(other, tmp_path / "stacked", 2, size=0.05)
    refused(lambda: merge(experts | {"sw": stacked}, out), "sw", "stands on another base")
    assert not out.exists()


FORMS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dora": ("llama", {"use_dora": True}, {"use_dora": True, "target_modules": ALL, "r": 2}),
    "dora beside lora": ("llama", {"use_dora": True}, {"target_modules": ALL, "lora_alpha": 9}),
    "dora of conv1d": ("gpt2", {"use_dora": True, **CONV}, CONV),
    "dora of embeddings": (
        "llama",
        {"use_dora": True, "target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
    ),
    "tokens": (
        "llama",
        {"trainable_token_indices": [3, 5]},
        {"trainable_token_indices": {"embed_tokens": [5, 61], "lm_head": [7]}},
    ),
    "tokens of one": ("llama", {}, {"trainable_token_indices": [63, 5]}),
    "tokens, tied": (
        "gemma",
        {"trainable_token_indices": [3, 5]},
        {"trainable_token_indices": [5, 9]},
    ),
    "tokens beside factors": (
        "llama",
        {"trainable_token_indices": [3, 5]},
        {"target_modules": ["embed_tokens", "q_proj"]},
    ),
    "experts": ("gpt-oss", STACKS, STACKS | {"r": 2}),
    "experts, each other's": (
        "gpt-oss",
        {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj"]},
        {"target_modules": [], "target_parameters": ["experts.down_proj"]},
    ),
    "experts of one": ("gpt-oss", {"target_modules": ["q_proj"]}, STACKS),
    "experts stored apart": ("qwen3-moe", STACKS, STACKS | {"r": 3}),
    "lora_bias": (
        "llama-biases",
        {"lora_bias": True, "target_modules": ["q_proj", "up_proj"]},
        {"target_modules": ["q_proj", "v_proj"]},
    ),
    "biases": ("qwen2", {"bias": "all"}, {"bias": "lora_only", "target_modules": ["v_proj"]}),
}


def of_form(form: str, tmp_path: Path) -> Experts:
    family, *settings = FORMS[form]
    experts = {"base": save_tiny(family, tmp_path / "base")}
    for seed, (role, given) in enumerate(zip(("safety", "sw"), settings, strict=True), 1):
        experts[role] = make_adapter(experts["base"], tmp_path / role, seed, size=0.05, **given)
    return experts


def mixed(experts: Experts, alpha: float, tmp_path: Path) -> tuple[Any, Any]:
    """The base, and ``α·safety + (1 − α)·sw`` of what peft merges of both, in float64."""
    base = {name: one.double() for name, one in state_of(experts["base"]).items()}
    whole = [
        merged_by_peft(experts["base"], experts[role], tmp_path / f"{role}-whole")
        for role in ("safety", "sw")
    ]
    return base, {
        n: alpha * whole[0][n].double() + (1 - alpha) * whole[1][n].double() for n in base
    }


ALONE = ("dora", "dora of embeddings", "tokens", "experts", "biases")


@pytest.mark.parametrize(
    ("form", "alpha"), [*((f, 0.3) for f in FORMS), *((f, 1.0) for f in ALONE)]
)
def test_every_form_is_what_the_plan_says(form: str, alpha: float, tmp_path: Path) -> None:
    """Blended, and the safety expert alone: then its factors are picked, byte for byte."""
    experts = of_form(form, tmp_path)
    made = merge(experts, tmp_path / "out", method="uniform", alpha=alpha)
    found = merged_by_peft(experts["base"], made.folder, tmp_path / "merged")
    base, expected = mixed(experts, alpha, tmp_path)
    changed = 0
    for name, values in expected.items():
        assert torch.allclose(found[name].double(), values, rtol=1e-5, atol=2e-6), name
        changed += not torch.equal(found[name].double(), base[name])
    assert changed
    assert api.verify_merge(made.folder).from_inputs
    if alpha == 1.0:
        stored, given = state_of(made.folder), state_of(experts["safety"])
        for name, values in stored.items():  # peft saves an embedding's own weight as well
            assert torch.equal(values, given[name]), name


@pytest.mark.parametrize("form", ["dora", "dora beside lora", "dora of conv1d", "experts"])
def test_what_compressing_loses_is_what_is_said(form: str, tmp_path: Path) -> None:
    experts = of_form(form, tmp_path)
    made = merge(experts, tmp_path / "out", method="uniform", alpha=0.4, rank=3)
    log = json.loads((made.folder / "safeswap.json").read_text())
    found = merged_by_peft(experts["base"], made.folder, tmp_path / "merged")
    base, expected = mixed(experts, 0.4, tmp_path)
    lost: dict[str, list[float]] = {}
    for entry in log["profile"]["tensors"]:
        name = next(n for n in base if n.endswith(entry["name"]))
        cut, change = found[name].double() - expected[name], expected[name] - base[name]
        if cut.abs().max() > 1e-5:
            part = lost.setdefault(entry["unit"], [0.0, 0.0])
            part[0] += float((cut**2).sum())
            part[1] += float((change**2).sum())
    said = log["adapter"]["discarded"]
    assert said.keys() >= lost.keys() and lost
    for unit, (cut, whole) in lost.items():
        assert said[unit] == pytest.approx(cut / whole, rel=1e-2, abs=1e-6), unit
    if form == "experts":  # the best of its rank, expert by expert
        name = "model.layers.0.mlp.experts.down_proj"
        for one, best in zip(
            found[name].double() - base[name], expected[name] - base[name], strict=True
        ):
            u, values, v = torch.linalg.svd(best)
            cut = u[:, :3] * values[:3] @ v[:3]
            assert torch.allclose(one, cut, rtol=1e-4, atol=3e-6)
    assert api.verify_merge(made.folder).from_inputs


def test_forms_that_one_adapter_cannot_have_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    experts = of_form("experts of one", tmp_path)
    dora = {"use_dora": True, "target_modules": ["v_proj"]}
    make_adapter(experts["base"], experts["safety"], 1, size=0.05, **dora)
    refused(
        lambda: merge(experts, out), "use_dora", "experts.down_proj", "--as checkpoint", out=out
    )
    base = save_tiny("llama", tmp_path / "plain")
    state = state_of(base)
    state["model.layers.0.self_attn.v_proj.weight"][5] = 0.0  # no norm to divide by
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    given = {"target_modules": ["v_proj"], "init_lora_weights": True, "size": 0.0}
    experts = {
        "base": base,
        "safety": make_adapter(base, tmp_path / "a", 1, use_dora=True, target_modules=["q_proj"]),
        "sw": make_adapter(base, tmp_path / "b", 2, **given),
    }
    blend = {"method": "uniform", "alpha": 0.5}
    refused(lambda: merge(experts, out, **blend), "output 5", "v_proj", "--as checkpoint", out=out)


def test_a_changed_adapter_is_seen(experts: Experts, tmp_path: Path) -> None:
    made = merge(experts, tmp_path / "out", method="uniform")
    config = made.folder / "adapter_config.json"
    before = config.read_text()
    config.write_text(
        before.replace('"lora_alpha": 6', '"lora_alpha": 7').replace("_dora", "_Dora")
    )
    refused(lambda: api.verify_merge(made.folder), "adapter_config.json", "changed")
    config.write_text(before)
    assert api.verify_merge(made.folder).from_inputs
    make_adapter(experts["base"], experts["sw"], 3, size=0.05, r=2, lora_alpha=6)
    refused(lambda: api.verify_merge(made.folder), "An input changed")
