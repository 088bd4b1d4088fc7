"""Against mergekit 0.1.5, at matched settings: within one unit in the last place of float32.

Runs where SAFESWAP_MERGEKIT names a Python that has it. Both compute in float64 and round once to
float32 (mergekit: dtype float64, out_dtype float32; safeswap always, where weights are float32).
With mergekit's arithmetic in float32 its results lie up to 3 units away, by its own roundings. The
unit is that of the largest number that takes part in an element (base, experts or result).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file
from test_operator_merge import plan_of, tensors_of

import safeswap
from safeswap.operators import Operation
from tiny import config_of, llama_shapes, save_checkpoint

PYTHON = os.environ.get("SAFESWAP_MERGEKIT", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="SAFESWAP_MERGEKIT names no Python")

ROLES = ("base", "safety", "sw")
HALF = {"safety": 0.5, "sw": 0.5}
MIXED = {"safety": 0.7, "sw": 0.4}


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Float32 checkpoints whose updates are 30 % of the weights: slerp turns, sce weighs."""
    folder = tmp_path_factory.mktemp("peer")
    shapes = llama_shapes(width=32, inner=48, words=64)
    config = config_of(shapes) | {"dtype": "float32", "torch_dtype": "float32"}
    found, base = {}, {}
    for seed, role in enumerate(ROLES):
        chance = np.random.default_rng(seed)
        weights = {
            name: (base.get(name, 0) + (0.3 if base else 1) * chance.standard_normal(shape))
            .astype(np.float32)
            for name, shape in shapes.items()
        }  # fmt: skip
        base = base or weights
        found[role] = save_checkpoint(folder / role, weights, config)
    return found


def entry(trio: dict[str, Path], role: str, **parameters: Any) -> dict[str, Any]:
    return {"model": str(trio[role])} | ({"parameters": parameters} if parameters else {})


def peer(folder: Path, content: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """What mergekit makes of a configuration."""
    (folder / "peer.yaml").write_text(
        yaml.safe_dump({"dtype": "float64", "out_dtype": "float32"} | content)
    )
    command = [str(Path(PYTHON).parent / "mergekit-yaml"), str(folder / "peer.yaml")]
    done = subprocess.run(
        [*command, str(folder / "peer"), "--no-copy-tokenizer"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return tensors_of(folder / "peer")


def configuration(
    trio: dict[str, Path], method: str, weights: dict[str, float], **parameters: Any
) -> dict[str, Any]:
    """mergekit's configuration of a method with a base model and weights."""
    models = [entry(trio, "base")]
    models += [entry(trio, role, weight=weight) for role, weight in weights.items()]
    content = {"merge_method": method, "base_model": str(trio["base"]), "models": models}
    return content | ({"parameters": parameters} if parameters else {})


def plain(trio: dict[str, Path], method: str, **parameters: Any) -> dict[str, Any]:
    """A method that takes no weights."""
    models = [entry(trio, role) for role in ROLES]
    content = {"merge_method": method, "base_model": str(trio["base"]), "models": models}
    return content | ({"parameters": parameters} if parameters else {})


def cases(trio: dict[str, Path]) -> dict[str, tuple[dict[str, Any], Operation, dict[str, float]]]:
    linear = {
        "merge_method": "linear",
        "models": [entry(trio, role, weight=weight) for role, weight in HALF.items()],
        "parameters": {"normalize": False},
    }
    slerp = {
        "merge_method": "slerp",
        "base_model": str(trio["safety"]),
        "models": [entry(trio, "safety"), entry(trio, "sw")],
        "parameters": {"t": 0.4},
    }
    karcher = {"merge_method": "karcher", "models": [entry(trio, "safety"), entry(trio, "sw")]}
    nuslerp = configuration(trio, "nuslerp", {"safety": 0.6, "sw": 0.4})
    return {
        "linear": (linear, Operation(), HALF),
        "task_arithmetic": (configuration(trio, "task_arithmetic", MIXED), Operation(), MIXED),
        "ties": (
            configuration(trio, "ties", MIXED, density=0.2),
            Operation("ties", {"density": 0.2}),
            MIXED,
        ),
        "ties, sums": (
            configuration(trio, "ties", MIXED, density=0.7, normalize=False),
            Operation("ties", {"density": 0.7, "normalize": False}),
            MIXED,
        ),
        "slerp": (slerp, Operation("slerp"), {"safety": 0.6, "sw": 0.4}),
        "nuslerp": (nuslerp, Operation("nuslerp"), {"safety": 0.6, "sw": 0.4}),
        "sce": (
            plain(trio, "sce", select_topk=0.3),
            Operation("sce", {"select_topk": 0.3}),
            HALF,
        ),
        "sce, all": (plain(trio, "sce"), Operation("sce", {"select_topk": 1.0}), HALF),
        "model_stock": (plain(trio, "model_stock"), Operation("model-stock"), HALF),
        "karcher": (karcher, Operation("karcher"), HALF),
        "breadcrumbs": (
            configuration(trio, "breadcrumbs", MIXED, density=0.4, gamma=0.1),
            Operation("breadcrumbs", {"density": 0.4, "gamma": 0.1}),
            MIXED,
        ),
    }


NAMES = (
    "linear", "task_arithmetic", "ties", "ties, sums", "slerp", "nuslerp", "sce", "sce, all",
    "model_stock", "karcher", "breadcrumbs",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_equals_mergekit(name: str, trio: dict[str, Path], tmp_path: Path) -> None:
    content, operation, weights = cases(trio)[name]
    plan = plan_of(trio, operation)
    plan = type(plan)(
        plan.inputs,
        {unit: type(row)(weights, row.shares) for unit, row in plan.units.items()},
        plan.donor,
        plan.selector,
        plan.operator,
    )
    safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    ours, theirs = tensors_of(tmp_path / "out"), peer(tmp_path, content)
    inputs = [load_file(trio[role] / "model.safetensors") for role in ROLES]
    assert ours.keys() == theirs.keys()
    worst, apart, total = 0.0, 0, 0
    for tensor, wanted in theirs.items():
        largest = np.max([np.abs(ours[tensor]), *(np.abs(held[tensor]) for held in inputs)], axis=0)
        units = np.abs(ours[tensor].astype(np.float64) - wanted) / np.spacing(largest)
        worst, apart = max(worst, float(units.max())), apart + int((units > 1).sum())
        total += wanted.size
    print(f"\n{name}: worst {worst:.2f} units, {apart} of {total} elements more than one apart")
    assert worst <= 1


def test_sce_weighs_small_updates_where_mergekit_does_not(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    """mergekit takes the experts as equal where their mean squares sum to less than 1e-6."""
    small = {"base": trio["base"]}
    base = load_file(trio["base"] / "model.safetensors")
    for seed, role in enumerate(ROLES[1:], 1):
        chance = np.random.default_rng(seed)
        weights = {
            n: (w + seed * 1e-4 * chance.standard_normal(w.shape)).astype(np.float32)
            for n, w in base.items()
        }
        (tmp_path / role).mkdir()
        for file in trio[role].iterdir():
            (tmp_path / role / file.name).write_bytes(file.read_bytes())
        save_file(weights, tmp_path / role / "model.safetensors", metadata={"format": "pt"})
        small[role] = tmp_path / role
    plan = plan_of(small, Operation("sce", {"select_topk": 1.0}))
    safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    ours, theirs = tensors_of(tmp_path / "out"), peer(tmp_path, plain(small, "sce"))
    name = "model.layers.0.mlp.up_proj.weight"
    apart = np.abs(ours[name] - theirs[name]).mean() / 1e-4
    assert apart > 0.05
