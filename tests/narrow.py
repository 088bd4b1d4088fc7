"""Checkpoints whose weights are stored narrow, written by hand: fp8 with scales, MXFP4, GGUF.

`reference` is what their numbers are, in float64 and by loops over blocks that nobody would write
for speed: the oracle of the tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from tiny import edit_json, rewrite

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
Weights = dict[str, np.ndarray[Any, Any]]
PROJECTIONS = ("_proj.weight",)


def grid_of(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, int]:
    return -(-shape[0] // block[0]), -(-shape[1] // block[1])


def to_fp8(
    values: np.ndarray[Any, Any], block: tuple[int, int], kind: Any = E4M3, scale: Any = np.float32
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Codes and scales of a matrix, block by block: the largest number over the format's largest,
    rounded to the scale's format first."""
    wide = values.astype(np.float64)
    most = float(ml_dtypes.finfo(kind).max)
    codes = np.zeros(wide.shape, kind)
    scales = np.zeros(grid_of(wide.shape, block), scale)
    for row in range(scales.shape[0]):
        for column in range(scales.shape[1]):
            part = np.s_[
                row * block[0] : (row + 1) * block[0],
                column * block[1] : (column + 1) * block[1],
            ]
            largest = np.abs(wide[part]).max()
            scales[row, column] = largest / most if largest else 1.0
            step = float(scales[row, column])
            codes[part] = np.clip(wide[part] / step, -most, most).astype(kind)
    return codes, scales


