"""Eight-bit floats with scales, against products made one by one and against transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from narrow import E4M3, E5M2, alter, compressed, from_fp8, grid_of, make_fp8, to_fp8
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.precisions.fp8 import ScaledTensor, block_of
from safeswap.checkpoint.stored import StoredTensor
from tiny import edit_json, make_trio, refused

KINDS = {
    # block, suffix, scale, how it is shaped, what config.json says
    "deepseek": ((8, 8), "_scale_inv", np.float32, None, None),
    "deepseek, no multiples": ((7, 5), "_scale_inv", np.float32, None, None),
    "deepseek, powers of two": ((8, 8), "_scale_inv", ml_dtypes.float8_e8m0fnu, None, None),
    "compressed, tensor": ((99, 99), "_scale", ml_dtypes.bfloat16, (1,), compressed("tensor")),
    "compressed, channel": ((1, 99), "_scale", ml_dtypes.bfloat16, None, compressed("channel")),
    "compressed, block": ((8, 8), "_scale", np.float32, None, compressed("block", (8, 8))),
    "fbgemm": ((1, 99), "_scale", np.float32, None, {"quant_method": "fbgemm_fp8"}),
    "fbgemm, vector": ((1, 99), "_scale", np.float32, (-1,), {"quant_method": "fbgemm_fp8"}),
    "static": ((99, 99), "_scale", np.float32, (), {"quant_method": "fp8"}),
    "modelopt": ((99, 99), "_scale", np.float32, (), {"quant_method": "modelopt"}),
}


def made(folder: Path, scheme: str, **more: Any) -> dict[str, np.ndarray[Any, Any]]:
    block, suffix, scale, shape, said = KINDS[scheme]
    shaped = (lambda s: s) if shape is None else (lambda s: s.reshape(shape))
    return make_fp8(folder, block, suffix=suffix, scale=scale, shaped=shaped, said=said, **more)


@pytest.mark.parametrize("codes", [E4M3, E5M2])
@pytest.mark.parametrize("kind", KINDS)
def test_every_scheme_reads_as_products_made_one_by_one(
    tmp_path: Path, kind: str, codes: Any
) -> None:
    folder = make_trio(tmp_path)["sw"]
    wanted = made(folder, kind, kind=codes)
    opened = open_checkpoint(folder)
    assert set(opened.tensors) == set(wanted)
    assert opened.packed
    for name, tensor in opened.tensors.items():
        assert tensor.shape == wanted[name].shape
        assert tensor.dtype.name == "BF16"
        for width in (np.float32, np.float64):
            out = np.empty(tensor.elements, width)
            with tensor.reader() as reader:
                reader.read_numbers(0, tensor.elements, out)
                raw = np.empty(tensor.nbytes, np.uint8)
                assert reader.read_raw(0, tensor.elements, raw) is not isinstance(
                    tensor, ScaledTensor
                )
            assert np.array_equal(out, wanted[name].ravel().astype(width)), name
    scales = [name for name in opened.aside if "scale" in name]
    assert len(scales) == 14 and "scales of" in opened.aside[scales[0]]


def stored(folder: Path, **tensors: np.ndarray[Any, Any]) -> dict[str, StoredTensor]:
    from safeswap.checkpoint.header import read_header

    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "x.safetensors")
    return {tensor.name: tensor for tensor in read_header(folder / "x.safetensors").tensors}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_range_of_any_grid(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    shape = data.draw(st.tuples(st.integers(1, 20), st.integers(1, 20)))
    block = tuple(data.draw(st.integers(1, side)) for side in shape)
    chance = np.random.default_rng(data.draw(st.integers(0, 99)))
    codes, scales = to_fp8(chance.standard_normal(shape), block)
    found = stored(tmp_path_factory.mktemp("grid"), weight=codes, scale=scales)
    tensor = ScaledTensor(found["weight"], found["scale"], block)
    begin = data.draw(st.integers(0, tensor.elements))
    end = data.draw(st.integers(begin, tensor.elements))
    out = np.empty(end - begin, np.float64)
    with tensor.reader() as reader:
        reader.read_numbers(begin, end, out)
    assert np.array_equal(out, from_fp8(codes, scales, block).ravel()[begin:end])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_packed_again_is_what_was_packed_by_hand(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    block = tuple(data.draw(st.sampled_from([1, 2, 5, side])) for side in shape)
    block = tuple(min(b, s) for b, s in zip(block, shape, strict=True))
    kind = data.draw(st.sampled_from([E4M3, E5M2]))
    scale = data.draw(st.sampled_from([np.float32, ml_dtypes.bfloat16]))
    chance = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = chance.standard_normal(shape) * (chance.random(shape) > 0.3)
    codes, scales = to_fp8(values, block, kind, scale)
    found = stored(tmp_path_factory.mktemp("pack"), weight=codes, scale=scales)
    packing = ScaledTensor(found["weight"], found["scale"], block).packing("weight")
    parts = [np.zeros(codes.shape, np.uint8), np.zeros(scales.size * scales.itemsize, np.uint8)]
    flat = values.ravel()
    covered = 0
    for begin, end in packing.runs():
        assert begin == covered
        covered = end
        for part, at, raw in packing.pack(lambda b, e: flat[b:e], begin, end):
            size = 1 if part == 0 else scales.itemsize
            parts[part].reshape(-1)[at * size : at * size + len(raw)] = raw
    assert covered == values.size
    assert np.array_equal(parts[1].view(scales.dtype).reshape(scales.shape), scales)
    assert np.array_equal(parts[0], codes.view(np.uint8))


def test_a_grid_that_fits_no_rule_is_none() -> None:
    assert block_of([256, 300], [2, 3], [128, 128]) == (128, 128)
    assert block_of([257, 300], [3, 3], [128, 128]) == (128, 128)
    assert block_of([256, 384], [2, 3], []) == (128, 128)  # as transformers takes it
    assert block_of([257, 300], [2, 3], []) is None
    assert block_of([4, 6, 8], [4, 1, 8], []) == (1, 6, 1)
    assert block_of([4, 6, 8], [1, 6, 1], []) is None
    assert block_of([256, 300], [], []) == (256, 300)
    assert block_of([256], [3, 3], []) is None
    assert grid_of((257, 300), (128, 128)) == (3, 3)


def test_transformers_reads_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    finegrained = pytest.importorskip("transformers.integrations.finegrained_fp8")
    chance = np.random.default_rng(1)
    codes, scales = to_fp8(chance.standard_normal((256, 384)), (128, 128))
    found = stored(tmp_path, weight=codes, scale=scales)
    tensor = ScaledTensor(found["weight"], found["scale"], (128, 128))
    out = np.empty(tensor.elements, np.float32)
    with tensor.reader() as reader:
        reader.read_numbers(0, tensor.elements, out)
    weight = torch.from_numpy(codes.view(np.uint8)).view(torch.float8_e4m3fn)
    theirs = finegrained.Fp8Dequantize(None)._dequantize_one(
        weight, torch.from_numpy(scales), torch.float32
    )
    assert np.array_equal(out, theirs.numpy().ravel())


def test_what_is_wrong_is_refused(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    made(trio["base"], "deepseek")
    alter(trio["base"], lambda w: w.pop(f"{name}_scale_inv"))
    refused(lambda: open_checkpoint(trio["base"]), name, "has no scale", "_scale_inv")
    made(trio["sw"], "deepseek")
    alter(trio["sw"], lambda w: w.update({f"{name}_scale_inv": np.ones((4, 5), np.float32)}))
    refused(lambda: open_checkpoint(trio["sw"]), name, "[4, 5]", "weight_block_size")
    made(trio["te"], "deepseek")
    alter(trio["te"], lambda w: w.update({f"{name}_scale_inv": np.ones((3, 2), np.int32)}))
    refused(lambda: open_checkpoint(trio["te"]), name, "I32")
    made(trio["safety"], "deepseek")
    edit_json(trio["safety"] / "config.json", quantization_config={"quant_method": "torchao"})
    refused(lambda: open_checkpoint(trio["safety"]), "torchao", "dequantize")


def test_not_a_number_is_found_while_measuring(tmp_path: Path) -> None:
    from safeswap.api import make_profile

    trio = make_trio(tmp_path)
    for role in ("base", "safety", "sw"):
        made(trio[role], "deepseek")
    name = "model.layers.1.mlp.up_proj.weight"

    def spoil(weights: Any) -> None:
        codes = weights[name].view(np.uint8).copy()
        codes[3, 4] = 0x7F
        weights[name] = codes.view(E4M3)

    alter(trio["sw"], spoil)
    refused(
        lambda: make_profile(trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}),
        name,
        "nan",
        "element 52",
    )
