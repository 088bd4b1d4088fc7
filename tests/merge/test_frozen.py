"""Experts that did not move in parts, lack tensors of the base, or have others besides."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from gram_folder import NEED_GRAMS
from safeswap import api
from safeswap.merge.manifest import read_manifest
from safeswap.operators.registry import OPERATORS
from safeswap.selectors import registered
from tiny import BF16, Tensors, make_trio, refused, rewrite, swap

Trio = dict[str, Path]
MISSING = "model.layers.0.mlp.up_proj.weight"
EXTRA = "model.layers.1.self_attn.q_proj.bias"


def weights_of(folder: Path) -> Tensors:
    found: Tensors = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.fixture
def frozen(tmp_path: Path) -> Trio:
    """The language expert moved in layer 1 only."""
    trio = make_trio(tmp_path / "trio")
    base = weights_of(trio["base"])

    def freeze(weights: Tensors) -> None:
        weights |= {name: base[name] for name in weights if "layers.1" not in name}

    rewrite(trio["sw"], freeze)
    return trio


def given(trio: Trio) -> dict[str, Any]:
    return {"safety": trio["safety"], "languages": {"sw": trio["sw"]}}


def test_no_method_divides_by_nothing(frozen: Trio) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        profile = api.make_profile(frozen["base"], **given(frozen))
        for name in sorted(set(registered()) - {"band", "attribution"}):
            plan = api.make_plan(profile, method=name)
            shares = plan.units["0.attention"].shares
            assert name == "permuted" or shares is None or shares["sw"] == 0.0
    assert all(t.update_norm["sw"] == 0.0 for t in profile.by_unit["0.mlp"])


@pytest.mark.parametrize("operator", sorted(set(OPERATORS) - NEED_GRAMS))
def test_every_operator_keeps_to_numbers(frozen: Trio, tmp_path: Path, operator: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = swap(frozen, tmp_path / "out", operator=operator, method="uniform")
    assert all(np.isfinite(w.astype(np.float32)).all() for w in weights_of(out).values())


def test_tensors_that_an_expert_lacks_or_has_besides(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio")
    whole = swap(trio, tmp_path / "whole", donor="base", method="uniform")

    def change(weights: Tensors) -> None:
        del weights[MISSING]
        weights[EXTRA] = np.ones(16, BF16)

    rewrite(trio["sw"], change)
    out = tmp_path / "out"
    words = ("lacks " + MISSING, EXTRA, "1 of 21 tensors", "1 are left out", "--force")
    refused(lambda: swap(trio, out), *words, out=out)
    refused(
        lambda: swap(trio, out, force=True), "config.json is for other", "--donor base", out=out
    )
    swap(trio, out, force=True, donor="base", method="uniform")
    found, before, start = (weights_of(f) for f in (out, whole, trio["base"]))
    safety = weights_of(trio["safety"])
    for name, weight in found.items():
        if name == MISSING:  # it did not move there
            blend = [w[name].astype(np.float32) for w in (safety, start)]
            wanted = (0.5 * blend[0] + 0.5 * blend[1]).astype(BF16)
            assert np.array_equal(weight, wanted)
        else:
            assert np.array_equal(weight, before[name]), name
    manifest = read_manifest(out)
    assert "no such tensor" in manifest["not_used"][f"sw: {EXTRA}"]
    assert any("sw: lacks 1 of 21 tensors" in note for note in manifest["profile"]["notes"])
    assert api.verify_merge(out).from_inputs


@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight"])
def test_what_lies_outside_the_layers_is_not_lent(tmp_path: Path, name: str) -> None:
    trio = make_trio(tmp_path / "trio")
    rewrite(trio["sw"], lambda weights: weights.pop(name))
    message = refused(
        lambda: swap(trio, tmp_path / "out", force=True, donor="base"), f"lacks {name}"
    )
    assert "--force" not in message


def test_an_adapter_s_leftovers_are_not_forced(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio")
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    rewrite(trio["sw"], lambda weights: weights.update({name: np.ones((2, 16), BF16)}))
    refused(
        lambda: swap(trio, tmp_path / "out", force=True, donor="base"), "adapter", "Merge it in"
    )
