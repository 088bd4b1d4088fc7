"""Tiny Llama-shaped checkpoints from numpy and safetensors alone: no torch, made in milliseconds.

`make_trio` writes a base and three experts, `swap` merges them; `rewrite` and `edit_json` change
what was written.
`digest_of` shows that a folder is what it was, `refused` that an action is refused with a message
that says what is wrong, where, and what to do, and that no output is left behind.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import safeswap
from safeswap.errors import SafeswapError

BF16 = ml_dtypes.bfloat16
ROLES = ("base", "safety", "sw", "te")
WORDS = ("<pad>", "<s>", "</s>", "maji", "moto", "nyumba", "chai", "ndege")

Tensors = dict[str, np.ndarray[Any, Any]]


def llama_shapes(
    layers: int = 2, width: int = 16, inner: int = 24, words: int = 32, tied: bool = False
) -> dict[str, tuple[int, ...]]:
    """Names and shapes as a Llama checkpoint has them."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, width)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        for name in "qkvo":
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = (width, width)
        for name in ("gate", "up"):
            shapes[f"{prefix}.mlp.{name}_proj.weight"] = (inner, width)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (width, inner)
        for name in ("input", "post_attention"):
            shapes[f"{prefix}.{name}_layernorm.weight"] = (width,)
    shapes["model.norm.weight"] = (width,)
    if not tied:
        shapes["lm_head.weight"] = (words, width)
    return shapes


def config_of(shapes: Mapping[str, tuple[int, ...]], tied: bool = False) -> dict[str, Any]:
    """The config.json that belongs to `llama_shapes`."""
    words, width = shapes["model.embed_tokens.weight"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": shapes["model.layers.0.mlp.up_proj.weight"][0],
        "num_hidden_layers": sum(name.endswith("q_proj.weight") for name in shapes),
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": words,
        "tie_word_embeddings": tied,
        "dtype": "bfloat16",
    }


def make_weights(
    shapes: Mapping[str, tuple[int, ...]], base: Tensors | None = None, seed: int = 0
) -> Tensors:
    """Seeded weights, or a fine-tune of `base`: small steps, of another size in every tensor."""
    chance = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = chance.standard_normal(shape, dtype=np.float32)
        if base is None:
            values = 0.1 * noise
        else:
            values = base[name].astype(np.float32) + 0.01 * chance.random() * noise
        weights[name] = values.astype(BF16)
    return weights


def save_checkpoint(
    folder: Path, weights: Tensors, config: Mapping[str, Any], shards: int = 1
) -> Path:
    """Write a checkpoint folder with a small tokenizer, in one file or in several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = {"model": {"type": "WordLevel", "vocab": vocabulary}, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = list(weights)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    table = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[number * len(names) // shards : (number + 1) * len(names) // shards]
        save_file({name: weights[name] for name in part}, folder / file)
        table |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def make_trio(folder: Path, shards: int = 2, **sizes: Any) -> dict[str, Path]:
    """A base, a safety expert and two language experts; `sizes` go to `llama_shapes`."""
    shapes = llama_shapes(**sizes)
    config = config_of(shapes, bool(sizes.get("tied")))
    base = make_weights(shapes)
    found = {"base": save_checkpoint(folder / "base", base, config, shards)}
    for seed, role in enumerate(ROLES[1:], 1):
        weights = make_weights(shapes, base, seed)
        found[role] = save_checkpoint(folder / role, weights, config, shards)
    return found


def swap(trio: Mapping[str, Path], out: Path, *languages: str, **options: Any) -> Path:
    """Merge a trio into `out`, by default for sw and without a figure; returns `out`."""
    chosen = {language: trio[language] for language in languages or ("sw",)}
    given = {"figure": False, **options}
    safeswap.api.merge(trio["base"], safety=trio["safety"], languages=chosen, out=out, **given)
    return out


def rewrite(folder: Path, change: Callable[[Tensors], Any]) -> None:
    """Change the tensors of a checkpoint; it becomes a single file."""
    weights: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
        file.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    change(weights)
    save_file(weights, folder / "model.safetensors")


def edit_json(file: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | changes))


def safetensors_bytes(
    header: Mapping[str, Any] | bytes, payload: bytes = b"", length: int | None = None
) -> bytes:
    """A file of the format, built by hand so that it can be wrong."""
    body = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(body) if length is None else length) + body + payload


def digest_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refused(
    action: Callable[[], Any], *words: str, out: Path | None = None, inputs: Path | None = None
) -> str:
    """Assert that an action is refused with a message that holds `words` and ends with a remedy,
    that nothing lies under `out`, and that the folder `inputs` is as it was."""
    before = digest_of(inputs) if inputs else {}
    with pytest.raises(SafeswapError) as caught:
        action()
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    assert any(f"{remedy} " in f"{message} " for remedy in _REMEDIES), f"no remedy: {message}"
    assert out is None or not out.exists()
    assert not inputs or digest_of(inputs) == before
    return message


# every message says what to do; these are the verbs it may say it with
_REMEDIES = (
    *(
        "Check",
        "Choose",
        "Experts",
        "Fetch",
        "Free",
        "Give",
        "Load",
        "Merge",
        "Remove",
        "Run",
        "Save",
    ),
    *("Use", "Wait", "convert", "cut", "fetch", "fix", "use", "Was the base"),
)


def png_size(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's own header."""
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n" and content[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", content[16:24])
    return width, height
