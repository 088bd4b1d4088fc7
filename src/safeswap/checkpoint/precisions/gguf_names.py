"""What llama.cpp calls the tensors of each architecture, and what transformers calls them.

A test holds the tables to the ``gguf`` package's own map of names, and models written with them to
what transformers reads (``from_pretrained(gguf_file=…)``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_LAYER = re.compile(r"blk\.(0|[1-9]\d*)\.(.+)\.(weight|bias)")
OUTSIDE: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
POSITIONS: Final = re.compile(r"(blk\.\d+\.)?rope_(freqs|factors_long|factors_short)\.weight")
"""Tables of positions: loaders make them from config.json."""

_ATTENTION: Final = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
}
_NORMS: Final = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GATED: Final = {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_norm": "post_attention_layernorm",
}
_SANDWICH: Final = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_QWEN_EXPERTS: Final = {
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.{}.gate_proj",
    "ffn_up_exps": "mlp.experts.{}.up_proj",
    "ffn_down_exps": "mlp.experts.{}.down_proj",
}
_SHARED: Final = {
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate",
    "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj",
    "ffn_down_shexp": "mlp.shared_expert.down_proj",
}
_MIXTRAL: Final = {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
    "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """How llama.cpp stores a family.

    Attributes:
        models: the ``model_type`` of transformers that it may be.
        layer: a layer's tensor in the file → in transformers; ``{}`` stands for an expert.
        halves: the rows of q and k lie in another order (positions are applied to pairs).
        added: what was added to the weights of norms.
    """

    models: tuple[str, ...]
    layer: Mapping[str, str] = field(default_factory=dict)
    halves: bool = False
    added: float = 0.0

    def name(self, stored: str) -> str | None:
        """The parameter's name (with ``{}`` for an expert's number); None where there is none."""
        match = _LAYER.fullmatch(stored)
        if match is None:
            module, _, leaf = stored.rpartition(".")
            return f"{OUTSIDE[module]}.{leaf}" if module in OUTSIDE else None
        layer, module, leaf = match.groups()
        inner = self.layer.get(module)
        return inner and f"model.layers.{layer}.{inner}.{leaf}"


ARCHITECTURES: Final[dict[str, Architecture]] = {
    "llama": Architecture(
        ("llama", "mistral", "mixtral"), {**_ATTENTION, **_GATED, **_MIXTRAL}, halves=True
    ),
    "qwen2": Architecture(("qwen2",), {**_ATTENTION, **_GATED}),
    "qwen3": Architecture(("qwen3",), {**_ATTENTION, **_NORMS, **_GATED}),
    "qwen2moe": Architecture(("qwen2_moe",), {**_ATTENTION, **_QWEN_EXPERTS, **_SHARED}),
    "qwen3moe": Architecture(("qwen3_moe",), {**_ATTENTION, **_NORMS, **_QWEN_EXPERTS}),
    "gemma": Architecture(("gemma",), {**_ATTENTION, **_GATED}, added=1.0),
    "gemma2": Architecture(("gemma2",), {**_ATTENTION, **_GATED, **_SANDWICH}, added=1.0),
    "gemma3": Architecture(
        ("gemma3_text", "gemma3"), {**_ATTENTION, **_NORMS, **_GATED, **_SANDWICH}, added=1.0
    ),
    "phi3": Architecture(
        ("phi3",),
        {
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "attn_norm": "input_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
            "ffn_norm": "post_attention_layernorm",
        },
    ),
    "starcoder2": Architecture(
        ("starcoder2",),
        {
            **_ATTENTION,
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
            "ffn_norm": "post_attention_layernorm",
        },
    ),
}
"""``general.architecture`` → how its tensors are called and what is to be undone."""
