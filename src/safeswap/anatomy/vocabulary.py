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

Block = Literal["attention", "cross_attention", "mixer", "mlp"]


def _table(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# The block a tensor sits in. Read from the layer inwards, the first component that says so decides:
# `self_attn.experts.0.w1` is attention, `mlp.experts.0.w1` is mlp. Of two blocks in one component
# the more special is meant: `linear_attn` is a mixer, `encoder_attn` cross attention.
BLOCK_WORDS: Final[dict[Block, tuple[str, ...]]] = {
    "cross_attention": _table("""
        cross_attn cross_attention crossattention encoder_attn encoder_attention enc_dec_attention
        encoder_decoder_attention
    """),
    "mixer": _table("""
        time_mix mamba mamba2 ssm mixer conv short_conv linear_attn linear_attention mlstm slstm
        recurrent temporal_block kda
    """),
    "attention": _table("attn attention att"),
    "mlp": _table("""
        mlp mlps ffn ff feed_forward feedforward moe channel_mix expert experts router
        dense_relu_dense altup laurel
    """),
}
# Words that say only that tokens are mixed, not how: what lies inside decides (Nemotron-H calls
# attention, Mamba and mlp alike `mixer`; Kimi Linear both kinds of attention `self_attn`).
OPEN_WORDS: Final = _table("mixer temporal_block attn attention att")
# Parameters of state-space models, linear attention and recurrences.
MIXER_NAMES: Final = _table("""
    A_log dt_bias time_decay time_first time_mix_key rg_lru slope_rate query_decay key_decay
    diagonal_decay
""")
# Parameters of attention and of an mlp, where the block is only called a mixer.
ATTENTION_NAMES: Final = _table("q_proj k_proj v_proj o_proj qkv_proj")
MLP_NAMES: Final = _table("up_proj down_proj gate_proj experts shared_experts gate router")

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
    "lm_head embed_out output output_layer output_projection head lm_loss project_out proj_out"
    " final_logits_bias"
)
EMBEDDING_WORDS: Final = _table("""
    embed embedding embeddings emb embd wte wpe project_in
    per_layer_model_projection per_layer_projection altup_projections altup_unembed_projections
""")
# T5's one table for encoder and decoder; Whisper's two convolutions, which embed sound.
EMBEDDING_NAMES: Final = _table("shared conv1 conv2")
OTHER_MODALITIES: Final = _table("vision visual image img pixel audio speech video")
# What joins a tower to the text, and is trained with it.
PROJECTORS: Final = _table("""
    projector connector aligner resampler perceiver qformer multi_modal multimodal
    language_projection query_tokens
""")
# The text's stack in a model of several, and stacks of layers that predict further tokens.
TEXT_WORDS: Final = _table("language text llm")
PREDICTION_WORDS: Final = _table("mtp nextn")
# What a layer that predicts further tokens has besides (DeepSeek-V3 and GLM-4.5 number it on).
PREDICTION_NAMES: Final = _table("eh_proj enorm hnorm shared_head")

# Parts of a mixture of experts, as components of the path inside an mlp.
SHARED_EXPERT_WORDS: Final = _table("shared_expert shared_experts shared_mlp")
EXPERTS_NAMES: Final = _table("experts expert")
ROUTER_NAMES: Final = _table("""
    gate router wg e_score_correction_bias moe_statics expert_bias expert_biases router_gate
""")
# Granite and JetMoE: all experts' matrices in one tensor, named as a layer's.
FUSED_LINEARS: Final = _table("input_linear output_linear")
# Snowflake and DBRX: experts without a dimension of their own, [experts * width, hidden].
STACKED_EXPERTS: Final = _table("w1 v1 w2")

# Stored by some checkpoints although nothing in them was trained. Last components.
BUFFER_NAMES: Final = _table("""
    inv_freq original_inv_freq freqs_cis cos_cached sin_cached position_ids token_type_ids
    masked_bias causal_mask attention_mask slope_rate query_decay key_decay diagonal_decay
    num_batches_tracked
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
    block, _ = named_block(path)
    return block


def named_block(path: tuple[str, ...]) -> tuple[Block | None, int]:
    """The block that a path inside a layer names, and at which component (-1: by the matrix)."""
    for at, component in enumerate(path):
        if has_word(component, PLACE_WORDS):
            return None, at
        named = blocks_in(component)
        if has_word(component, NORM_WORDS):
            if named:
                continue  # a container such as DBRX's `norm_attn_norm`; the blocks are inside it
            return None, at
        if len(named) == 1:
            return named[0], at
        if named:
            return None, at
    for block, names in BLOCK_MATRICES.items():
        if any(component in names for component in path):
            return block, -1
    return None, -1


@lru_cache(maxsize=65536)
def blocks_in(component: str) -> tuple[Block, ...]:
    """The blocks that one component names; of two ways to mix tokens the more special."""
    named: list[Block] = [b for b, words in BLOCK_WORDS.items() if has_word(component, words)]
    special = [block for block in named if block != "mlp"][:1]
    return tuple(special + [block for block in named if block == "mlp"])


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
