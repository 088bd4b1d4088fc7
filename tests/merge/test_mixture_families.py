"""Mixtures of experts by module and by expert, of every family, against float64 by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mixtures
from safeswap import api
from safeswap.merge.run import Merged

FUSED = {"granite-moe", "granite-moe-shared", "gpt-oss", "llama4-text"}
FAMILIES = (
    *("mixtral", "qwen2-moe", "qwen3-moe", "deepseek-v2", "deepseek-v3", "olmoe", "gpt-oss"),
    *("granite-moe", "granite-moe-shared", "llama4-text"),
)


def check(out: Path, expected: mixtures.State, dtype: torch.dtype = torch.float32) -> None:
    found = mixtures.loaded(out)
    assert set(found) == set(expected)
    step = torch.finfo(dtype).eps
    for name, wanted in expected.items():
        assert torch.allclose(found[name], wanted, rtol=step, atol=1e-12), name
    assert mixtures.same_logits(out, expected)


def run(trio: dict[str, Path], out: Path, **options: Any) -> Merged:
    experts: Any = {"safety": trio["safety"], "languages": {"sw": trio["sw"]}}
    (merged,) = api.merge(trio["base"], **experts, out=out, figure=False, **options)
    return merged


@pytest.mark.parametrize("by", ["module", "expert"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_merge_is_the_float64_computation(tmp_path: Path, family: str, by: str) -> None:
    trio = mixtures.save_trio(tmp_path, family)
    out = tmp_path / "out"
    merged = run(trio, out, by=by)
    states = [mixtures.loaded(trio[role]) for role in mixtures.ROLES]
    wanted = mixtures.merge(*states, by=by, halves=family not in FUSED)
    decided = {u: r.decision for u, r in merged.plan.units.items() if u in wanted.decisions}
    named = {u: "language" if d == "sw" else d for u, d in decided.items()}
    assert named == wanted.decisions and len(set(named.values())) > 1
    for unit, difference in wanted.difference.items():
        assert merged.plan.units[unit].difference == pytest.approx(difference, abs=1e-7)
    check(out, wanted.state)
    assert api.verify_merge(out).from_inputs
