"""Adapters on bases that are stored narrow, and adapters that bring a vocabulary of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gguf_bytes import llama_bytes
from narrow import (
    from_fp8,
    from_mxfp4,
    gpt_oss,
    gpt_oss_config,
    make_fp8,
    make_mxfp4,
    stored_in,
)
from plain_adapter import BF16, numbers_of, write_adapter
from safeswap import api
from safeswap.checkpoint.family import open_family
from tiny import Tensors, make_weights, refused, save_checkpoint, swap

Trio = dict[str, Path]
ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapted(trio: Trio, base: Path, folder: Path) -> tuple[Trio, dict[str, Tensors]]:
    """Two adapters of all matrices inside the layers, and their updates in float64."""
    found, updates = {"base": base}, {}
    for seed, role in enumerate(("safety", "sw"), 1):
        found[role] = folder / f"{role}-adapter"
        updates[role] = write_adapter(
            found[role],
            trio["base"],
            seed,
            modules=ALL,
            base_model_name_or_path=str(base),
        )
    return found, updates


def check(
    out: Path, base: Tensors, updates: dict[str, Tensors], stored: Tensors | None = None
) -> None:
    """What was merged is the plan's sum, rounded once."""
    plan = api.verify_merge(out) and json.loads((out / "safeswap.json").read_text())["plan"]
    units = plan["units"]
    for name, values in (stored or numbers_of(out)).items():
        parts = name.split(".")
        inside = parts[1] == "layers"
        unit = f"{parts[2]}.{'mlp' if 'mlp' in name else 'attention'}" if inside else ""
        wanted = base[name].astype(np.float64)
        for role, table in updates.items():
            if name in table:
                wanted = wanted + units[unit]["weights"].get(role, 0) * table[name]
        assert np.allclose(values.astype(np.float64), wanted, rtol=1 / 128, atol=1e-6), name


@pytest.mark.parametrize("block", [(8, 8), (5, 7)])
def test_adapters_of_every_matrix_stand_on_fp8(
    trio: Trio, tmp_path: Path, block: tuple[int, int]
) -> None:
    """As after QLoRA: none of the expert's matrices is stored narrow any more."""
    plain, updates = adapted(trio, trio["base"], tmp_path)
    numbers = make_fp8(trio["base"], block)
    family = open_family(trio["base"], plain["safety"], {"sw": plain["sw"]})
    assert not any("is quantized and" in note for note in family.notes)
    out = swap(plain, tmp_path / "out")
    check(out, numbers, updates)
    profile = api.make_profile(plain["base"], safety=plain["safety"], languages={"sw": plain["sw"]})
    assert len({one.digest for one in profile.inputs.values()}) == 3
    for tensor in profile.tensors:
        for role, table in updates.items():
            size = np.linalg.norm(table[tensor.name]) if tensor.name in table else 0.0
            assert tensor.update_norm[role] == pytest.approx(size, rel=1e-5, abs=1e-9)
    for donor in ("sw", "base"):
        again = swap(plain, tmp_path / donor, dtype="same", donor=donor)
        assert api.verify_merge(again).from_inputs
        assert set(stored_in(again)) == set(stored_in(trio["base"]))
        assert "quantization_config" in (again / "config.json").read_text()
        narrow = stored_in(again)
        for name, values in numbers_of(out).items():
            if f"{name}_scale_inv" not in narrow:
                continue
            sides = (min(block[0], values.shape[0]), min(block[1], values.shape[1]))
            read = from_fp8(narrow[name], narrow[f"{name}_scale_inv"], sides)
            assert np.linalg.norm(read - values) < 0.05 * np.linalg.norm(values), name


def test_adapters_stand_on_gguf(trio: Trio, tmp_path: Path) -> None:
    base: Tensors = numbers_of(trio["base"])
    config = json.loads((trio["base"] / "config.json").read_text())
    plain, updates = adapted(trio, trio["base"], tmp_path)
    for file in trio["base"].glob("model*"):
        file.unlink()
    stored = {name: values.astype(np.float32) for name, values in base.items()}
    (trio["base"] / "model.gguf").write_bytes(llama_bytes(stored, config))
    out = swap(plain, tmp_path / "out")
    check(out, base, updates)
    profile = api.make_profile(plain["base"], safety=plain["safety"], languages={"sw": plain["sw"]})
    assert len({one.digest for one in profile.inputs.values()}) == 3


