"""GGUF files by hand, byte by byte, so that they can be wrong; and a whole one."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from narrow import permuted


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    sides = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
    return text(name) + sides + struct.pack("<IQ", kind, offset)


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


ARCHITECTURE = pair("general.architecture", 8, text("llama"))


def file_of(
    pairs: tuple[bytes, ...] = (ARCHITECTURE,),
    entries: tuple[bytes, ...] = (),
    payload: int = 64,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    mark: bytes = b"GGUF",
) -> bytes:
    tensors, metadata = counts or (len(entries), len(pairs))
    head = mark + struct.pack("<IQQ", version, tensors, metadata) + b"".join(pairs + entries)
    return head + bytes(-len(head) % 32) + bytes(payload)


NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}


def llama_bytes(weights: Mapping[str, Any], config: Mapping[str, Any]) -> bytes:
    """A llama with matrices in F16 and vectors in F32; needs no package."""
    heads = config["num_attention_heads"]
    pairs = (
        ARCHITECTURE,
        pair("llama.attention.head_count", 4, struct.pack("<I", heads)),
        pair("llama.block_count", 4, struct.pack("<I", config["num_hidden_layers"])),
        pair("llama.embedding_length", 4, struct.pack("<I", config["hidden_size"])),
        pair("tokenizer.ggml.tokens", 9, struct.pack("<IQ", 8, 2) + text("<pad>") + text("<s>")),
        pair("tokenizer.ggml.scores", 9, struct.pack("<IQ2f", 6, 2, 0.0, 1.0)),
    )
    entries, payload = [], b""
    for name, values in weights.items():
        parts = name.removesuffix(".weight").removeprefix("model.").split(".")
        layer = f"blk.{parts[1]}." if parts[0] == "layers" else ""
        stored = layer + NAMES[".".join(parts[2:] if layer else parts)] + ".weight"
        wide = np.asarray(values, np.float32)
        if ".q_proj." in name or ".k_proj." in name:
            wide = permuted(wide, heads)
        kind = 1 if wide.ndim > 1 else 0
        entries.append(entry(stored, wide.shape, kind, len(payload)))
        raw = wide.astype(np.float16 if kind else np.float32).tobytes()
        payload += raw + bytes(-len(raw) % 32)
    whole = file_of(pairs, tuple(entries), 0)
    return whole + payload
