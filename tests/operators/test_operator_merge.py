"""Operators from plan to checked checkpoint: files, workers, resuming, verification, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

import safeswap
from gram_folder import NEED_GRAMS
from safeswap.checkpoint import reader, stored
from safeswap.errors import PlanError, VerificationError
from safeswap.io import workers
from safeswap.merge import chunks, stream, write
from safeswap.operators import OPERATORS, Operation, TensorContext, merge_arrays
from safeswap.plan import Plan
from tiny import digest_of, make_trio, rewrite, swap

OTHERS = [name for name in OPERATORS if name != "linear" and name not in NEED_GRAMS]


def plan_of(trio: dict[str, Path], operation: Operation, **units: Any) -> Plan:
    """Everything blended, every unit joined by the operation, but for `units`."""
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    plan = safeswap.make_plan(profile, "sw")
    rows = {}
    for unit, row in plan.units.items():
        weights = units.get(unit.replace(".", "_"), {"safety": 0.5, "sw": 0.5})
        rows[unit] = dataclasses.replace(row, weights=weights)
    return dataclasses.replace(plan, operator=operation, units=rows)


def tensors_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_trio(tmp_path_factory.mktemp("trio"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks and blocks so small that every tensor has several."""
    for module in (workers, stream, chunks, write, reader, stored):
        if hasattr(module, "BLOCK_ELEMENTS"):
            monkeypatch.setattr(module, "BLOCK_ELEMENTS", 96)
    for module in (workers, chunks):
        monkeypatch.setattr(module, "CHUNK_ELEMENTS", 192)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", OTHERS)
def test_the_merge_gives_what_the_operator_says(
    name: str, trio: dict[str, Path], tmp_path: Path
) -> None:
    swapped = {"0_mlp": {"safety": 1.0, "sw": 0.0}, "1_attention": {"safety": 0.0, "sw": 0.3}}
    plan = plan_of(trio, Operation(name), **swapped)
    (merged,) = safeswap.merge_plans([plan], tmp_path / "out", figure=False, workers=1)
    safeswap.merge_plans([plan], tmp_path / "again", figure=False, workers=4)
    found, again = (tensors_of(tmp_path / folder) for folder in ("out", "again"))
    base, safety, spoken = (tensors_of(trio[role]) for role in ("base", "safety", "sw"))
    operator = OPERATORS[name]
    for tensor, values in found.items():
        assert values.tobytes() == again[tensor].tobytes()
        wide = [w[tensor].astype(np.float32) for w in (base, safety, spoken)]
        if ".0.mlp" in tensor:
            assert values.tobytes() == safety[tensor].tobytes()
            continue
        weights, places = (0.5, 0.5), (0, 1)
        if ".1.self_attn" in tensor:
            if name != "project":
                wanted = 0.7 * wide[0] + 0.3 * wide[2]
                np.testing.assert_allclose(values.astype(np.float32), wanted, rtol=2**-8)
                continue
            weights = (0.0, 0.3)
        inside = "layers" in tensor and "norm" not in tensor
        task = TensorContext(
            tensor, values.shape, weights, operator.resolve_settings({}, "t"), places, inside
        )
        wanted = merge_arrays(operator, task, wide[0], wide[1:], 96).astype(ml_dtypes.bfloat16)
        assert values.tobytes() == wanted.tobytes(), tensor
    manifest = json.loads((tmp_path / "out/safeswap.json").read_text())
    tensor_log = {entry["unit"]: entry["fate"] for entry in manifest["tensors"].values()}
    assert tensor_log["0.mlp"] == "copied from safety"
    assert tensor_log["0.attention"] == f"{name}: 0.5 · safety + 0.5 · sw"
    assert safeswap.verify_merge(tmp_path / "out", workers=2).from_inputs
    assert merged.plan.operator.name == name


