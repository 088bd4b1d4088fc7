"""GGUF as a checkpoint: against the ``gguf`` package, a decoder by hand, and transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from narrow import Weights, make_gguf
from safeswap.checkpoint.family import Family, join_family
from safeswap.checkpoint.model import open_checkpoint
from safeswap.checkpoint.precisions.gguf_header import TYPES
from safeswap.checkpoint.precisions.gguf_names import ARCHITECTURES, OUTSIDE
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import VerificationError
from tiny import (
    config_of,
    edit_json,
    llama_shapes,
    make_trio,
    make_weights,
    refused,
    save_checkpoint,
)

gguf = pytest.importorskip("gguf")
SIZES: dict[str, Any] = {"layers": 2, "width": 64, "inner": 96, "words": 32}
WRITTEN = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
K_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def read(tensor: Tensor, begin: int = 0, end: int | None = None, kind: Any = np.float64) -> Any:
    end = tensor.elements if end is None else end
    out = np.empty(end - begin, kind)
    with tensor.reader() as reader:
        reader.read_numbers(begin, end, out)
    return out


def llama(seed: int = 0) -> tuple[Weights, dict[str, Any]]:
    shapes = llama_shapes(**SIZES)
    shapes = {
        name: (32, 64) if ".k_proj." in name or ".v_proj." in name else shape
        for name, shape in shapes.items()
    }
    config = {**config_of(shapes), "num_key_value_heads": 2, "rms_norm_eps": 1e-5}
    return make_weights(shapes, seed=seed), {**config, "rope_theta": 10000.0}


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_llama_in_every_type_that_is_written(tmp_path: Path, kind: str) -> None:
    weights, config = llama()
    file = make_gguf(tmp_path / "m.gguf", weights, config, kind)
    opened = open_checkpoint(file)
    assert set(opened.tensors) == set(weights)
    number = gguf.GGMLQuantizationType[kind]
    for name, tensor in opened.tensors.items():
        wanted = weights[name].astype(np.float32)
        assert tensor.shape == wanted.shape
        if wanted.ndim > 1:
            wanted = gguf.dequantize(gguf.quantize(wanted, number), number)
        # rows keep their blocks, so that llama.cpp's order of rows does not change a number
        assert np.array_equal(read(tensor, kind=np.float32), wanted.ravel()), name
        assert np.array_equal(read(tensor, 5, 27), wanted.ravel()[5:27].astype(np.float64)), name
    assert open_checkpoint(file).tensors == opened.tensors


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
def test_transformers_reads_the_same_llama(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    weights, config = llama()
    file = make_gguf(
        tmp_path / "m.gguf", weights, config, kind, vocabulary=tuple(f"w{n}" for n in range(32))
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype=torch.float32
    )
    theirs = model.state_dict()
    for name, tensor in open_checkpoint(file).tensors.items():
        assert np.array_equal(read(tensor, kind=np.float32), theirs[name].numpy().ravel()), name


def of_family(architecture: str) -> tuple[Weights, dict[str, Any]]:
    """Weights and config of a tiny model of transformers, random in every tensor."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    common = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 32,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
    }
    if architecture in ("qwen3", "gemma", "gemma2", "gemma3"):
        # of qwen3, transformers does not read it from the file
        common["head_dim"] = 128 if architecture == "qwen3" else 16
    kind = {"gemma3": "gemma3_text"}.get(architecture, architecture)
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(kind, **common)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = {
        name: 0.5 * torch.randn(value.shape).numpy()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    return weights, {**common, "model_type": kind}


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma2", "gemma3", "phi3"])
def test_transformers_reads_the_same_of_other_families(tmp_path: Path, architecture: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    weights, config = of_family(architecture)
    words = tuple(f"w{n}" for n in range(32))
    file = make_gguf(tmp_path / "m.gguf", weights, config, "Q8_0", architecture, words)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=file.name, dtype=torch.float32
    ).state_dict()
    opened = open_checkpoint(file)
    assert set(opened.tensors) == set(weights)
    for name, tensor in opened.tensors.items():
        assert np.array_equal(read(tensor, kind=np.float32), theirs[name].numpy().ravel()), name


@pytest.mark.parametrize("architecture", ["gemma", "gemma2", "gemma3"])
def test_the_one_that_is_added_to_gemmas_norms_is_taken_off(
    tmp_path: Path, architecture: str
) -> None:
    weights, config = of_family(architecture)
    file = make_gguf(tmp_path / "m.gguf", weights, config, "F32", architecture)
    for name, tensor in open_checkpoint(file).tensors.items():
        assert np.allclose(read(tensor), weights[name].ravel(), rtol=0, atol=3e-7), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_names_are_those_of_the_gguf_package(architecture: str) -> None:
    arch = next(a for a, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, 2)
    ours = ARCHITECTURES[architecture]
    for stored, module in {**OUTSIDE, **{f"blk.1.{s}": s for s in ours.layer}}.items():
        name = ours.name(f"{stored}.weight")
        assert name is not None, module
        name = name.removesuffix(".weight")
        if "{}" in name:  # of an expert; the package's names are those of all together
            name = name.replace(".{}.", ".")
            assert names.get_name(name) or names.get_name(name.replace("experts.", "experts.0."))
            continue
        known = names.get_name(name)
        assert known == stored or (known is None and stored == "output"), (name, stored)


def random_blocks(kind: str, rows: int, blocks: int, seed: int = 0) -> Any:
    """Bytes of a K type, whose half-precision scales are small numbers."""
    form = next(one for one in TYPES.values() if one.name == kind)
    chance = np.random.default_rng(seed)
    raw = chance.integers(0, 256, (rows, blocks, form.nbytes), np.uint8)
    scales = np.float16(0.01 * (1 + chance.random((rows, blocks, 2))))
    at = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind]
    for number, place in enumerate(at):
        raw[..., place : place + 2] = scales[..., number : number + 1].view(np.uint8)
    return raw.reshape(rows, blocks * form.nbytes)