@pytest.mark.parametrize("dtype", [None, "same"])
def test_adapters_stand_on_mxfp4(tmp_path: Path, dtype: str | None) -> None:
    shapes = gpt_oss()
    base = save_checkpoint(tmp_path / "base", make_weights(shapes), gpt_oss_config(shapes))
    updates = {}
    for seed, role in enumerate(("safety", "sw"), 1):
        updates[role] = write_adapter(tmp_path / role, base, seed, modules=("q_proj", "o_proj"))
    numbers = make_mxfp4(base)
    trio = {"base": base, "safety": tmp_path / "safety", "sw": tmp_path / "sw"}
    out = swap(trio, tmp_path / "out", dtype=dtype)
    stored = stored_in(out)
    for name in [n.removesuffix("_blocks") for n in stored if n.endswith("_blocks")]:
        stored[name] = from_mxfp4(stored.pop(f"{name}_blocks"), stored.pop(f"{name}_scales"))
    assert ("mxfp4" in (out / "config.json").read_text()) == (dtype == "same")
    check(out, numbers, updates, stored)


def with_more_words(folder: Path, base: Path, count: int, seed: int) -> Tensors:
    """Give an adapter more tokens than its base has, and the rows for them."""
    said = json.loads((base / "tokenizer.json").read_text())
    vocabulary = said["model"]["vocab"]
    stored = numbers_of(base)
    height = len(stored["model.embed_tokens.weight"])
    said["model"]["vocab"] = vocabulary | {f"neno{n}": height + n for n in range(count)}
    chance = np.random.default_rng(seed)
    made: Tensors = {}
    tensors: Any = load_file(folder / "adapter_model.safetensors")
    for name in ("model.embed_tokens", "lm_head"):
        rows = stored[f"{name}.weight"]
        rows = np.concatenate(
            [
                rows + 0.01 * chance.standard_normal(rows.shape),
                0.1 * chance.standard_normal((count, rows.shape[1])),
            ]
        )
        rows = rows.astype(np.float32)
        made[f"{name}.weight"] = tensors[f"base_model.model.{name}.weight"] = rows
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_text(json.dumps(said))
    return made


def full_vocabulary(base: Path) -> None:
    """As many tokens as there are rows."""
    said = json.loads((base / "tokenizer.json").read_text())
    height = json.loads((base / "config.json").read_text())["vocab_size"]
    said["model"]["vocab"] = {f"w{n}": n for n in range(height)}
    (base / "tokenizer.json").write_text(json.dumps(said))


def test_an_adapter_brings_tokens_of_its_own(trio: Trio, tmp_path: Path) -> None:
    full_vocabulary(trio["base"])
    plain, _ = adapted(trio, trio["base"], tmp_path)
    grown = with_more_words(plain["sw"], trio["base"], 5, seed=7)
    base = numbers_of(trio["base"])
    out = swap(plain, tmp_path / "out")
    assert api.verify_merge(out).from_inputs
    content = json.loads((out / "safeswap.json").read_text())
    found, height = numbers_of(out), len(base["lm_head.weight"])
    for name, unit in (("model.embed_tokens.weight", "embeddings"), ("lm_head.weight", "lm_head")):
        weight = content["plan"]["units"][unit]["weights"]["sw"]
        rows = grown[name].astype(np.float64)
        wanted = base[name] + weight * (rows[:height] - base[name])
        assert found[name].shape == rows.shape
        assert np.allclose(found[name][:height], wanted, rtol=1 / 128, atol=1e-6)
        assert np.allclose(found[name][height:], rows[height:].astype(BF16).astype(float))
    assert json.loads((out / "config.json").read_text())["vocab_size"] == height + 5
    assert (out / "tokenizer.json").read_bytes() == (plain["sw"] / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("donor", ["sw", "base"])
def test_an_adapter_as_output_has_its_base_s_rows(trio: Trio, tmp_path: Path, donor: str) -> None:
    full_vocabulary(trio["base"])
    plain, _ = adapted(trio, trio["base"], tmp_path)
    with_more_words(plain["sw"], trio["base"], 5, seed=7)
    refused(
        lambda: swap(plain, tmp_path / "out", as_adapter=True, donor=donor),
        "--as adapter",
        "tokens in other rows than the base",
    )