def test_chunks_do_not_matter(
    trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ties", "dare-ties", "della", "breadcrumbs"):
        plan = plan_of(trio, Operation(name))
        safeswap.merge_plans([plan], tmp_path / f"{name}-large", figure=False)
        with monkeypatch.context() as patch:
            for module in (workers, stream, chunks, write, reader, stored):
                if hasattr(module, "BLOCK_ELEMENTS"):
                    patch.setattr(module, "BLOCK_ELEMENTS", 40)
            for module in (workers, chunks):
                patch.setattr(module, "CHUNK_ELEMENTS", 120)
            plan = plan_of(trio, Operation(name))  # digests hang on the chunks
            safeswap.merge_plans([plan], tmp_path / f"{name}-small", figure=False)
        large, small = (tensors_of(tmp_path / f"{name}-{size}") for size in ("large", "small"))
        for tensor, values in large.items():
            assert values.tobytes() == small[tensor].tobytes(), (name, tensor)


@pytest.mark.parametrize("name", ["ties", "tsv"])
def test_a_changed_setting_is_found_by_verify(
    name: str, trio: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    safeswap.merge_plans([plan_of(trio, Operation(name))], out, figure=False)
    text = (out / "safeswap-plan.yaml").read_text()
    assert f"operator: {name}\n" in text
    changed = text.replace(f"operator: {name}\n", f"operator: {{name: {name}, scale: 1.5}}\n")
    (out / "safeswap-plan.yaml").write_text(changed)
    with pytest.raises(VerificationError, match="was changed after the merge"):
        safeswap.verify_merge(out)
    manifest = json.loads((out / "safeswap.json").read_text())
    manifest["plan"]["operator"] = {"name": name, "scale": 1.5}
    (out / "safeswap.json").write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match="the inputs now give other bytes"):
        safeswap.verify_merge(out)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("name", ["ties", "iso-c"])
def test_an_interrupted_merge_goes_on(
    name: str, trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(trio, Operation(name))
    safeswap.merge_plans([plan], tmp_path / "whole", figure=False)
    original, calls = write._write_chunk, []

    def dies(*given: Any) -> str:
        calls.append(given)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return original(*given)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(write, "_write_chunk", dies)
        safeswap.merge_plans([plan], tmp_path / "out", figure=False, workers=1)
    (merged,) = safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    assert merged.resumed_bytes > 0
    left, right = digest_of(tmp_path / "whole"), digest_of(tmp_path / "out")
    assert left == right


def test_other_settings_do_not_resume(
    trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("safeswap.merge.card.write_card", _interrupted)
        plan = plan_of(trio, Operation("ties", {"density": 0.2}))
        safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    other = plan_of(trio, Operation("ties", {"density": 0.3}))
    (merged,) = safeswap.merge_plans([other], tmp_path / "out", figure=False)
    assert merged.resumed_bytes == 0


def _interrupted(*given: Any) -> None:
    raise KeyboardInterrupt


def test_a_plan_with_operators_reads_back_as_it_was_written(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    plan = plan_of(trio, Operation("ties", {"density": 0.3}))
    rows = dict(plan.units)
    rows["1.mlp"] = dataclasses.replace(rows["1.mlp"], operator=Operation("slerp"))
    dare = Operation("dare", {"drop": 0.5, "seed": 7})
    rows["0.mlp"] = dataclasses.replace(rows["0.mlp"], operator=dare)
    plan = dataclasses.replace(plan, units=rows)
    plan.save(tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    assert "operator: slerp" in text and "operator: {name: dare, drop: 0.5, seed: 7}" in text
    read = Plan.load(tmp_path / "plan.yaml")
    assert read.text() == text and read.units["1.mlp"].operator == Operation("slerp")
    assert read.operation("0.mlp") == dare and read.operation("0.norms") == plan.operator


def test_a_linear_plan_is_written_as_before(trio: dict[str, Path]) -> None:
    text = plan_of(trio, Operation()).text()
    assert "\noperator: linear\n" in text and text.count("operator") == 1


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("operator: linear", "operator: tiess", ["unknown operator 'tiess'", "'ties'"]),
        ("operator: linear", "operator: {name: ties, density: 2}", ["density 2 is not valid"]),
        ("operator: linear", "operator: {name: ties, top: 2}", ["no parameter 'top'"]),
        ("0.mlp:", "0.mlp: {weights: {safety: 1, sw: -1}, operator: slerp}\n  1.mlp:",
         ["unit 0.mlp", "parts of a whole", "sw is -1"]),
        ("0.mlp:", "0.mlp: {weights: {safety: 1}, operator: [ties]}\n  1.mlp:",
         ["unit 0.mlp", "must be a name"]),
    ],
)  # fmt: skip
def test_a_plan_that_cannot_be_is_refused_where_it_is_read(
    old: str, new: str, words: list[str], trio: dict[str, Path], tmp_path: Path
) -> None:
    text = plan_of(trio, Operation()).text()
    lines = [line for line in text.splitlines() if "1.mlp:" not in line]
    (tmp_path / "plan.yaml").write_text("\n".join(lines).replace(old, new))
    with pytest.raises(PlanError) as caught:
        Plan.load(tmp_path / "plan.yaml")
    for word in words:
        assert word in str(caught.value)


def test_three_experts_are_too_many_for_slerp(trio: dict[str, Path], tmp_path: Path) -> None:
    plan = plan_of(trio, Operation("slerp"))
    three = {"safety": 0.3, "sw": 0.3, "te": 0.4}
    inputs = {**plan.inputs, "te": plan.inputs["sw"]}
    rows = {unit: dataclasses.replace(row, weights=three) for unit, row in plan.units.items()}
    with pytest.raises(PlanError, match="slerp joins exactly 2 experts, not 3"):
        safeswap.merge_plans(
            [dataclasses.replace(plan, inputs=inputs, units=rows)], tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_other_formats_are_written_too(dtype: str, trio: dict[str, Path], tmp_path: Path) -> None:
    plan = plan_of(trio, Operation("ties"))
    safeswap.merge_plans([plan], tmp_path / "out", figure=False, dtype=dtype)
    assert safeswap.verify_merge(tmp_path / "out").from_inputs


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)

    def spoil(weights: dict[str, Any]) -> None:
        weights["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan

    plan = plan_of(trio, Operation("ties"))
    rewrite(trio["sw"], spoil)
    with pytest.raises(safeswap.SafeswapError, match=r"up_proj.*has nan"):
        safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    assert not (tmp_path / "out").exists()


def test_swap_still_copies_and_blends(trio: dict[str, Path], tmp_path: Path) -> None:
    swap(trio, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/safeswap.json").read_text())
    assert manifest["plan"]["operator"] == "linear"
    tensor_log = {entry["fate"] for entry in manifest["tensors"].values()}
    assert tensor_log <= {"copied from safety", "copied from sw", "0.5 · safety + 0.5 · sw"}
