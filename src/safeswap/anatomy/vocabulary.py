"""The vocabulary of tensor names, as tables, and the few ways in which they are read.

A name such as ``model.layers.7.self_attn.q_proj.weight`` is a path of components. A component is
read as words (``self_attn`` is self, attn; ``LayerNorm`` is layer, norm; ``conv1d`` is conv, 1, d),
so ``attn`` is found in ``self_attn`` and in ``linear_attn`` but never in ``pattn``.

The words were collected from the state dicts of the causal language models of transformers 5 and
from the checkpoints that transformers renames on loading (Mixtral, InternLM 2, ChatGLM, GPT-2).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Literal

Block = Literal["attention", "mlp"]


def _table(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The block a tensor sits in. Read from the layer inwards, the first component that says so decides:
# `self_attn.experts.0.w1` is attention, `mlp.experts.0.w1` is mlp. What mixes tokens counts as
# attention, also where it is a state-space or convolution block beside an mlp.
BLOCK_WORDS: Final[dict[Block, tuple[str, ...]]] = {
    "attention": _table("attn attention att time_mix mamba ssm mixer conv"),
    "mlp": _table("mlp mlps ffn ff feed_forward feedforward moe channel_mix expert experts router"),
}

# Families that write their matrices straight into the layer (OPT: `layers.0.fc1`). Whole
# components, read only where no block word is on the path. Names that either block uses, such as
# `dense`, `c_proj` and `out_proj`, are missing on purpose. The last two of mlp are Gemma's
# per-layer inputs: a gated step for each token alone, as an mlp is.
BLOCK_MATRICES: Final[dict[Block, tuple[str, ...]]] = {
    "attention": _table("q_proj k_proj v_proj o_proj qkv_proj Wqkv query_key_value"),
    "mlp": _table("""
        fc1 fc2 fc_in fc_out c_fc gate_proj up_proj down_proj gate_up_proj
        dense_h_to_4h dense_4h_to_h per_layer_input_gate per_layer_projection
    """),
}

# `post_attention_…` tells where a thing is, not what it is: no block is read from it.
PLACE_WORDS: Final = _table("pre post before after")

NORM_WORDS: Final = _table("norm norms layernorm rmsnorm ln")

# Outside the layers: the first component that is not on the way to the layers decides. OPT-350m
# projects between the width of its embeddings and that of its layers: `project_in`, `project_out`.
LM_HEAD_NAMES: Final = _table(
    "lm_head embed_out output output_layer output_projection head lm_loss project_out"
)
EMBEDDING_WORDS: Final = _table("""
    embed embedding embeddings emb embd wte wpe project_in
    per_layer_model_projection per_layer_projection
""")
OTHER_MODALITIES: Final = _table("vision visual image img pixel audio speech video")

# Stored by some checkpoints although nothing in them was trained. Last components.
BUFFER_NAMES: Final = _table("""
    inv_freq original_inv_freq freqs_cis cos_cached sin_cached position_ids token_type_ids
    masked_bias causal_mask attention_mask slope_rate query_decay key_decay diagonal_decay
    alibi_slopes alibi_mask future_mask
""")
# ... and these by their last two: tables of sines. A table that is trained is `weight`.
BUFFER_ENDS: Final = (("embed_positions", "weights"), ("embed_positions", "_float_tensor"))
# ... and these where they have the shape of a mask: GPT-2's `attn.bias` of [1, 1, n, n].
MASK_NAMES: Final = _table("bias mask")

# What a parameter is called inside its module; a norm may be called any of these.
LEAF_NAMES: Final = _table("weight bias gamma beta scale")

# Any component. The names of peft, bitsandbytes, GPTQ, AWQ, compressed-tensors, fp8 and MXFP4.
ADAPTER_NAMES: Final = _table("""
    lora_A lora_B lora_embedding_A lora_embedding_B lora_magnitude_vector
    base_layer modules_to_save ia3_l
""")
QUANTIZED_NAMES: Final = _table("""
    absmax quant_map nested_absmax nested_quant_map quant_state SCB weight_format
    qweight qzeros scales g_idx weight_g_idx
    weight_packed weight_shape weight_zero_point
    weight_scale weight_scales weight_scale_2 weight_scale_inv input_scale
    gate_up_proj_blocks gate_up_proj_scales down_proj_blocks down_proj_scales
""")

_NUMBER = re.compile(r"0|[1-9][0-9]*")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def is_number(component: str) -> bool:
    """Whether a component counts something, a layer or an expert: ``0`` and ``12``, not ``01``."""
    return _NUMBER.fullmatch(component) is not None


@lru_cache(maxsize=65536)
def words_of(component: str) -> str:
    """The words of a component, lower case, between underscores, such as ``_self_attn_``."""
    return f"_{'_'.join(_WORD.findall(component)).lower()}_"


def has_word(component: str, words: tuple[str, ...]) -> bool:
    """Whether one of ``words`` (or a phrase such as ``feed_forward``) is in ``component``."""
    spelled = words_of(component)
    return any(f"_{word}_" in spelled for word in words)


def block_of(path: tuple[str, ...]) -> Block | None:
    """The block that a path inside a layer names, None where it names neither or both at once."""
    for component in path:
        if has_word(component, PLACE_WORDS):
            return None
        named = [block for block, words in BLOCK_WORDS.items() if has_word(component, words)]
        if has_word(component, NORM_WORDS):
            if named:
                continue  # a container such as DBRX's `norm_attn_norm`; the blocks are inside it
            return None
        if len(named) == 1:
            return named[0]
        if named:
            return None
    for block, names in BLOCK_MATRICES.items():
        if any(component in names for component in path):
            return block
    return None


def owner(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path without ``weight``, ``bias`` and their like, and without closing numbers."""
    trimmed = path[:-1] if path[-1] in LEAF_NAMES else path
    while trimmed and is_number(trimmed[-1]):
        trimmed = trimmed[:-1]
    return trimmed


def named_norm(path: tuple[str, ...]) -> bool:
    """Whether the module (or bare parameter) that the path ends in is called a norm."""
    module = owner(path)
    return bool(module) and has_word(module[-1], NORM_WORDS)
