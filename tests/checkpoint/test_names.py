"""One model under several names: what transformers loads as the same is merged as the same.

The oracle is transformers: every merge with renamed members is loaded by it, and its logits equal
those of a model whose weights were blended here, in float64, from the members as they were before
they were renamed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from families import FAMILIES
from safeswap.api import make_profile, merge, verify_merge
from safeswap.checkpoint import join_family, open_checkpoint
from safeswap.checkpoint.header import read_header
from tiny import edit_json, make_trio, refused, rewrite, safetensors_bytes, swap

ROLES = ("base", "safety", "sw")
AUTO: Any = AutoModelForCausalLM
State = dict[str, torch.Tensor]
Change = Callable[[State], State]


def save(folder: Path, config: Any, state: State) -> Path:
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    whole = {name: tensor.clone().contiguous() for name, tensor in state.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def states_of(family: str) -> tuple[Any, dict[str, State]]:
    """A config, and what transformers saves of three models of it: a base and two fine-tunes."""
    config = FAMILIES[family]()
    torch.manual_seed(0)
    model = AUTO.from_config(config).float()
    kept = {
        n: t for n, t in model.state_dict().items() if not (n == "lm_head.weight" and _tied(config))
    }
    base = {n: 0.1 * torch.randn(t.shape) + (1.0 if t.dim() == 1 else 0.0) for n, t in kept.items()}
    step = {r: {n: t + 0.01 * torch.randn(t.shape) for n, t in base.items()} for r in ROLES[1:]}
    return config, {"base": base, **step}


def _tied(config: Any) -> bool:
    return bool(config.tie_word_embeddings)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.double().eval()(torch.tensor([[3, 5, 7, 9, 11]])).logits
    return found


def wanted_logits(config: Any, states: dict[str, State]) -> torch.Tensor:
    model = AUTO.from_config(config).double()
    half = {n: (states["safety"][n].double() + t.double()) / 2 for n, t in states["sw"].items()}
    lost = model.load_state_dict(half, strict=False)
    assert not lost.unexpected_keys and set(lost.missing_keys) <= {"lm_head.weight"}
    model.tie_weights()
    return logits(model)


def check(tmp_path: Path, family: str, changes: dict[str, Change]) -> Path:
    config, states = states_of(family)
    trio = {
        role: save(tmp_path / role, config, changes.get(role, dict)(state))
        for role, state in states.items()
    }
    out = tmp_path / "out"
    given = {"method": "uniform", "alpha": 0.5, "figure": False}
    merge(trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}, out=out, **given)
    found = logits(AUTO.from_pretrained(out, dtype=torch.float32))
    torch.testing.assert_close(found, wanted_logits(config, states), rtol=0, atol=2e-5)
    assert verify_merge(out).from_inputs
    return out


def without(prefix: str) -> Change:
    return lambda state: {name.removeprefix(prefix): t for name, t in state.items()}


def under(prefix: str) -> Change:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


PREFIXES = {
    "bloom": "transformer.",
    "gpt2": "transformer.",
    "falcon": "transformer.",
    "gpt-neox": "gpt_neox.",
    "opt": "model.",
    "llama": "model.",
    "qwen3": "model.",
}


@pytest.mark.parametrize("roles", [("base",), ("safety", "sw"), ("sw",)])
@pytest.mark.parametrize("family", PREFIXES)
def test_a_body_stored_on_its_own_is_the_same_model(
    tmp_path: Path, family: str, roles: tuple[str, ...]
) -> None:
    out = check(tmp_path, family, dict.fromkeys(roles, without(PREFIXES[family])))
    names = {
        n
        for n in load_file(out / "model.safetensors")
        if not n.endswith(("lm_head.weight", "embed_out.weight"))
    }
    assert all(n.startswith(PREFIXES[family]) == ("base" not in roles) for n in names)


WRAPPED: dict[str, Change] = {
    "compiled": under("_orig_mod."),
    "ddp": under("module."),
    "peft": under("base_model.model."),
    "ddp-compiled": under("module._orig_mod."),
    "fsdp": under("_fsdp_wrapped_module."),
    "layers-compiled": lambda s: {
        n.replace("layers.0.", "layers.0._orig_mod."): t for n, t in s.items()
    },
    "own-wrapper": under("policy."),
    "checkpointed": lambda s: {
        n.replace("layers.1.", "layers.1._checkpoint_wrapped_module."): t for n, t in s.items()
    },
    "deepspeed": under("_forward_module.module."),
    "text-part": lambda s: {
        n.replace("model.", "model.language_model.", 1) if n.startswith("model.") else n: t
        for n, t in s.items()
    },
    "older-text-part": lambda s: {f"language_model.{n}": t for n, t in s.items()},
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", WRAPPED)
def test_marks_of_training_wrappers_are_no_names(tmp_path: Path, kind: str, role: str) -> None:
    out = check(tmp_path, "llama", {role: WRAPPED[kind]})
    assert "model.embed_tokens.weight" in load_file(out / "model.safetensors")


def test_a_weight_with_and_without_a_wrappers_mark_is_refused(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)
    name = "model.norm.weight"
    rewrite(trio["sw"], lambda w: w.update({f"_orig_mod.{name}": w[name]}))
    refused(lambda: swap(trio, tmp_path / "out"), "sw", name, "_orig_mod", "wrapper", "Save")


BUFFERS: dict[str, State] = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": {"": torch.ones(4)},
    "model.rotary_emb.inv_freq": {"": torch.ones(4)},
}


@pytest.mark.parametrize("name", BUFFERS)
@pytest.mark.parametrize("roles", [("base",), ("sw",), ("safety", "sw")])
def test_buffers_of_some_members_are_left_out_and_named(
    tmp_path: Path, name: str, roles: tuple[str, ...]
) -> None:
    def add(state: State) -> State:
        return state | {name: torch.ones(4)}

    out = check(tmp_path, "llama", dict.fromkeys(roles, add))
    unused = json.loads((out / "safeswap.json").read_text())["not_used"]
    assert unused.keys() == {f"{role}: {name}" for role in roles}
    assert all("buffer" in reason for reason in unused.values())
    assert name not in load_file(out / "model.safetensors")


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_masks_of_older_files_go_with_either_naming(tmp_path: Path, prefix: str) -> None:
    def old(state: State) -> State:
        plain = without("transformer.")(state)
        for layer in (0, 1):
            plain[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
            plain[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        return under(prefix)(plain)

    out = check(tmp_path, "gpt2", {"base": old})
    unused = json.loads((out / "safeswap.json").read_text())["not_used"]
    assert f"base: {prefix}h.0.attn.bias" in unused and len(unused) == 4


def test_bytes_of_a_buffer_that_is_left_out_count_in_the_digest(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)
    found = []
    for value in (1, 2):
        name = "model.layers.0.self_attn.rotary_emb.inv_freq"
        rewrite(trio["sw"], lambda w, v=value, n=name: w.update({n: np.full(4, v, np.float32)}))
        profile = make_profile(trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]})
        found.append(profile.inputs["sw"])
    assert found[0].digest != found[1].digest
    assert found[0].files[0].digest != found[1].files[0].digest


@pytest.mark.parametrize("role", ROLES)
def test_a_tied_head_that_only_the_index_names(tmp_path: Path, role: str) -> None:
    trio = make_trio(tmp_path, tied=True)
    index = trio[role] / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["lm_head.weight"] = next(iter(table["weight_map"].values()))
    index.write_text(json.dumps(table))
    assert verify_merge(swap(trio, tmp_path / "out")).from_inputs
    edit_json(trio[role] / "config.json", tie_word_embeddings=False)
    refused(lambda: open_checkpoint(trio[role]), "lm_head.weight", "fetch both")


def test_null_metadata_is_none(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    file = tmp_path / "x.safetensors"
    file.write_bytes(safetensors_bytes({"__metadata__": None, "x": entry}, b"\0" * 4))
    assert load_file(file)["x"].tolist() == [0.0]  # the format's own reader takes it
    assert read_header(file).metadata == {}


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8", "mxfp4"])
@pytest.mark.parametrize("role", ["base", "sw"])
def test_a_quantization_left_on_plain_weights_is_noted_and_not_handed_on(
    tmp_path: Path, role: str, method: str
) -> None:
    trio = make_trio(tmp_path)
    plain = swap(trio, tmp_path / "plain")
    edit_json(trio[role] / "config.json", quantization_config={"quant_method": method})
    family = join_family({r: open_checkpoint(trio[r]) for r in ROLES})
    assert any(note.startswith(f"{role}: ") and method in note for note in family.notes)
    out = swap(trio, tmp_path / "out")
    written, before = (json.loads((folder / "config.json").read_text()) for folder in (out, plain))
    assert written == before
    assert (out / "model-00001-of-00002.safetensors").read_bytes() == (
        plain / "model-00001-of-00002.safetensors"
    ).read_bytes()
    assert verify_merge(out).from_inputs


CAUSES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "adapter": (
        lambda w: w.update({"model.layers.0.self_attn.q_proj.lora_A.weight": np.ones((2, 16))}),
        "merge_and_unload",
    ),
    "head": (lambda w: w.pop("lm_head.weight"), "output projection"),
    "reward": (lambda w: w.update({"score.weight": np.ones((1, 16))}), "reward"),
    "vision": (lambda w: w.update({"vision_tower.x.weight": np.ones((2, 2))}), "images"),
    "fused": (
        lambda w: [
            w.update({"model.layers.0.self_attn.qkv_proj.weight": np.ones((48, 16))}),
            *(w.pop(f"model.layers.0.self_attn.{n}_proj.weight") for n in "qkv"),
        ],
        "joined into one",
    ),
    "biases": (
        lambda w: w.update({"model.layers.0.self_attn.q_proj.bias": np.ones(16)}),
        "Only biases",
    ),
    "classifier": (
        lambda w: [w.update({"score.weight": np.ones((2, 16))}), w.pop("lm_head.weight")],
        "classifier or reward model",
    ),
    "averages": (lambda w: w.update({f"ema.{n}": t for n, t in w.items()}), "second copy"),
    "cache": (
        lambda w: w.update({"model.layers.0.self_attn.k_scale": np.ones(1)}),
        "quantized cache",
    ),
    "several tokens": (
        lambda w: w.update({"model.mtp.0.weight": np.ones((2, 2))}),
        "several tokens at once",
    ),
    "another tool": (
        lambda w: w.update({"model.wte.weight": w.pop("model.embed_tokens.weight")}),
        "model.wte.weight where the base has model.embed_tokens.weight",
    ),
    "other": (
        lambda w: [w.update({f"x.{n}.y": w.pop(n)}) for n in list(w)],
        "Not one name",
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_refusal_names_the_cause_and_what_helps(tmp_path: Path, cause: str) -> None:
    trio = make_trio(tmp_path)
    change, words = CAUSES[cause]
    rewrite(trio["sw"], change)
    refused(lambda: swap(trio, tmp_path / "out"), "sw expert", words, out=tmp_path / "out")