def from_fp8(
    codes: np.ndarray[Any, Any], scales: np.ndarray[Any, Any], block: tuple[int, int]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers, one product each."""
    wide = codes.astype(np.float64)
    for row in range(wide.shape[0]):
        for column in range(wide.shape[1]):
            wide[row, column] *= float(scales[row // block[0], column // block[1]])
    return wide


def make_fp8(
    folder: Path,
    block: tuple[int, int],
    *,
    kind: Any = E4M3,
    scale: Any = np.float32,
    suffix: str = "_scale_inv",
    said: dict[str, Any] | None = None,
    shaped: Callable[[Any], Any] = lambda scales: scales,
    inputs: bool = False,
) -> Weights:
    """Quantize the projections of a checkpoint in its folder; gives the numbers that it then has
    (float64, by name, all tensors)."""
    numbers: Weights = {}

    def change(weights: Any) -> None:
        for name in list(weights):
            numbers[name] = weights[name].astype(np.float64)
            if not name.endswith(PROJECTIONS):
                continue
            shape = weights[name].shape
            sides = tuple(min(b, s) for b, s in zip(block, shape, strict=True))
            codes, scales = to_fp8(weights[name], sides, kind, scale)
            numbers[name] = from_fp8(codes, scales, sides)
            weights[name], weights[name + suffix] = codes, shaped(scales)
            if inputs:
                owner = name.removesuffix("weight")
                weights[owner + "input_scale"] = np.array([0.5 + len(name)], np.float32)

    rewrite(folder, change)
    edit_json(
        folder / "config.json",
        quantization_config=said
        or {"quant_method": "fp8", "weight_block_size": list(block), "fmt": "e4m3"},
    )
    return numbers


def compressed(strategy: str, block: tuple[int, int] | None = None) -> dict[str, Any]:
    """A quantization_config of compressed-tensors."""
    weights = {"num_bits": 8, "type": "float", "strategy": strategy, "symmetric": True}
    if block:
        weights["block_structure"] = list(block)
    group = {"targets": ["Linear"], "weights": weights, "format": "float-quantized"}
    return {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


def gpt_oss(
    layers: int = 2, width: int = 64, inner: int = 32, experts: int = 3
) -> dict[str, tuple[int, ...]]:
    """Names and shapes as a gpt-oss checkpoint has them in 16 bits."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (32, width)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name in "qkvo":
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = (width, width)
            shapes[f"{prefix}.self_attn.{name}_proj.bias"] = (width,)
        shapes[f"{prefix}.self_attn.sinks"] = (4,)
        shapes[f"{prefix}.mlp.router.weight"] = (experts, width)
        shapes[f"{prefix}.mlp.router.bias"] = (experts,)
        shapes[f"{prefix}.mlp.experts.gate_up_proj"] = (experts, width, 2 * inner)
        shapes[f"{prefix}.mlp.experts.gate_up_proj_bias"] = (experts, 2 * inner)
        shapes[f"{prefix}.mlp.experts.down_proj"] = (experts, inner, width)
        shapes[f"{prefix}.mlp.experts.down_proj_bias"] = (experts, width)
        for name in ("input", "post_attention"):
            shapes[f"{prefix}.{name}_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    shapes["lm_head.weight"] = (32, width)
    return shapes


def gpt_oss_config(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    experts, width, double = shapes["model.layers.0.mlp.experts.gate_up_proj"]
    layers = sum(name.endswith("sinks") for name in shapes)
    return {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "hidden_size": width,
        "intermediate_size": double // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "head_dim": width // 4,
        "num_local_experts": experts,
        "num_experts_per_tok": 2,
        "vocab_size": 32,
        "layer_types": ["sliding_attention", "full_attention"][:layers],
        "sliding_window": 8,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


FOURS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def to_mxfp4(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Blocks and scales of ``[experts, inputs, rows]``, number by number: the nearest of the
    sixteen, the even code where two are as near; the smallest exponent that none overflows."""
    wide = np.swapaxes(values.astype(np.float64), 1, 2)
    experts, rows, inputs = wide.shape
    groups = wide.reshape(experts, rows, inputs // 32, 32)
    blocks = np.zeros((experts, rows, inputs // 32, 16), np.uint8)
    scales = np.zeros(groups.shape[:-1], np.uint8)
    for at in np.ndindex(*groups.shape[:-1]):
        largest = np.abs(groups[at]).max()
        power = -127
        while largest > 6 * 2.0**power:
            power += 1
        power = power if largest else 0
        scales[at] = power + 127
        for n, value in enumerate(groups[at]):
            size = abs(value) / 2.0**power
            code = min(range(8), key=lambda c, size=size: (abs(FOURS[c] - size), c % 2))
            code |= 8 if np.signbit(value) else 0
            blocks[at][n // 2] |= code << 4 * (n % 2)
    return blocks, scales


def from_mxfp4(
    blocks: np.ndarray[Any, Any], scales: np.ndarray[Any, Any]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers, ``[experts, inputs, rows]``."""
    experts, rows, groups, _ = blocks.shape
    wide = np.zeros((experts, rows, groups, 32))
    for at in np.ndindex(experts, rows, groups):
        for n in range(32):
            code = int(blocks[at][n // 2]) >> 4 * (n % 2) & 15
            sign = -1.0 if code & 8 else 1.0
            wide[at][n] = sign * FOURS[code & 7] * 2.0 ** (int(scales[at]) - 127)
    return np.swapaxes(wide.reshape(experts, rows, groups * 32), 1, 2)


def make_mxfp4(folder: Path) -> Weights:
    """Quantize the experts of a gpt-oss checkpoint in its folder; gives its numbers."""
    numbers: Weights = {}

    def change(weights: Any) -> None:
        for name in list(weights):
            numbers[name] = weights[name].astype(np.float64)
            if name.endswith(("gate_up_proj", "down_proj")):
                blocks, scales = to_mxfp4(weights.pop(name))
                numbers[name] = from_mxfp4(blocks, scales)
                weights[name + "_blocks"], weights[name + "_scales"] = blocks, scales

    rewrite(folder, change)
    edit_json(folder / "config.json", quantization_config={"quant_method": "mxfp4"})
    return numbers


KINDS: dict[str, Any] = {
    "F8_E4M3": E4M3,
    "F8_E5M2": E5M2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "BF16": ml_dtypes.bfloat16,
    "F16": np.float16,
    "F32": np.float32,
    "F64": np.float64,
    "U8": np.uint8,
    "I8": np.int8,
    "I32": np.int32,
}


def stored_in(folder: Path) -> Weights:
    """All tensors of a checkpoint's files as they are stored, also in formats that safetensors'
    own reader for numpy does not know."""
    found: Weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        raw = file.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = (8 + length + place for place in entry["data_offsets"])
            kind = np.dtype(KINDS[entry["dtype"]])
            found[name] = np.frombuffer(raw[begin:end], kind).reshape(entry["shape"])
    return found


def alter(folder: Path, change: Callable[[Weights], Any]) -> None:
    """`tiny.rewrite` for narrow formats."""
    weights = stored_in(folder)
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    change(weights)
    save_file(weights, folder / "model.safetensors")


def make_gguf(
    file: Path,
    weights: Weights,
    config: dict[str, Any],
    kind: str = "F32",
    architecture: str = "llama",
    vocabulary: tuple[str, ...] = (),
) -> Path:
    """Write a model as llama.cpp's converter does, with the package `gguf`: matrices in `kind`,
    vectors in F32."""
    import gguf

    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config.get("max_position_embeddings", 2048))
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    if vocabulary:
        writer.add_tokenizer_model("llama")
        writer.add_token_list([word.encode() for word in vocabulary])
        writer.add_token_scores([0.0] * len(vocabulary))
        writer.add_token_types([1] * len(vocabulary))
    names = gguf.get_tensor_name_map(
        next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == architecture),
        config["num_hidden_layers"],
    )
    for name, values in weights.items():
        stored = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert stored, name
        wide = np.asarray(values, np.float32)
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            key = "num_attention_heads" if ".q_proj." in name else "num_key_value_heads"
            wide = permuted(wide, config[key])
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            wide = wide + 1
        matrix = kinds[kind] if wide.ndim > 1 else kinds.F32
        writer.add_tensor(stored, gguf.quantize(wide, matrix), raw_dtype=matrix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def permuted(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Llama's rows as llama.cpp lays them, one at a time."""
    found = np.empty_like(values)
    size = values.shape[0] // heads
    for head in range(heads):
        for place in range(size // 2):
            for half in range(2):
                found[head * size + 2 * place + half] = values[
                    head * size + half * (size // 2) + place
                ]
    return found
