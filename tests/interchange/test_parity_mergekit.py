"""safeswap and mergekit 0.1.5 give the same weights, both ways, within one unit in the last place.

mergekit lives in an environment of its own: `make parity` makes it and sets SAFESWAP_MERGEKIT to
its python. Without that variable these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import safeswap
from oracle import state_of, steps_apart
from safeswap.interchange import from_mergekit, to_mergekit
from safeswap.plan import Plan, PlannedUnit
from tiny import edit_json, make_trio, rewrite

PYTHON = os.environ.get("SAFESWAP_MERGEKIT", "")
pytestmark = pytest.mark.skipif(
    not PYTHON, reason="SAFESWAP_MERGEKIT is not set to the python of a mergekit environment"
)

# mergekit's own entry points, many configurations in one process: its imports take seconds
RUN = """
import json, sys, yaml
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
for config, out in json.load(open(sys.argv[1])):
    made = MergeConfiguration.model_validate(yaml.safe_load(open(config)))
    run_merge(made, out, MergeOptions(copy_tokenizer=False, quiet=True))
"""
METHODS: dict[str, dict[str, Any]] = {
    "by-module": {"tau": 0.001, "alpha": 0.3},
    "by-layer": {"by": "layer", "tau": 0.001, "outside": "base"},
    "gated": {"method": "gated", "tau": 0.001, "gamma": 0.7},
    "band": {"method": "band", "alpha": 0.25},
    "arithmetic": {"method": "uniform", "form": "task-arithmetic"},
    "chat-vector": {"method": "uniform", "form": "chat-vector", "gamma": 0.5},
}
SHAPES = [(12, "bfloat16"), (24, "bfloat16"), (4, "float16"), (4, "float32")]


def mergekit(folder: Path, configs: dict[str, str]) -> dict[str, Path]:
    """Run mergekit on configurations (name → YAML) and return the output folders."""
    jobs = []
    for name, text in configs.items():
        (folder / f"{name}.yml").write_text(text)
        jobs.append((str(folder / f"{name}.yml"), str(folder / f"{name}-mergekit")))
    (folder / "jobs.json").write_text(json.dumps(jobs))
    command = [PYTHON, "-c", RUN, str(folder / "jobs.json")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    return {name: folder / f"{name}-mergekit" for name in configs}


def trio_of(folder: Path, layers: int, dtype: str) -> dict[str, Path]:
    trio = make_trio(folder, layers=layers, width=8, inner=12)
    for number, member in enumerate(trio.values() if dtype != "bfloat16" else ()):
        chance = np.random.default_rng(number)

        def convert(weights: dict[str, Any], chance: np.random.Generator = chance) -> None:
            for name, weight in weights.items():
                noise = 1e-4 * chance.standard_normal(weight.shape)
                weights[name] = (weight.astype(np.float64) + noise).astype(dtype)

        rewrite(member, convert)
        edit_json(member / "config.json", dtype=dtype)
    return trio


def merged(plan: Plan, out: Path) -> Path:
    safeswap.merge_plans([plan], out, figure=False)
    return out


def compare(ours: Path, theirs: Path) -> dict[str, int]:
    """Assert at most one step apart everywhere; tensor → how many elements are one apart."""
    found, wanted = state_of(ours), state_of(theirs)
    assert found.keys() == wanted.keys()
    apart = {}
    for name, weight in wanted.items():
        assert weight.dtype == found[name].dtype, name
        steps = steps_apart(found[name], weight)
        assert steps.max().item() <= 1, f"{name}: {steps.max().item()} steps"
        apart[name] = int(steps.ne(0).sum())
    return apart


def all_different(plan: Plan) -> Plan:
    """A table in which no two units have the same weights: a mix-up of layers shows."""
    units = {
        unit: PlannedUnit({"safety": 1.5 - 0.017 * n, "sw": -0.25 + 0.013 * n})
        for n, unit in enumerate(plan.units)
    }
    return replace(plan, units=units, selector={})


@pytest.mark.parametrize(("layers", "dtype"), SHAPES)
def test_exported_plans_give_the_same_weights(tmp_path: Path, layers: int, dtype: str) -> None:
    trio = trio_of(tmp_path / "trio", layers, dtype)
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    plans = {name: safeswap.make_plan(profile, **given) for name, given in METHODS.items()}
    plans["all-different"] = all_different(plans["by-module"])
    theirs = mergekit(tmp_path, {name: to_mergekit(plan) for name, plan in plans.items()})
    apart = {n: compare(merged(p, tmp_path / n), theirs[n]) for n, p in plans.items()}
    total = sum(weight.numel() for weight in state_of(tmp_path / "band").values())
    sums = {name: sum(found.values()) for name, found in apart.items()}
    print(f"{layers} layers, {dtype}: {sums} of {total} weights one unit apart")
    units = {tensor.name: tensor.unit for tensor in profile.tensors}
    for name in ("by-module", "by-layer", "band"):  # swapped tensors are the same bytes
        kept = {u for u, row in plans[name].units.items() if row.decision in ("safety", "sw")}
        assert kept and not any(n for t, n in apart[name].items() if units[t] in kept)
    config = json.loads((theirs["band"] / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype")) == dtype


def test_the_command_itself_reads_what_is_exported(tmp_path: Path) -> None:
    trio = trio_of(tmp_path / "trio", 12, "bfloat16")
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    plan = safeswap.make_plan(profile, alpha=0.5)
    (tmp_path / "config.yml").write_text(to_mergekit(plan, dtype="float32"))
    command = [PYTHON, "-m", "mergekit.scripts.run_yaml", "config.yml", "out", "--quiet"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    safeswap.merge_plans([plan], tmp_path / "ours", dtype="float32", figure=False)
    compare(tmp_path / "ours", tmp_path / "out")
    assert all(w.dtype == torch.float32 for w in state_of(tmp_path / "out").values())


def native(trio: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Configurations as people write them."""
    base, safety, sw = (str(trio[role]) for role in ("base", "safety", "sw"))
    gradient = [0.0, 0.3, 1.0]
    filtered = [{"filter": "self_attn", "value": 0.6}, {"filter": "mlp", "value": gradient},
                {"value": 0.2}]  # fmt: skip
    return {
        "linear": {
            "merge_method": "linear",
            "models": [
                {"model": safety, "parameters": {"weight": 2.0}},
                {"model": sw, "parameters": {"weight": gradient}},
            ],
        },
        "arithmetic": {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": [
                {"model": base},
                {"model": safety, "parameters": {"weight": filtered}},
                {"model": sw, "parameters": {"weight": 1.0}},
            ],
            "parameters": {"lambda": 0.7, "normalize": False},
        },
        "normalized": {
            "merge_method": "task_arithmetic",
            "base_model": base,
            "models": [{"model": safety}, {"model": sw, "parameters": {"weight": 0.25}}],
            "parameters": {"normalize": True, "weight": 0.5},
        },
        "ties": {
            "merge_method": "ties",
            "base_model": base,
            "models": [
                {"model": safety, "parameters": {"weight": 0.7}},
                {"model": sw, "parameters": {"weight": [0.4, 1.0]}},
            ],
            "parameters": {"density": 0.3, "lambda": 0.9},
        },
        "breadcrumbs": {
            "merge_method": "breadcrumbs",
            "base_model": base,
            "models": [{"model": safety}, {"model": sw, "parameters": {"weight": 0.25}}],
            "parameters": {"weight": 0.5, "density": 0.4, "gamma": 0.1},
        },
        "slerp": {
            "merge_method": "slerp",
            "base_model": sw,
            "models": [{"model": sw}, {"model": safety}],
            "parameters": {"t": [{"filter": "mlp", "value": gradient}, {"value": 0.5}]},
        },
        "slices": {
            "merge_method": "linear",
            "slices": [
                {
                    "sources": [
                        {"model": safety, "layer_range": [0, 5], "parameters": {"weight": 1}},
                        {"model": sw, "layer_range": [0, 5], "parameters": {"weight": [0, 3]}},
                    ]
                },
                {
                    "sources": [
                        {"model": sw, "layer_range": [5, 12]},
                        {"model": base, "layer_range": [5, 12]},
                    ],
                    "parameters": {"weight": 0.5},
                },
            ],
        },
    }


# ties keeps everything that ties with its limit, mergekit some of it: frequent in 16 bits
@pytest.mark.parametrize(
    ("names", "dtype", "computed"),
    [
        (("linear", "arithmetic", "normalized", "slices", "slerp"), "bfloat16", "float32"),
        (("ties", "breadcrumbs", "slerp"), "float32", "float64"),
    ],
)
def test_imported_configurations_give_the_same_weights(
    tmp_path: Path, names: tuple[str, ...], dtype: str, computed: str
) -> None:
    trio = trio_of(tmp_path / "trio", 12, dtype)
    written = {"dtype": computed, "out_dtype": dtype}
    configs = {name: yaml.safe_dump(native(trio)[name] | written) for name in names}
    theirs = mergekit(tmp_path, configs)
    for name, out in theirs.items():
        made = from_mergekit(
            tmp_path / f"{name}.yml",
            base=str(trio["base"]),
            safety=str(trio["safety"]),
            languages={"sw": str(trio["sw"])},
        )
        assert made.notes == ()
        apart = compare(merged(made.plan, tmp_path / name), out)
        print(f"{name}, {dtype}: {sum(apart.values())} weights one unit apart")
