"""A profile's numbers equal plain float64 ones, and its file is read strictly."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import safeswap
from safeswap.errors import ProfileError
from safeswap.io.workers import CHUNK_ELEMENTS
from safeswap.profile import Profile
from tiny import BF16, config_of, llama_shapes, make_weights, save_checkpoint

Weights = dict[str, np.ndarray[Any, Any]]


def weights_of(folder: Path) -> Weights:
    """All tensors in float64."""
    files = sorted(folder.glob("*.safetensors"))
    return {n: w.astype(np.float64) for file in files for n, w in load_file(file).items()}


def measure(trio: dict[str, Path], workers: int | None = None) -> Profile:
    languages = {role: trio[role] for role in trio if role not in ("base", "safety")}
    return safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages=languages, workers=workers, force=True
    )


def check_numbers(profile: Profile, trio: dict[str, Path]) -> None:
    states = {role: weights_of(folder) for role, folder in trio.items()}
    assert {tensor.name for tensor in profile.tensors} == states["base"].keys()
    for tensor in profile.tensors:
        base = states["base"][tensor.name].ravel()
        vectors = {
            role: states[role][tensor.name].ravel() - base for role in trio if role != "base"
        }
        lengths = {role: float(np.sqrt((v * v).sum())) for role, v in vectors.items()}
        assert tensor.base_norm == pytest.approx(float(np.sqrt((base * base).sum())), rel=1e-6)
        assert tensor.update_norm == pytest.approx(lengths, rel=1e-6)
        for language in profile.languages:
            exact = float((vectors["safety"] * vectors[language]).sum())
            whole = lengths["safety"] * lengths[language]
            assert abs(tensor.inner[language] - exact) <= 1e-6 * whole


@pytest.mark.parametrize("dtype", [BF16, np.float16, np.float32, np.float64])
def test_numbers_equal_a_float64_computation(trio: dict[str, Path], dtype: Any) -> None:
    for folder in trio.values():
        for file in folder.glob("*.safetensors"):
            held = load_file(file)
            chance = np.random.default_rng(len(held))
            save_file(
                {
                    n: (w.astype(np.float64) + 1e-4 * chance.random(w.shape)).astype(dtype)
                    for n, w in held.items()
                },
                file,
            )
    profile = measure(trio)
    check_numbers(profile, trio)
    assert profile.languages == ("sw", "te")
    assert profile.layers == 2
    assert {tensor.name: tensor.unit for tensor in profile.tensors}["lm_head.weight"] == "lm_head"


def test_any_number_of_workers_measures_the_same(trio: dict[str, Path]) -> None:
    one, three = measure(trio, 1), measure(trio, 3)
    assert one == three


def test_a_tensor_of_several_pieces(tmp_path: Path) -> None:
    """Larger than a chunk, and not a multiple of a block; one expert moves against the other."""
    shapes = llama_shapes(layers=1)
    name = "model.layers.0.mlp.down_proj.weight"
    shapes[name] = (1, CHUNK_ELEMENTS + 70_001)
    base = make_weights(shapes)
    chance = np.random.default_rng(3)
    trio = {}
    for role, reach in (("base", 0.0), ("safety", 0.01), ("sw", -0.02)):
        held = dict(base)
        moved = reach * np.abs(chance.standard_normal(shapes[name], dtype=np.float32))
        held[name] = (base[name].astype(np.float32) + moved).astype(BF16)
        trio[role] = save_checkpoint(tmp_path / role, held, config_of(shapes))
    profile = measure(trio, 3)
    check_numbers(profile, trio)
    (large,) = [tensor for tensor in profile.tensors if tensor.name == name]
    assert large.inner["sw"] < -0.5 * large.update_norm["safety"] * large.update_norm["sw"]
    assert profile == measure(trio, 1)


def test_weights_beyond_the_reach_of_float32_squares(trio: dict[str, Path]) -> None:
    """Squares of 1e25 overflow float32: the sums must not."""
    for folder in trio.values():
        for file in folder.glob("*.safetensors"):
            held = load_file(file)
            save_file(
                {n: (w.astype(np.float32) * 1e25).astype(BF16) for n, w in held.items()}, file
            )
    check_numbers(measure(trio), trio)


def test_digests_tell_weights_not_shards(trio: dict[str, Path], tmp_path: Path) -> None:
    before = measure(trio)
    whole = {
        n: w for f in sorted(trio["sw"].glob("*.safetensors")) for n, w in load_file(f).items()
    }
    config = json.loads((trio["sw"] / "config.json").read_text())
    moved = save_checkpoint(tmp_path / "single", whole, config)
    after = measure({**trio, "sw": moved})
    assert after.inputs["sw"].digest == before.inputs["sw"].digest
    assert [t.digests for t in after.tensors] == [
        {t.name: t.digests for t in before.tensors}[t.name] for t in after.tensors
    ]
    name = "model.norm.weight"
    whole[name] = whole[name].copy()
    whole[name].view(np.uint16)[0] ^= 1
    changed = save_checkpoint(tmp_path / "changed", whole, config)
    assert measure({**trio, "sw": changed}).inputs["sw"].digest != before.inputs["sw"].digest


def test_a_profile_is_kept_exactly(trio: dict[str, Path], tmp_path: Path) -> None:
    profile = measure(trio)
    profile.save(tmp_path / "profile.json")
    assert Profile.load(tmp_path / "profile.json") == profile


def test_a_stale_profile_is_not_taken_for_another_checkpoint(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    """Same names, sizes and times, other weights: measured anew, so the digests are right."""
    profile = measure(trio)
    other = shutil.copytree(trio["te"], tmp_path / "other")
    for file in other.glob("*.safetensors"):
        status = (trio["sw"] / file.name).stat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    plan = safeswap.make_plan(profile, "sw")
    inputs = {**plan.inputs, "sw": type(plan.inputs["sw"])(str(other))}
    moved = safeswap.Plan(inputs, plan.units, plan.donor)
    (merged,) = safeswap.merge_plans([moved], tmp_path / "out", profile=profile, figure=False)
    assert merged.profile.inputs["sw"].digest == profile.inputs["te"].digest
    assert safeswap.verify_merge(tmp_path / "out").from_inputs


def spoilt(content: dict[str, Any], how: str) -> None:
    tensor = next(t for t in content["tensors"] if t["role"] == "projection")
    match how:
        case "format":
            content["format"] = "safeswap-profile/0"
        case "unknown key":
            content["tensor"] = []
        case "missing key":
            del content["units"]
        case "nan":
            tensor["base_norm"] = float("nan")
        case "infinite":
            tensor["inner"]["sw"] = float("inf")
        case "text":
            tensor["update_norm"]["sw"] = "1.0"
        case "boolean":
            tensor["update_norm"]["sw"] = True
        case "negative":
            tensor["update_norm"]["sw"] = -1.0
        case "no base norm":
            tensor["base_norm"] = None
        case "missing expert":
            del tensor["update_norm"]["safety"]
        case "missing inner":
            del tensor["inner"]["te"]
        case "missing digest":
            del tensor["digests"]["base"]
        case "unknown unit":
            tensor["unit"] = "9.mlp"
        case "twice":
            content["tensors"].append(tensor)
        case "unknown field":
            tensor["norm"] = 1.0
        case "no safety":
            del content["inputs"]["safety"]
        case "inputs as list":
            content["inputs"] = []
        case "tensors as numbers":
            content["tensors"] = [1]
        case "shape below zero":
            tensor["shape"] = [-5, 7]
        case "shape beyond all":
            tensor["shape"] = [10**30, 7]
        case "shape of text":
            tensor["shape"] = ["x", 7]
        case "shape of fractions":
            tensor["shape"] = [1.5, float("nan")]
        case "dtype":
            tensor["dtype"] = ["BF16"]
        case "note":
            content["notes"] = [5]
        case "name of a language":  # it would be a key of plans, and of no other text
            renamed = json.dumps(content).replace('"sw"', '"sw: 0}.n"')
            content.update(json.loads(renamed))
        case _:  # a place of an input's record, found by fuzzing: what it names was not looked at
            content["inputs"]["sw"][how] = [1.5]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("format", "is not a safeswap-profile/1 file"),
        ("unknown key", "unknown key 'tensor'; did you mean 'tensors'"),
        ("missing key", "is damaged"),
        ("nan", "not finite"),
        ("infinite", "not finite"),
        ("text", "not finite"),
        ("boolean", "not finite"),
        ("negative", "negative norm"),
        ("no base norm", "is damaged"),
        ("missing expert", "lacks the numbers"),
        ("missing inner", "lacks the numbers"),
        ("missing digest", "lacks the numbers"),
        ("unknown unit", "unknown unit '9.mlp'"),
        ("twice", "is given twice"),
        ("unknown field", "is damaged"),
        ("no safety", "inputs must be"),
        ("inputs as list", "is damaged"),
        ("tensors as numbers", "is damaged"),
        ("shape below zero", "has the shape"),
        ("shape beyond all", "has the shape"),
        ("shape of text", "has the shape"),
        ("shape of fractions", "has the shape"),
        ("dtype", "dtype is .* no text"),
        ("note", "a note is no text"),
        ("name of a language", "language name 'sw: 0}.n' is not valid"),
        *(
            (key, f"{key} is .* no text")
            for key in ("source", "path", "name", "digest", "revision")
        ),
    ],
)
def test_a_damaged_profile_is_refused(
    trio: dict[str, Path], tmp_path: Path, how: str, message: str
) -> None:
    content = json.loads(json.dumps(measure(trio).as_dict()))
    spoilt(content, how)
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ProfileError, match=message) as caught:
        Profile.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe"])
def test_what_is_no_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match="is not a"):
        Profile.load(path)
    with pytest.raises(ProfileError, match="cannot be read"):
        Profile.load(tmp_path / "none.json")


@pytest.mark.parametrize("dtype", [BF16, np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, 3e-3, 1.7])
def test_norms_of_equal_values_keep_seven_digits(tmp_path: Path, dtype: Any, value: float) -> None:
    """The worst case for sums in float32: every partial sum rounds the same way."""
    shapes = llama_shapes(layers=1)
    name = "model.layers.0.mlp.down_proj.weight"
    shapes[name] = (1, 200_003)
    plain, trio = make_weights(shapes), {}
    for role, given in (("base", value), ("safety", 2 * value), ("sw", 3 * value)):
        held = plain | {name: np.full(shapes[name], given).astype(dtype)}
        trio[role] = save_checkpoint(tmp_path / role, held, config_of(shapes))
    states = {role: weights_of(folder)[name] for role, folder in trio.items()}
    (tensor,) = [t for t in measure(trio).tensors if t.name == name]

    def length(values: Any) -> float:
        return math.sqrt(math.fsum((values * values).ravel().tolist()))

    updates = {role: states[role] - states["base"] for role in ("safety", "sw")}
    assert tensor.base_norm == pytest.approx(length(states["base"]), rel=1e-7)
    assert tensor.update_norm == pytest.approx({r: length(u) for r, u in updates.items()}, rel=1e-7)
    inner = math.fsum((updates["safety"] * updates["sw"]).ravel().tolist())
    assert tensor.inner["sw"] == pytest.approx(inner, rel=2e-7)
