"""MXFP4, against a decoder by hand and against transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from narrow import alter, from_mxfp4, gpt_oss, gpt_oss_config, make_mxfp4, to_mxfp4
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.precisions.mxfp4 import Mxfp4Tensor
from tiny import make_weights, refused, save_checkpoint

BLOCKS = "model.layers.0.mlp.experts.down_proj_blocks"


def tensor_of(folder: Path, blocks: Any, scales: Any) -> Mxfp4Tensor:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"x_blocks": blocks, "x_scales": scales}, folder / "x.safetensors")
    found = {tensor.name: tensor for tensor in read_header(folder / "x.safetensors").tensors}
    return Mxfp4Tensor("x", found["x_blocks"], found["x_scales"])


def read(tensor: Any, begin: int, end: int, kind: Any = np.float64) -> Any:
    out = np.empty(end - begin, kind)
    with tensor.reader() as reader:
        reader.read_numbers(begin, end, out)
    return out


def random_parts(seed: int, experts: int, rows: int, groups: int) -> tuple[Any, Any]:
    chance = np.random.default_rng(seed)
    blocks = chance.integers(0, 256, (experts, rows, groups, 16), np.uint8)
    return blocks, chance.integers(100, 140, (experts, rows, groups), np.uint8)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_range_is_what_a_decoder_by_hand_gives(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    sizes = [data.draw(st.integers(1, most)) for most in (3, 9, 3)]
    blocks, scales = random_parts(data.draw(st.integers(0, 99)), *sizes)
    tensor = tensor_of(tmp_path_factory.mktemp("mx"), blocks, scales)
    wanted = from_mxfp4(blocks, scales)
    assert tensor.shape == wanted.shape
    begin = data.draw(st.integers(0, tensor.elements))
    end = data.draw(st.integers(begin, tensor.elements))
    assert np.array_equal(read(tensor, begin, end), wanted.ravel()[begin:end])


def test_transformers_reads_the_same(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    integration = pytest.importorskip("transformers.integrations.mxfp4")
    blocks, scales = random_parts(5, 3, 40, 4)
    tensor = tensor_of(tmp_path, blocks, scales)
    theirs = integration.convert_moe_packed_tensors(
        torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32
    )
    assert tensor.shape == tuple(theirs.shape)
    assert np.array_equal(read(tensor, 0, tensor.elements, np.float32), theirs.numpy().ravel())


def packed_again(tensor: Mxfp4Tensor, values: Any) -> tuple[Any, Any]:
    packing = tensor.packing("x")
    parts = [np.zeros(tensor.blocks.shape, np.uint8), np.zeros(tensor.scales.shape, np.uint8)]
    for begin, end in packing.runs():
        for part, at, raw in packing.pack(lambda b, e: values.ravel()[b:e], begin, end):
            parts[part].reshape(-1)[at : at + len(raw)] = raw
    return parts[0], parts[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(-20, 20))
def test_packed_as_number_by_number(
    tmp_path_factory: pytest.TempPathFactory, seed: int, power: float
) -> None:
    chance = np.random.default_rng(seed)
    values = chance.standard_normal((2, 64, 5)) * 2.0**power
    values[chance.random(values.shape) < 0.2] = 0.0
    values[0, :32, 0] = 0.0  # a whole group
    blocks, scales = to_mxfp4(values)
    tensor = tensor_of(tmp_path_factory.mktemp("mx"), blocks, scales)
    found = packed_again(tensor, values)
    assert np.array_equal(found[1], scales)
    assert np.array_equal(found[0], blocks)


def test_what_was_mxfp4_is_met_exactly(tmp_path: Path) -> None:
    tensor = tensor_of(tmp_path, *random_parts(7, 2, 30, 3))
    values = read(tensor, 0, tensor.elements)
    again = tensor_of(tmp_path / "again", *packed_again(tensor, values))
    assert np.array_equal(read(again, 0, again.elements), values)


def test_a_gpt_oss_checkpoint_has_the_parameters_of_transformers(tmp_path: Path) -> None:
    shapes = gpt_oss()
    folder = save_checkpoint(tmp_path / "x", make_weights(shapes), gpt_oss_config(shapes), shards=2)
    wanted = make_mxfp4(folder)
    opened = open_checkpoint(folder)
    assert {name: tensor.shape for name, tensor in opened.tensors.items()} == shapes
    for name, tensor in opened.tensors.items():
        assert np.array_equal(read(tensor, 0, tensor.elements), wanted[name].ravel()), name
    assert sorted(opened.aside) == sorted(
        f"model.layers.{n}.mlp.experts.{p}_proj_scales" for n in (0, 1) for p in ("down", "gate_up")
    )
    alter(folder, lambda w: w.pop(BLOCKS.replace("blocks", "scales")))
    refused(lambda: open_checkpoint(folder), BLOCKS, "MXFP4", "nothing")
    alter(folder, lambda w: w.update({BLOCKS.replace("blocks", "scales"): np.zeros((3, 2), "u1")}))
    refused(lambda: open_checkpoint(folder), BLOCKS, "[3, 2]")