def write_raw(file: Path, raw: Any, kind: str) -> Path:
    """A llama with one matrix of these bytes, and nothing else."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_head_count(4)
    writer.add_tensor("blk.0.attn_q.weight", raw, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("kind", K_TYPES)
def test_k_types_as_the_gguf_package_reads_them(tmp_path: Path, kind: str) -> None:
    raw = random_blocks(kind, 16, 2)
    (tensor,) = open_checkpoint(write_raw(tmp_path / "m.gguf", raw, kind)).tensors.values()
    wide = gguf.dequantize(raw, gguf.GGMLQuantizationType[kind])
    wanted = wide.reshape(4, 2, 2, 512).swapaxes(1, 2).reshape(16, 512)  # 4 heads of 4 rows
    assert tensor.shape == (16, 512)
    assert np.array_equal(read(tensor, kind=np.float32), wanted.ravel())
    for begin, end in ((0, 1), (511, 513), (700, 4000), (8191, 8192)):
        assert np.array_equal(read(tensor, begin, end), wanted.ravel()[begin:end])


def by_hand(kind: str, block: bytes) -> list[float]:
    """One block, number by number, as ggml-quants.c does it."""
    half = lambda at: float(np.frombuffer(block[at : at + 2], np.float16)[0])  # noqa: E731
    if kind == "Q4_0":
        low = [(byte & 15) - 8 for byte in block[2:18]]
        return [half(0) * q for q in low + [(byte >> 4) - 8 for byte in block[2:18]]]
    assert kind == "Q6_K"
    low, high, scales, found = block[:128], block[128:192], block[192:208], [0.0] * 256
    signed = [s - 256 if s > 127 else s for s in scales]
    for part in range(2):
        for at in range(32):
            ql, qh = low[64 * part :], high[32 * part :]
            four = (
                (ql[at] & 15) | (qh[at] & 3) << 4,
                (ql[at + 32] & 15) | (qh[at] >> 2 & 3) << 4,
                ql[at] >> 4 | (qh[at] >> 4 & 3) << 4,
                ql[at + 32] >> 4 | (qh[at] >> 6 & 3) << 4,
            )
            for quarter, code in enumerate(four):
                scale = signed[8 * part + at // 16 + 2 * quarter]
                found[128 * part + at + 32 * quarter] = half(208) * scale * (code - 32)
    return found


@pytest.mark.parametrize("kind", ["Q4_0", "Q6_K"])
def test_two_types_number_by_number(tmp_path: Path, kind: str) -> None:
    form = next(one for one in TYPES.values() if one.name == kind)
    if kind == "Q6_K":
        raw = random_blocks(kind, 16, 1, seed=4)
    else:
        values = np.random.default_rng(4).standard_normal((16, 32)).astype(np.float32)
        raw = gguf.quantize(values, gguf.GGMLQuantizationType.Q4_0)
    (tensor,) = open_checkpoint(write_raw(tmp_path / "m.gguf", raw, kind)).tensors.values()
    found = read(tensor).reshape(16, form.elements)
    for row in range(16):
        head, inside = divmod(row, 4)
        half, place = divmod(inside, 2)
        wanted = by_hand(kind, raw[4 * head + 2 * place + half].tobytes())
        assert np.allclose(found[row], wanted, rtol=1e-6, atol=0)


def test_experts_in_one_tensor_are_read_apart(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(file, "qwen3moe")
    values = np.random.default_rng(0).standard_normal((3, 5, 64)).astype(np.float32)
    q8 = gguf.GGMLQuantizationType.Q8_0
    raw = gguf.quantize(values, q8)
    writer.add_tensor("blk.0.ffn_up_exps.weight", raw, raw_dtype=q8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = open_checkpoint(file).tensors
    wanted = gguf.dequantize(raw, q8)
    assert list(found) == [f"model.layers.0.mlp.experts.{n}.up_proj.weight" for n in range(3)]
    assert open_checkpoint(file).nbytes == raw.nbytes
    for number, tensor in enumerate(found.values()):
        assert np.array_equal(read(tensor, 3, 150), wanted[number].ravel()[3:150])


# ── members of a family ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    """A trio of plain checkpoints, and the Swahili expert as GGUF beside them."""
    found = make_trio(tmp_path, shards=1, **SIZES)
    for role in ("base", "safety", "sw"):  # the number as 32 bits have it, as transformers says it
        edit_json(found[role] / "config.json", rms_norm_eps=9.999999747378752e-06, rope_theta=1e4)
    return found


def as_gguf(folder: Path, file: Path, kind: str = "Q8_0") -> Path:
    from narrow import stored_in

    config = json.loads((folder / "config.json").read_text())
    file.parent.mkdir(exist_ok=True)
    return make_gguf(file, stored_in(folder), config, kind)


def family(trio: dict[str, Path], force: bool = False) -> Family:
    return join_family({r: open_checkpoint(trio[r]) for r in ("base", "safety", "sw")}, force=force)


def test_an_expert_in_gguf_goes_all_the_way(trio: dict[str, Path], tmp_path: Path) -> None:
    import safeswap
    from narrow import stored_in

    trio["sw"] = as_gguf(trio["sw"], tmp_path / "files" / "sw.gguf")
    notes = " ".join(family(trio).notes)
    assert "sw: 16 tensors in GGUF's Q8_0" in notes and "moves weights by 0." in notes
    assert "sw: is GGUF without a config.json" in notes
    out = tmp_path / "files" / "out"  # beside the file, where a folder may be made
    run = {"safety": trio["safety"], "languages": {"sw": trio["sw"]}, "figure": False}
    refused(
        lambda: safeswap.api.merge(trio["base"], out=out, **run),
        "without a config.json",
        "--donor base",
    )
    (made,) = safeswap.api.merge(trio["base"], out=out, donor="base", tau=0, **run)
    assert made.plan.inputs["sw"].source == str(trio["sw"])
    checked = safeswap.api.verify_merge(out)
    assert checked.from_inputs
    numbers = {n: read(t).reshape(t.shape) for n, t in open_checkpoint(trio["sw"]).tensors.items()}
    written, safe = stored_in(out), stored_in(trio["safety"])
    for name, value in written.items():
        decision = made.plan.units[made.profile.tensors[0].unit].decision
        assert decision
        unit = next(t.unit for t in made.profile.tensors if t.name == name)
        weights = made.plan.units[unit].weights
        exact = weights["safety"] * safe[name].astype(np.float64) + weights["sw"] * numbers[name]
        assert np.abs(value.astype(np.float64) - exact).max() <= np.abs(exact).max() * 2**-8, name
    log = json.loads((out / "safeswap.json").read_text())
    assert log["profile"]["inputs"]["sw"]["files"][0]["name"] == "sw.gguf"
    changed = bytearray(trio["sw"].read_bytes())
    changed[-40] ^= 0x10
    trio["sw"].write_bytes(changed)
    with pytest.raises(VerificationError, match="the sw checkpoint"):
        safeswap.api.verify_merge(out)


def test_a_quantized_base_is_refused_with_what_rounding_takes(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    trio["base"] = as_gguf(trio["base"], tmp_path / "base.gguf", "Q4_0")
    message = refused(lambda: family(trio), "base", "Q4_0", "--force", "task vectors")
    assert "safety, sw are not" in message
    notes = " ".join(family(trio, force=True).notes)
    assert "base: 16 tensors in GGUF's Q4_0" in notes and "read with the safety" in notes


def test_a_base_in_gguf_of_sixteen_bits_is_not_quantized(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    trio["base"] = as_gguf(trio["base"], tmp_path / "base.gguf", "F16")
    notes = " ".join(family(trio).notes)
    assert "stored in different formats (base F16, safety BF16, sw BF16)" in notes
    assert "rounding" not in notes


def test_the_loss_is_that_of_the_matrices(trio: dict[str, Path], tmp_path: Path) -> None:
    """Norms may be a hundred times as large as weights, and lie in F32."""
    import re

    from narrow import alter

    for role in ("base", "safety", "sw"):
        alter(
            trio[role],
            lambda w: w.update({n: 300 * v for n, v in w.items() if n.endswith("norm.weight")}),
        )
    trio["sw"] = as_gguf(trio["sw"], tmp_path / "sw.gguf", "Q4_0")
    (note,) = (n for n in family(trio).notes if "moves weights" in n)
    said = float(re.findall(r"([\d.]+)% of their size", note)[0])
    # a normal number in 32 of 16 steps over ± the largest (about 2.2): √(1/12) · 2.2 / 8
    assert 6 < said < 10, note


def test_all_in_gguf_needs_a_config(trio: dict[str, Path], tmp_path: Path) -> None:
    files = {r: as_gguf(trio[r], tmp_path / f"{r}.gguf") for r in ("base", "safety", "sw")}
    refused(lambda: family(files), "no other checkpoint has one", "config.json")
    folder = tmp_path / "whole"
    folder.mkdir()
    shutil.copy(trio["sw"] / "config.json", folder)
    shutil.copy(trio["sw"] / "tokenizer.json", folder)
    shutil.move(files["sw"], folder)
    files["sw"] = folder
    joined = family(files)
    assert joined.members["base"].config == joined.members["sw"].config
    assert any("all members are quantized" in note for note in joined.notes)


@pytest.mark.parametrize(
    "change", [{"num_attention_heads": 8}, {"rope_theta": 5e5}, {"model_type": "gemma"}]
)
def test_a_file_of_another_model_is_refused(
    trio: dict[str, Path], tmp_path: Path, change: dict[str, Any]
) -> None:
    trio["sw"] = as_gguf(trio["sw"], tmp_path / "sw.gguf")
    for role in ("base", "safety"):
        edit_json(trio[role] / "config.json", **change)
    (key,) = change
    refused(lambda: family(trio), "sw.gguf", key, "GGUF file says")


@pytest.mark.parametrize("same", [True, False])
def test_tokens_are_compared_by_id(trio: dict[str, Path], tmp_path: Path, same: bool) -> None:
    from narrow import stored_in
    from tiny import WORDS

    config = json.loads((trio["sw"] / "config.json").read_text())
    words = WORDS if same else (*WORDS[:3], *reversed(WORDS[3:]))
    padded = (*words, *(f"[PAD{n}]" for n in range(len(words), 32)))
    file = tmp_path / "sw.gguf"
    trio["sw"] = make_gguf(file, stored_in(trio["sw"]), config, vocabulary=padded)
    if same:
        assert any("of 8 tokens none is another" in note for note in family(trio).notes)
        return
    refused(lambda: family(trio), "4 of 8 tokens", "id 3 is 'ndege', there 'maji'", "--force")
    assert any("4 of 8 tokens" in note for note in family(trio, force=True).notes)


def test_which_file_is_meant(tmp_path: Path) -> None:
    weights, config = llama()
    (tmp_path / "a").mkdir()
    make_gguf(tmp_path / "a" / "m-Q8_0.gguf", weights, config, "Q8_0")
    only = open_checkpoint(tmp_path / "a")
    assert only.source.folder == tmp_path / "a" and len(only.tensors) == len(weights)
    make_gguf(tmp_path / "a" / "m-Q4_0.gguf", weights, config, "Q4_0")
    refused(lambda: open_checkpoint(tmp_path / "a"), "2 GGUF files", "m-Q4_0.gguf", "path")
    assert open_checkpoint(tmp_path / "a" / "m-Q4_0.gguf").source.name == "m-Q4_0.gguf"
    refused(lambda: open_checkpoint(tmp_path / "a" / "x.gguf"), "there is no such folder")


def test_several_files_of_one_model(tmp_path: Path) -> None:
    weights, config = llama()
    names = list(weights)
    for number, part in enumerate((names[:7], names[7:]), 1):
        file = tmp_path / f"m-{number:05}-of-00002.gguf"
        make_gguf(file, {name: weights[name] for name in part}, config)
    for given in (tmp_path, tmp_path / "m-00001-of-00002.gguf"):
        opened = open_checkpoint(given)
        assert set(opened.tensors) == set(weights) and len(opened.files) == 2
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    refused(lambda: open_checkpoint(tmp_path), "lacks m-00002-of-00002.gguf")


def test_weights_of_transformers_go_before_gguf(tmp_path: Path) -> None:
    shapes = llama_shapes(**SIZES)
    folder = save_checkpoint(tmp_path / "x", make_weights(shapes), config_of(shapes))
    (folder / "x.gguf").write_bytes(b"GGUF")
    assert open_checkpoint(folder).facts is None


def test_gguf_is_merged_and_not_run(trio: dict[str, Path], tmp_path: Path) -> None:
    from safeswap.errors import EvaluationError
    from safeswap.evaluation.models import name_models

    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from safeswap.evaluation.backends import BackendOptions
    from safeswap.search.hotswap import HotSwapModel

    trio["sw"] = as_gguf(trio["sw"], tmp_path / "sw.gguf")
    with pytest.raises(EvaluationError, match="llama-server"):
        name_models([f"sw={trio['sw']}"])
    with pytest.raises(EvaluationError, match=r"sw\.gguf: is GGUF"):
        HotSwapModel(family(trio), "sw", BackendOptions(device="cpu"))
