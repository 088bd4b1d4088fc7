"""Computed tensors at the reading seam: the same numbers however they are read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from plain_adapter import BF16, numbers_of, write_adapter
from safeswap import api
from safeswap.checkpoint.adapted import open_member
from safeswap.checkpoint.adapters import factors
from safeswap.checkpoint.family import open_family
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.stored import StoredTensor
from tiny import Tensors, make_trio, refused, save_checkpoint, swap

Trio = dict[str, Path]
Q = "model.layers.0.self_attn.q_proj.weight"


def opened(trio: Trio, adapter: Path) -> Checkpoint:
    return open_member("sw", adapter, base=open_checkpoint(trio["base"]))[0]


def numbers(tensor: Tensor, begin: int = 0, end: int | None = None, kind: Any = np.float64) -> Any:
    end = tensor.elements if end is None else end
    values = np.empty(end - begin, kind)
    with tensor.reader() as reader:
        reader.read_numbers(begin, end, values)
    return values


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
def test_a_weight_is_its_base_and_the_update(trio: Trio, tmp_path: Path, dtype: Any) -> None:
    updates = write_adapter(tmp_path / "sw", trio["base"], dtype=dtype)
    base, found = numbers_of(trio["base"]), opened(trio, tmp_path / "sw").tensors
    for name, update in updates.items():
        wanted = (base[name] + update).reshape(-1)
        assert np.allclose(numbers(found[name]), wanted, rtol=1e-13, atol=1e-15)
        single = numbers(found[name], kind=np.float32)
        assert np.allclose(single, wanted, rtol=3e-7, atol=3e-8)
        assert not np.array_equal(single, single.astype(BF16).astype(np.float32))


def test_what_the_adapter_does_not_touch_are_the_base_s_own_bytes(
    trio: Trio, tmp_path: Path
) -> None:
    updates = write_adapter(tmp_path / "sw", trio["base"])
    found, base = opened(trio, tmp_path / "sw").tensors, open_checkpoint(trio["base"]).tensors
    for name, tensor in found.items():
        assert (tensor == base[name]) == (name not in updates)
        assert isinstance(tensor, StoredTensor) == (name not in updates)
        with tensor.reader() as reader:
            raw = np.empty(tensor.nbytes, np.uint8)
            assert reader.read_raw(0, tensor.elements, raw) == (name not in updates)


@settings(max_examples=60, deadline=None)
@given(panel=st.integers(1, 400), cuts=st.lists(st.integers(0, 640), min_size=2, max_size=6))
def test_any_range_reads_the_same_numbers(
    tmp_path_factory: pytest.TempPathFactory, panel: int, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    trio = make_trio(folder, width=16, inner=40)
    write_adapter(folder / "adapter", trio["base"])
    tensor = opened(trio, folder / "adapter").tensors["model.layers.1.mlp.up_proj.weight"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factors, "_PANEL", panel)
        whole = numbers(tensor, kind=np.float32)
        cuts = sorted(cuts)
        for begin, end in itertools.pairwise(cuts):
            assert np.array_equal(numbers(tensor, begin, end, np.float32), whole[begin:end])
        with tensor.reader() as reader:  # one reader, backwards
            for begin, end in reversed(list(itertools.pairwise(cuts))):
                part = np.empty(end - begin, np.float32)
                reader.read_numbers(begin, end, part)
                assert np.array_equal(part, whole[begin:end])


def merged(out: Path) -> Tensors:
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("options", [{"tau": 1e-9}, {"alpha": 0.3, "method": "uniform"}])
def test_a_merge_is_the_same_for_any_number_of_workers_and_verifies(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    trio = make_trio(tmp_path / "trio", shards=1)
    updates = {}
    for seed, role in enumerate(("safety", "sw"), 1):
        updates[role] = write_adapter(tmp_path / role, trio["base"], seed)
        trio[role] = tmp_path / role
    one = swap(trio, tmp_path / "one", workers=1, **options)
    four = swap(trio, tmp_path / "four", workers=4, **options)
    whole = [(out / "model.safetensors").read_bytes() for out in (one, four)]
    assert whole[0] == whole[1]
    assert api.verify_merge(one, workers=2).from_inputs
    plan = api.make_plan(
        api.make_profile(trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}),
        **options,
    )
    base, family = (
        numbers_of(trio["base"]),
        open_family(trio["base"], trio["safety"], {"sw": trio["sw"]}),
    )
    for name, values in merged(one).items():
        weights = plan.units[family.anatomy.placements[name].unit].weights
        wanted = base[name] + sum(w * updates[r].get(name, 0.0) for r, w in weights.items())
        near = np.abs(values.astype(np.float64) - wanted) <= np.abs(wanted) * 2.0**-8 + 1e-9
        assert near.all(), name


def test_an_adapter_stands_on_a_full_expert(trio: Trio, tmp_path: Path) -> None:
    """``--language sw=FULL --adapter sw=ADAPTER``: the difference to the run's base is read."""
    updates = write_adapter(tmp_path / "more", trio["sw"])
    out = tmp_path / "out"
    api.merge(
        trio["base"],
        safety=trio["safety"],
        languages={"sw": trio["sw"]},
        adapters={"sw": tmp_path / "more"},
        out=out,
        method="uniform",
        alpha=0.0,
        figure=False,
    )
    whole, spoken = numbers_of(out), numbers_of(trio["sw"])
    for name, values in whole.items():
        wanted = spoken[name] + updates.get(name, 0.0)
        assert (np.abs(values - wanted) <= np.abs(wanted) * 2.0**-8 + 1e-9).all(), name
    plan = api.Plan.load(out / "safeswap-plan.yaml")
    assert plan.inputs["sw"].source == str(trio["sw"])
    assert plan.inputs["sw"].adapter == str(tmp_path / "more")
    assert api.verify_merge(out).from_inputs
    (again,) = api.merge_plans([plan], tmp_path / "again", figure=False)
    assert (again.folder / "safeswap.json").exists()


