"""A synthetic trio in the shape of Llama-3.2-1B: 1.24 B parameters, tied, bf16, three shards each.

The experts differ from the base by small random updates, so that all decisions occur.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import ml_dtypes
import numpy as np

from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.header import build_header

BF16 = DTYPES["BF16"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
SHARDS = 3


def shapes(layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the model with ``layers`` layers."""
    hidden, wide, key = 2048, 8192, 512
    yield "model.embed_tokens.weight", (128256, hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, shape in (
            ("self_attn.q_proj.weight", (hidden, hidden)),
            ("self_attn.k_proj.weight", (key, hidden)),
            ("self_attn.v_proj.weight", (key, hidden)),
            ("self_attn.o_proj.weight", (hidden, hidden)),
            ("mlp.gate_proj.weight", (wide, hidden)),
            ("mlp.up_proj.weight", (wide, hidden)),
            ("mlp.down_proj.weight", (hidden, wide)),
            ("input_layernorm.weight", (hidden,)),
            ("post_attention_layernorm.weight", (hidden,)),
        ):
            yield at + name, shape
    yield "model.norm.weight", (hidden,)


def make(folder: Path, layers: int, languages: int) -> None:
    """Write base, safety and the language experts ``l0``, ``l1``, … unless they are there."""
    roles = ["base", "safety", *(f"l{n}" for n in range(languages))]
    for number, role in enumerate(roles):
        if not (folder / role / "config.json").exists():
            _write(folder / role, layers, number)


def _write(folder: Path, layers: int, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = list(shapes(layers))
    total = sum(int(np.prod(shape)) for _, shape in tensors)
    groups: list[list[tuple[str, tuple[int, ...]]]] = [[] for _ in range(SHARDS)]
    position = 0
    for name, shape in tensors:
        groups[min(SHARDS - 1, position * SHARDS // total)].append((name, shape))
        position += int(np.prod(shape))
    table = {}
    for index, group in enumerate(groups, 1):
        file = f"model-{index:05}-of-{SHARDS:05}.safetensors"
        header, _ = build_header([(n, BF16, s) for n, s in group], {"format": "pt"})
        with (folder / file).open("wb") as stream:
            stream.write(header)
            for name, shape in group:
                table[name] = file
                stream.write(_weights(name, shape, number).tobytes())
    size = {"total_size": 2 * total}
    index_text = json.dumps({"metadata": size, "weight_map": table})
    (folder / "model.safetensors.index.json").write_text(index_text)
    config = CONFIG | {"num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))


def _weights(name: str, shape: tuple[int, ...], number: int) -> np.ndarray:
    """Base weights by the tensor's name; an expert adds an update of 1 to 3 % to them."""
    seed = crc32(name.encode())
    block = np.random.default_rng(seed).standard_normal(1 << 20, np.float32) * np.float32(0.02)
    if number:
        chance = np.random.default_rng(seed + number)
        scale = np.float32(0.02 * chance.uniform(0.01, 0.03))
        block = block + chance.standard_normal(1 << 20, np.float32) * scale
    count = int(np.prod(shape))
    return np.resize(block.astype(ml_dtypes.bfloat16), count)
