"""Merges of quantized checkpoints: written in 16 bits, or quantized again as the donor's are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import safeswap
from narrow import (
    E4M3,
    Weights,
    alter,
    compressed,
    from_fp8,
    from_mxfp4,
    gpt_oss,
    gpt_oss_config,
    make_fp8,
    make_mxfp4,
    stored_in,
    to_fp8,
    to_mxfp4,
)
from safeswap.errors import ConfigError, VerificationError
from safeswap.plan import Plan
from tiny import (
    BF16,
    digest_of,
    edit_json,
    make_trio,
    make_weights,
    refused,
    save_checkpoint,
    swap,
)

ROLES = ("base", "safety", "sw")
BLOCK = (8, 7)
Trio = dict[str, Path]


@pytest.fixture
def fp8(tmp_path: Path) -> tuple[Trio, dict[str, Weights]]:
    """A trio in DeepSeek's fp8, with scales of activations; and its numbers."""
    trio = make_trio(tmp_path / "fp8")
    return trio, {role: make_fp8(trio[role], BLOCK, inputs=True) for role in ROLES}


@pytest.fixture
def mxfp4(tmp_path: Path) -> tuple[Trio, dict[str, Weights]]:
    """A trio of gpt-oss with its experts in MXFP4; and its numbers."""
    shapes = gpt_oss()
    base = make_weights(shapes)
    trio, numbers = {}, {}
    for seed, role in enumerate(ROLES):
        weights = make_weights(shapes, base, seed) if seed else base
        trio[role] = save_checkpoint(tmp_path / "mx" / role, weights, gpt_oss_config(shapes), 2)
        numbers[role] = make_mxfp4(trio[role])
    return trio, numbers


def plan_of(out: Path) -> Plan:
    return Plan.load(out / "safeswap-plan.yaml")


def merged(out: Path, numbers: dict[str, Weights], name: str) -> tuple[Any, str | None]:
    """What a tensor should be, in float64, by the plan in OUT; and whom it is copied from."""
    log = json.loads((out / "safeswap.json").read_text())
    unit = next(t["unit"] for t in log["profile"]["tensors"] if t["name"] == name)
    weights = dict(plan_of(out).units[unit].weights)
    whole = next((role for role, weight in weights.items() if weight == 1.0), None)
    rest = 1.0 - sum(weights.values())
    total = rest * numbers["base"][name]
    for role, weight in weights.items():
        total = total + weight * numbers[role][name]
    return total, whole


def with_all_kinds(trio: Trio, out: Path, **options: Any) -> Path:
    """A merge with modules of safety, of the language, and blends."""
    swap(trio, out, by="module", tau=0.11, **options)
    return out