def test_moved_and_changed_adapters(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    out = swap(trio | {"sw": tmp_path / "sw"}, tmp_path / "out")
    moved = (tmp_path / "sw").rename(tmp_path / "moved")
    refused(lambda: api.verify_merge(out), str(tmp_path / "sw"), "no such folder")
    assert api.verify_merge(out, adapters={"sw": moved}).from_inputs
    base = trio["base"].rename(tmp_path / "elsewhere")
    assert api.verify_merge(out, inputs={"base": base}, adapters={"sw": moved}).from_inputs
    write_adapter(moved, base, seed=9)
    with pytest.raises(Exception, match="input changed"):
        api.verify_merge(out, inputs={"base": base}, adapters={"sw": moved})


def test_the_manifest_and_the_card_name_the_adapter(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "my-swahili", trio["base"])
    out = swap(trio | {"sw": tmp_path / "my-swahili"}, tmp_path / "out")
    profile = api.Profile.from_dict(
        __import__("json").loads((out / "safeswap.json").read_text())["profile"], "it"
    )
    record = profile.inputs["sw"].adapter
    assert record is not None and record.name == "my-swahili"
    assert len(record.config) == 64 and len(record.files[0].digest) == 64
    assert profile.inputs["safety"].adapter is None
    card = (out / "README.md").read_text()
    assert "`my-swahili on base`" in card and '- "my-swahili"' in card


def test_a_tokenizer_beside_the_adapter_goes_before_the_base_s(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    (trio["base"] / "tokenizer_config.json").write_text('{"model_max_length": 7}')
    text = (trio["base"] / "tokenizer.json").read_text()
    (tmp_path / "sw" / "tokenizer.json").write_text(text + "\n")
    (tmp_path / "sw" / "config.json").write_text("{}")
    (tmp_path / "sw" / "chat_template.jinja").write_text("{{ messages }}")
    out = swap(trio | {"sw": tmp_path / "sw"}, tmp_path / "out")
    assert (out / "tokenizer.json").read_text() == text + "\n"
    assert (out / "chat_template.jinja").exists()
    assert not (out / "tokenizer_config.json").exists()
    assert (out / "config.json").read_bytes() == (trio["base"] / "config.json").read_bytes()


def test_grown_embeddings_grow_the_configuration(trio: Trio, tmp_path: Path) -> None:
    """peft saves resized embeddings whole; the expert then has a larger vocabulary."""
    grown = np.zeros((40, 16), np.float32)
    name = "base_model.model.model.embed_tokens.weight"
    write_adapter(tmp_path / "sw", trio["base"], more={name: grown})
    found = opened(trio, tmp_path / "sw")
    assert found.config["vocab_size"] == 40
    assert found.tensors["model.embed_tokens.weight"].shape == (40, 16)


def test_a_base_in_another_format_is_used_as_it_is(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio")
    numbers32 = {n: v.astype(np.float32) for n, v in numbers_of(trio["base"]).items()}
    config = __import__("json").loads((trio["base"] / "config.json").read_text())
    wide = save_checkpoint(tmp_path / "wide", numbers32, config)
    updates = write_adapter(tmp_path / "sw", wide, dtype=BF16)
    found = open_member("sw", tmp_path / "sw", base=open_checkpoint(wide))[0].tensors[Q]
    wanted = (numbers_of(wide)[Q] + updates[Q]).reshape(-1)
    assert found.dtype.name == "F32"
    assert np.allclose(numbers(found), wanted, rtol=1e-13)
