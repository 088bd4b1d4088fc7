"""Members of a family that store their experts in different layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import mixtures
from safeswap import api
from safeswap.errors import FamilyError
from tiny import refused, rewrite

Trio = dict[str, Path]


def experts(trio: Trio) -> dict[str, Any]:
    return {"safety": trio["safety"], "languages": {"sw": trio["sw"]}}


def run(trio: Trio, out: Path, **options: Any) -> None:
    api.merge(trio["base"], **experts(trio), out=out, figure=False, **options)


def states(trio: Trio) -> list[mixtures.State]:
    return [mixtures.loaded(trio[role]) for role in mixtures.ROLES]


def same(out: Path, wanted: mixtures.State) -> None:
    found = mixtures.loaded(out)
    for name, weight in wanted.items():
        assert torch.allclose(found[name], weight, rtol=2.0**-23, atol=1e-12), name


TURNS = [
    {"base": True, "safety": False, "sw": False},
    {"base": False, "safety": True, "sw": True},
    {"base": True, "safety": True, "sw": False},
    {"base": False, "safety": False, "sw": True},
]


@pytest.mark.parametrize("apart", TURNS, ids=lambda a: "".join("AF"[not v] for v in a.values()))
@pytest.mark.parametrize("family", ["mixtral", "qwen3-moe", "phimoe", "granite-moe"])
def test_members_may_store_experts_in_other_layouts(
    tmp_path: Path, family: str, apart: dict[str, bool]
) -> None:
    trio = mixtures.save_trio(tmp_path, family, apart)
    out = tmp_path / "out"
    run(trio, out, by="expert", router="follow")
    halves = family != "granite-moe" and apart["base"]
    wanted = mixtures.merge(*states(trio), by="expert", halves=halves, router="follow").state
    same(out, wanted)
    assert mixtures.same_logits(out, wanted)
    assert mixtures.names_in(out) == mixtures.names_in(trio["sw"])
    assert api.verify_merge(out).from_inputs


def split(folder: Path, family: str) -> None:
    """Store the experts of Llama 4 or gpt-oss apart, as the models' own code reads them."""
    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in [n for n in weights if ".experts." in n]:
        whole = weights.pop(name)
        front, _, leaf = name.rpartition(".")
        end = ".bias" if leaf.endswith("_bias") else ".weight"
        for e, own in enumerate(whole):
            pieces = {leaf.removesuffix("_bias"): own}
            if leaf.startswith("gate_up_proj"):
                halves = own.chunk(2, dim=-1)
                halves = (own[..., ::2], own[..., 1::2]) if family == "gpt-oss" else halves
                pieces = dict(zip(("gate_proj", "up_proj"), halves, strict=True))
            for word, piece in pieces.items():
                weights[f"{front}.{e}.{word}{end}"] = piece.t().contiguous()
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize("who", [("safety",), ("sw",), ("base",), ("base", "safety")], ids="+".join)
@pytest.mark.parametrize("family", ["gpt-oss", "llama4-text"])
def test_transposed_and_braided_experts(tmp_path: Path, family: str, who: tuple[str, ...]) -> None:
    trio = mixtures.save_trio(tmp_path, family)
    known = states(trio)
    for role in who:
        split(trio[role], family)
    profile = api.make_profile(trio["base"], **experts(trio))
    assert any("as its donor's" in note for note in profile.notes)
    run(trio, tmp_path / "out", by="expert")
    assert mixtures.names_in(tmp_path / "out") == mixtures.names_in(trio["sw"])
    assert api.verify_merge(tmp_path / "out").from_inputs
    halves = "base" in who
    wanted = mixtures.merge(*known, by="expert", halves=halves).state
    if "sw" not in who:
        return same(tmp_path / "out", wanted)
    spoken = trio["sw"] / "model.safetensors"
    save_file({n: w.float() for n, w in wanted.items()}, spoken)
    split(trio["sw"], family)
    found = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in load_file(spoken).items():
        assert torch.allclose(found[name], weight, rtol=2.0**-23, atol=1e-12), name
    return None


def test_a_family_whose_layout_is_not_known_is_refused(tmp_path: Path) -> None:
    trio = mixtures.save_trio(tmp_path, "qwen3-moe", {"sw": False})
    for role in trio:
        file = trio[role] / "config.json"
        file.write_text(file.read_text().replace('"qwen3_moe"', '"qwen9_moe"'))
    words = ("sw expert", "another layout", "'qwen9_moe'", "save_original_format")
    refused(lambda: run(trio, tmp_path / "out"), *words, out=tmp_path / "out")


def test_an_expert_that_lacks_one_is_told_by_name(tmp_path: Path) -> None:
    trio = mixtures.save_trio(tmp_path, "qwen3-moe", {"base": False, "safety": False})
    rewrite(trio["sw"], lambda w: w.pop("model.layers.1.mlp.experts.2.up_proj.weight"))
    with pytest.raises(FamilyError, match="lacks"):
        run(trio, tmp_path / "out")


def test_the_rules_of_layouts_are_those_of_transformers() -> None:
    """Every family that is stored in rows is one that transformers concatenates so on loading."""
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from safeswap.checkpoint.mixtures.layouts import LAYOUTS

    for family in (f for f, layout in LAYOUTS.items() if layout == "rows"):
        found = get_checkpoint_conversion_mapping(family)
        assert found, family
        if family.startswith("granite"):
            continue  # one layout under two names
        (joined,) = (c for c in found if "gate_up_proj" in str(c.target_patterns))
        kinds = [(type(o).__name__, o.dim) for o in joined.operations]
        assert kinds == [("MergeModulelist", 0), ("Concatenate", 1)], family
        first, second = joined.source_patterns
        assert ("gate_proj" in first and "up_proj" in second) or ("w1" in first and "w3" in second)