@pytest.mark.parametrize("kind", ["fp8", "mxfp4"])
def test_in_sixteen_bits_by_default(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    trio, numbers = request.getfixturevalue(kind)
    out = swap(trio, tmp_path / "out")
    written = stored_in(out)
    assert set(written) == set(numbers["sw"])
    for name, values in written.items():
        wanted, whole = merged(out, numbers, name)
        assert values.dtype == BF16
        if whole:
            assert np.array_equal(values, wanted.astype(np.float32).astype(BF16)), name
        else:  # float32 arithmetic and one rounding
            assert np.abs(values.astype(float) - wanted).max() <= np.abs(wanted).max() * 2**-8
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config
    log = json.loads((out / "safeswap.json").read_text())
    aside = [name for name in log["not_used"] if name.startswith("sw: ")]
    assert len(aside) == {"fp8": 28, "mxfp4": 4}[kind]
    if kind == "fp8":
        name = "sw: model.layers.0.mlp.up_proj.input_scale"
        assert "activations" in log["not_used"][name]
    assert safeswap.api.verify_merge(out).from_inputs
    transformers = pytest.importorskip("transformers")
    held = transformers.AutoModelForCausalLM.from_pretrained(out).state_dict()
    for name, values in written.items():
        assert np.array_equal(held[name].float().numpy(), values.astype(np.float32)), name


def test_the_card_says_what_was_stored_narrow_and_mergekit_is_refused(
    fp8: tuple[Trio, dict[str, Weights]], tmp_path: Path
) -> None:
    trio, _ = fp8
    out = swap(trio, tmp_path / "out")
    card = (out / "README.md").read_text()
    assert "- sw: 14 tensors in fp8 E4M3, a scale per 8 × 7, read as numbers" in card
    refused(lambda: safeswap.api.to_mergekit(plan_of(out)), "base", "mergekit does not read")
    plain = swap(make_trio(tmp_path / "plain"), tmp_path / "o")
    assert "read as numbers" not in (plain / "README.md").read_text()


def test_transformers_loads_mxfp4_that_was_written_again(
    mxfp4: tuple[Trio, dict[str, Weights]], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    trio, _ = mxfp4
    out = swap(trio, tmp_path / "out", dtype="same", method="uniform")
    written = stored_in(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="bfloat16")
    for name, value in model.state_dict().items():
        if name + "_blocks" in written:
            wanted = from_mxfp4(written[name + "_blocks"], written[name + "_scales"])
            assert np.array_equal(value.float().numpy(), wanted.astype(np.float32)), name


def codes_of(values: Any) -> Any:
    """Numbers behind fp8 or a scale, as float64."""
    return values.astype(np.float64)


def test_fp8_again(fp8: tuple[Trio, dict[str, Weights]], tmp_path: Path) -> None:
    trio, numbers = fp8
    out = with_all_kinds(trio, tmp_path / "out", dtype="same", shard_size="3KB")
    stored = {role: stored_in(trio[role]) for role in ROLES}
    written = stored_in(out)
    assert set(written) == set(stored["sw"])
    seen = set()
    for name in numbers["sw"]:
        wanted, whole = merged(out, numbers, name)
        scale = name + "_scale_inv"
        if scale not in written:
            continue
        owner = name.removesuffix("weight")
        seen.add(whole)
        if whole:  # to the byte, scales of activations too
            for part in (name, scale, owner + "input_scale"):
                assert written[part].tobytes() == stored[whole][part].tobytes(), part
            continue
        sides = tuple(min(b, s) for b, s in zip(BLOCK, wanted.shape, strict=True))
        codes, scales = to_fp8(wanted, sides)
        assert np.allclose(written[scale], scales, rtol=1e-6)
        again = from_fp8(written[name], written[scale], sides)
        steps = (
            np.abs(again - wanted)
            / np.repeat(np.repeat(scales, sides[0], 0)[: wanted.shape[0]], sides[1], 1)[
                :, : wanted.shape[1]
            ]
        )
        # half a step of E4M3 for the number's own power of two, or for the smallest
        allowed = np.maximum(np.abs(wanted) * 2**-4, 2**-10 * np.abs(scales).max())
        assert (np.abs(again - wanted) <= allowed * 1.01).all(), steps.max()
        # a number in the middle of two codes may go to either, as float32 or float64 have it
        assert (written[name].view(np.uint8) != codes.view(np.uint8)).mean() < 0.03
        assert written[owner + "input_scale"] == stored["sw"][owner + "input_scale"]
    assert None in seen and len(seen) > 1
    config = json.loads((out / "config.json").read_text())
    assert config == json.loads((trio["sw"] / "config.json").read_text())
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(written)
    checked = safeswap.api.verify_merge(out)
    assert checked.from_inputs and checked.tensors == len(written)
    assert safeswap.api.verify_merge(out, without_inputs=True).tensors == len(written)


def test_transformers_loads_fp8_that_was_written_again(
    fp8: tuple[Trio, dict[str, Weights]], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    trio, numbers = fp8
    for role in ROLES:  # transformers takes only blocks that divide the shapes
        alter(trio[role], lambda w: [w.pop(n) for n in list(w) if "scale" in n])
        plain = {n: v.astype(np.float32).astype(BF16) for n, v in numbers[role].items()}
        alter(trio[role], lambda w, plain=plain: (w.clear(), w.update(plain)))
        numbers[role] = make_fp8(trio[role], (8, 8))
    out = swap(trio, tmp_path / "out", dtype="same")
    written = stored_in(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="bfloat16")
    for name, value in model.state_dict().items():
        wanted = written[name].astype(np.float64)
        if name + "_scale_inv" in written:
            sides = tuple(min(8, side) for side in wanted.shape)
            wanted = from_fp8(written[name], written[name + "_scale_inv"], sides)
        assert np.array_equal(value.float().numpy(), wanted.astype(np.float32).astype(BF16)), name


@pytest.mark.parametrize("how", [{"tau": 0.0}, {"method": "uniform"}])
def test_mxfp4_again(
    mxfp4: tuple[Trio, dict[str, Weights]], tmp_path: Path, how: dict[str, Any]
) -> None:
    trio, numbers = mxfp4
    out = swap(trio, tmp_path / "out", dtype="same", **how)
    stored = {role: stored_in(trio[role]) for role in ROLES}
    written = stored_in(out)
    assert set(written) == set(stored["sw"])
    seen = set()
    for name in numbers["sw"]:
        if name + "_blocks" not in written:
            continue
        wanted, whole = merged(out, numbers, name)
        seen.add(whole)
        found = written[name + "_blocks"], written[name + "_scales"]
        if whole:
            parts = stored[whole][name + "_blocks"], stored[whole][name + "_scales"]
        else:
            parts = to_mxfp4(wanted.astype(np.float32))
            assert np.abs(from_mxfp4(*found) - wanted).max() <= np.abs(wanted).max() / 6
        assert np.array_equal(found[1], parts[1])
        if whole:
            assert np.array_equal(found[0], parts[0])
        assert (from_mxfp4(*found) != from_mxfp4(*parts)).mean() < 0.003, name
    assert seen == ({None} if how == {"method": "uniform"} else seen - {None}) and seen
    assert safeswap.api.verify_merge(out).from_inputs
    assert "quantization_config" in json.loads((out / "config.json").read_text())


SCHEMES: dict[str, tuple[tuple[int, int], str, Any, tuple[int, ...] | None, Any]] = {
    "tensor": ((99, 99), "_scale", np.float32, (), compressed("tensor")),
    "channel": ((1, 99), "_scale", ml_dtypes.bfloat16, None, compressed("channel")),
    "powers": ((8, 8), "_scale_inv", ml_dtypes.float8_e8m0fnu, None, None),
}


@pytest.mark.parametrize("operator", [None, "ties", "tsv"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_schemes_and_operators(tmp_path: Path, scheme: str, operator: str | None) -> None:
    block, suffix, scale, shape, said = SCHEMES[scheme]
    trio = make_trio(tmp_path)
    shaped: Callable[[Any], Any] = (lambda s: s) if shape is None else (lambda s: s.reshape(shape))
    for role in ROLES:
        make_fp8(trio[role], block, suffix=suffix, scale=scale, shaped=shaped, said=said)
    more = {"operator": {"name": operator}} if operator else {}
    run = {"method": "uniform", "alpha": 0.5, **more}
    out = swap(trio, tmp_path / "out", dtype="same", **run)
    wide = stored_in(swap(trio, tmp_path / "wide", dtype="float64", **run))
    written = stored_in(out)
    for name in wide:
        if name + suffix not in written:
            continue
        sides = tuple(min(b, s) for b, s in zip(block, wide[name].shape, strict=True))
        grid = written[name + suffix]
        scales = grid.astype(np.float64).reshape(-(-wide[name].shape[0] // sides[0]), -1)
        again = from_fp8(written[name], scales, sides)
        assert np.abs(again - wide[name]).max() <= np.abs(wide[name]).max() * 2**-4, name
        coarse = 2 if scheme == "powers" else 1
        assert np.abs(codes_of(written[name])).max() >= 448 / coarse * 0.99
    assert safeswap.api.verify_merge(out).from_inputs


def test_scales_that_must_be_powers_of_two(tmp_path: Path) -> None:
    """DeepSeek's ``scale_fmt: ue8m0`` with scales in F32."""
    trio = make_trio(tmp_path)
    said = {"quant_method": "fp8", "weight_block_size": [8, 8], "scale_fmt": "ue8m0"}
    for role in ROLES:
        make_fp8(
            trio[role],
            (8, 8),
            scale=ml_dtypes.float8_e8m0fnu,
            shaped=lambda scales: scales.astype(np.float32),
            said=said,
        )
    out = swap(trio, tmp_path / "out", dtype="same", method="uniform")
    scales = {n: v for n, v in stored_in(out).items() if n.endswith("_scale_inv")}
    assert len(scales) == 14
    for name, values in scales.items():
        assert values.dtype == np.float32
        assert (np.frexp(values)[0] == 0.5).all(), name
    assert safeswap.api.verify_merge(out).from_inputs


def test_a_dtype_of_eight_bits_does_not_stay_in_the_config(
    tmp_path: Path, fp8: tuple[Trio, dict[str, Weights]]
) -> None:
    trio, _ = fp8
    edit_json(trio["sw"] / "config.json", dtype="float8_e4m3fn")
    plain, same = swap(trio, tmp_path / "a"), swap(trio, tmp_path / "b", dtype="same")
    assert json.loads((plain / "config.json").read_text())["dtype"] == "bfloat16"
    assert json.loads((same / "config.json").read_text())["dtype"] == "float8_e4m3fn"


def test_experts_in_other_precisions_are_brought_to_the_donors(
    tmp_path: Path, fp8: tuple[Trio, dict[str, Weights]]
) -> None:
    trio, numbers = fp8
    plain = make_trio(tmp_path / "plain")
    trio["safety"] = plain["safety"]
    numbers["safety"] = {n: v.astype(float) for n, v in stored_in(plain["safety"]).items()}
    trio["base"] = plain["base"]
    out = swap(trio, tmp_path / "out", dtype="same", method="uniform", alpha=1.0)
    written = stored_in(out)
    name = "model.layers.0.mlp.up_proj.weight"
    sides = BLOCK
    codes, scales = to_fp8(numbers["safety"][name], sides)
    assert np.allclose(written[name + "_scale_inv"], scales, rtol=1e-6)
    assert (written[name].view(np.uint8) != codes.view(np.uint8)).mean() < 0.02
    assert written[name].dtype == E4M3
    notes = json.loads((out / "safeswap.json").read_text())["profile"]["notes"]
    assert any(n.startswith("sw: 14 tensors in fp8 E4M3") and "moves weights" in n for n in notes)
    assert safeswap.api.verify_merge(out).from_inputs


def test_formats_that_differ_are_said(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)
    alter(trio["safety"], lambda w: w.update({n: v.astype(np.float16) for n, v in w.items()}))
    alter(trio["sw"], lambda w: w.update({n: v.astype(np.float32) for n, v in w.items()}))
    out = swap(trio, tmp_path / "out")
    notes = json.loads((out / "safeswap.json").read_text())["profile"]["notes"]
    assert any("base BF16, safety F16, sw F32" in note for note in notes)
    assert {v.dtype for v in stored_in(out).values()} == {np.dtype(np.float32)}
    same = make_trio(tmp_path / "same")
    alike = json.loads((swap(same, tmp_path / "o") / "safeswap.json").read_text())
    assert not any("formats" in note for note in alike["profile"]["notes"])


def test_a_quantized_base_beside_plain_experts(
    tmp_path: Path, fp8: tuple[Trio, dict[str, Weights]]
) -> None:
    trio, _ = fp8
    plain = make_trio(tmp_path / "plain")
    mixed = {**plain, "base": trio["base"]}
    out = tmp_path / "out"
    message = refused(lambda: swap(mixed, out), "base: 14 tensors in fp8", "--force", out=out)
    assert "moves weights by" in message and "safety, sw are not" in message
    swap(mixed, out, force=True)
    assert safeswap.api.verify_merge(out).from_inputs


def test_the_same_bytes_after_a_kill_and_on_any_number_of_workers(
    fp8: tuple[Trio, dict[str, Weights]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safeswap.merge import write

    trio, _ = fp8
    whole = digest_of(swap(trio, tmp_path / "whole", dtype="same", workers=1))
    real, calls = write.write_packed, [0]

    def stop(*arguments: Any) -> str:
        calls[0] += 1
        if calls[0] > 6:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(write, "write_packed", stop)
    with pytest.raises(KeyboardInterrupt):
        swap(trio, tmp_path / "cut", dtype="same", workers=1)
    monkeypatch.setattr(write, "write_packed", real)
    again = swap(trio, tmp_path / "cut", dtype="same", workers=3)
    assert digest_of(again) == whole


def test_what_was_tampered_with_is_found(
    fp8: tuple[Trio, dict[str, Weights]], tmp_path: Path
) -> None:
    trio, _ = fp8
    out = swap(trio, tmp_path / "out", dtype="same", shard_size="1GB")
    name = "model.layers.0.mlp.up_proj.weight"
    file = out / "model.safetensors"
    raw = bytearray(file.read_bytes())
    length = int.from_bytes(raw[:8], "little")
    at = 8 + length + json.loads(raw[8 : 8 + length])[name + "_scale_inv"]["data_offsets"][0]
    raw[at] ^= 1
    file.write_bytes(raw)
    for without in (True, False):
        with pytest.raises(VerificationError, match=name):
            safeswap.api.verify_merge(out, without_inputs=without)


def test_an_input_that_changed_since_is_found(
    fp8: tuple[Trio, dict[str, Weights]], tmp_path: Path
) -> None:
    trio, _ = fp8
    out = swap(trio, tmp_path / "out", dtype="same")
    name = "model.layers.0.mlp.up_proj.weight_scale_inv"
    alter(trio["sw"], lambda w: w.update({name: w[name] * np.float32(1.0001)}))
    with pytest.raises(VerificationError):
        safeswap.api.verify_merge(out)


def test_gguf_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from narrow import make_gguf

    trio = make_trio(tmp_path, shards=1, width=64, inner=96)
    for role in ROLES:
        edit_json(trio[role] / "config.json", rms_norm_eps=1e-6, rope_theta=10000.0)
    config = json.loads((trio["sw"] / "config.json").read_text())
    weights = stored_in(trio["sw"])
    (trio["sw"] / "model.safetensors").unlink()
    make_gguf(trio["sw"] / "sw.gguf", weights, config, "Q8_0")
    out = tmp_path / "out"
    refused(lambda: swap(trio, out, dtype="same"), "GGUF", "llama-quantize", out=out)
    assert {v.dtype.name for v in stored_in(swap(trio, out)).values()} == {"bfloat16", "float32"}
    assert safeswap.api.verify_merge(out).from_inputs


def test_same_is_as_stored_where_nothing_is_quantized(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)
    one, two = swap(trio, tmp_path / "one"), swap(trio, tmp_path / "two", dtype="same")
    for file in one.glob("*.safetensors"):
        assert file.read_bytes() == (two / file.name).read_bytes()
    with pytest.raises(ConfigError, match="did you mean 'same'"):
        swap(trio, tmp_path / "x", dtype="sme")


def test_candidates_in_memory_are_the_merges(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("jinja2")
    from safeswap.checkpoint.family import open_family
    from safeswap.demo import models_folder
    from safeswap.evaluation.backends import BackendOptions
    from safeswap.search.hotswap import HotSwapModel

    trio = {}
    for role, name in zip(ROLES, ("base", "safety", "qab"), strict=True):
        trio[role] = tmp_path / role
        shutil.copytree(models_folder() / name, trio[role])
        make_fp8(trio[role], (8, 8))
    (made,) = safeswap.api.merge(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}, out=tmp_path / "out"
    )
    family = open_family(trio["base"], trio["safety"], {"sw": trio["sw"]})
    options = BackendOptions(dtype="bfloat16", device="cpu", use_template=False)
    model = HotSwapModel(family, "sw", options, workers=1)
    model.apply(made.plan)
    held = model.loaded.model.state_dict()
    for name, values in stored_in(tmp_path / "out").items():
        assert torch.equal(held[name].float(), torch.from_numpy(values.astype(np.float32))), name
    model.close()
