"""What a family's model takes where its config.json does not say: numbers of transformers 5.

Files leave a default out or write it down, as their writer pleases; both are the same model. Only
keys that change what is computed are here, and of those only what is neither null nor false. A
family that is missing costs no more than a note (see :mod:`safeswap.checkpoint.compare`); a test
compares the table with transformers'.
"""

from __future__ import annotations

import json
from typing import Any

_ROWS = """
    apertus: hidden_act="xielu" rms_norm_eps=1e-05 rope_theta=12000000.0
    biogpt: hidden_act="gelu" layer_norm_eps=1e-12 scale_embedding=true
    bloom: layer_norm_epsilon=1e-05
    codegen: rotary_dim=64 activation_function="gelu_new" layer_norm_epsilon=1e-05
    cohere: logit_scale=0.0625 hidden_act="silu" layer_norm_eps=1e-05 rope_theta=500000.0
    cohere2: logit_scale=0.0625 hidden_act="silu" layer_norm_eps=1e-05 rope_theta=10000.0
        sliding_window=4096
    deepseek_v2: hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0 first_k_dense_replace=0
        kv_lora_rank=512 q_lora_rank=1536 n_routed_experts=64 n_shared_experts=2
        qk_nope_head_dim=128 qk_rope_head_dim=64 routed_scaling_factor=1.0 topk_method="greedy"
        v_head_dim=128 moe_intermediate_size=1407
    deepseek_v3: moe_intermediate_size=2048 num_key_value_heads=128 n_shared_experts=1
        n_routed_experts=256 routed_scaling_factor=2.5 kv_lora_rank=512 q_lora_rank=1536
        qk_rope_head_dim=64 v_head_dim=128 qk_nope_head_dim=128 n_group=8 topk_group=4
        num_experts_per_tok=8 first_k_dense_replace=3 norm_topk_prob=true hidden_act="silu"
        rms_norm_eps=1e-06 rope_theta=10000.0 rope_interleave=true
    ernie4_5: num_key_value_heads=2 hidden_act="silu" rms_norm_eps=1e-05 rope_theta=500000.0
        head_dim=128
    exaone4: num_key_value_heads=32 hidden_act="silu" rms_norm_eps=1e-05 rope_theta=10000.0
        sliding_window=4096 sliding_window_pattern=4
    falcon: layer_norm_epsilon=1e-05 multi_query=true parallel_attn=true rope_theta=10000.0
        activation="gelu"
    gemma: num_key_value_heads=16 head_dim=256 hidden_act="gelu_pytorch_tanh" rms_norm_eps=1e-06
        rope_theta=10000.0
    gemma2: num_key_value_heads=4 head_dim=256 hidden_activation="gelu_pytorch_tanh"
        rms_norm_eps=1e-06 rope_theta=10000.0 query_pre_attn_scalar=256 sliding_window=4096
        final_logit_softcapping=30.0 attn_logit_softcapping=50.0
    gemma3_text: num_key_value_heads=4 head_dim=256 hidden_activation="gelu_pytorch_tanh"
        rms_norm_eps=1e-06 query_pre_attn_scalar=256 sliding_window=4096
    glm: num_key_value_heads=2 head_dim=128 hidden_act="silu" rms_norm_eps=1.5625e-07
        rope_theta=10000.0 partial_rotary_factor=0.5 attention_bias=true
    glm4: num_key_value_heads=2 head_dim=128 hidden_act="silu" rms_norm_eps=1.5625e-07
        rope_theta=10000.0 partial_rotary_factor=0.5 attention_bias=true
    gpt2: activation_function="gelu_new" layer_norm_epsilon=1e-05 scale_attn_weights=true
    gpt_bigcode: activation_function="gelu_pytorch_tanh" layer_norm_epsilon=1e-05
        scale_attn_weights=true attention_softmax_in_fp32=true
        scale_attention_softmax_in_fp32=true multi_query=true
    gpt_neo: window_size=256 activation_function="gelu_new" layer_norm_epsilon=1e-05
    gpt_neox: hidden_act="gelu" layer_norm_eps=1e-05 use_parallel_residual=true
        rope_theta=10000.0 partial_rotary_factor=0.25 attention_bias=true
    gpt_oss: num_local_experts=128 head_dim=64 num_key_value_heads=8 sliding_window=128
        hidden_act="silu" rms_norm_eps=1e-05 rope_theta=150000.0 num_experts_per_tok=4
        swiglu_alpha=1.702 swiglu_limit=7.0 attention_bias=true
    gptj: rotary_dim=64 activation_function="gelu_new" layer_norm_epsilon=1e-05
    granite: hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0 embedding_multiplier=1.0
        logits_scaling=1.0 residual_multiplier=1.0 attention_multiplier=1.0
    granitemoe: hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0 embedding_multiplier=1.0
        logits_scaling=1.0 residual_multiplier=1.0 attention_multiplier=1.0 num_local_experts=8
        num_experts_per_tok=2
    helium: num_key_value_heads=20 head_dim=128 hidden_act="silu" rms_norm_eps=1e-08
        rope_theta=100000.0
    hunyuan_v1_dense: hidden_act="silu" rms_norm_eps=1e-05 rope_theta=10000.0
    llama: hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0
    minimax: num_key_value_heads=8 hidden_act="silu" rms_norm_eps=1e-05 num_experts_per_tok=2
        num_local_experts=8 rope_theta=1000000.0 block_size=256 full_attn_alpha_factor=1
        full_attn_beta_factor=1 linear_attn_alpha_factor=1 linear_attn_beta_factor=1
        mlp_alpha_factor=1 mlp_beta_factor=1
    ministral: num_key_value_heads=8 hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0
        sliding_window=4096
    mistral: num_key_value_heads=8 hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0
        sliding_window=4096
    mixtral: num_key_value_heads=8 hidden_act="silu" rms_norm_eps=1e-05 num_experts_per_tok=2
        num_local_experts=8 rope_theta=1000000.0
    nemotron: hidden_act="relu2" norm_eps=1e-05 rope_theta=10000.0 partial_rotary_factor=0.5
    olmo: hidden_act="silu" rope_theta=10000.0
    olmo2: hidden_act="silu" rope_theta=10000.0 rms_norm_eps=1e-05
    olmo3: hidden_act="silu" rms_norm_eps=1e-05 sliding_window=4096
    olmoe: hidden_act="silu" rms_norm_eps=1e-05 rope_theta=10000.0 num_experts_per_tok=8
        num_experts=64
    opt: do_layer_norm_before=true activation_function="relu" enable_bias=true
        layer_norm_elementwise_affine=true
    persimmon: hidden_act="relu2" layer_norm_eps=1e-05 rope_theta=10000.0
        partial_rotary_factor=0.5 qk_layernorm=true
    phi: hidden_act="gelu_new" layer_norm_eps=1e-05 rope_theta=10000.0 partial_rotary_factor=0.5
    phi3: hidden_act="silu" original_max_position_embeddings=4096 rms_norm_eps=1e-05
        rope_theta=10000.0 partial_rotary_factor=1.0
    phimoe: num_key_value_heads=8 hidden_act="silu" rms_norm_eps=1e-05 rope_theta=1000000.0
        num_experts_per_tok=2 num_local_experts=16
    qwen2: num_key_value_heads=32 hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0
        max_window_layers=28
    qwen2_moe: num_key_value_heads=16 hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0
        max_window_layers=28 decoder_sparse_step=1 moe_intermediate_size=1408
        shared_expert_intermediate_size=5632 num_experts_per_tok=4 num_experts=60 qkv_bias=true
    qwen3: num_key_value_heads=32 head_dim=128 hidden_act="silu" rms_norm_eps=1e-06
        rope_theta=10000.0 max_window_layers=28
    qwen3_moe: num_key_value_heads=4 hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0
        decoder_sparse_step=1 moe_intermediate_size=768 num_experts_per_tok=8
    seed_oss: num_key_value_heads=8 hidden_act="silu" rms_norm_eps=1e-06 rope_theta=10000.0
        attention_bias=true head_dim=128
    smollm3: num_key_value_heads=4 hidden_act="silu" rms_norm_eps=1e-06 rope_theta=2000000.0
        no_rope_layer_interval=4
    stablelm: num_key_value_heads=32 hidden_act="silu" layer_norm_eps=1e-05 rope_theta=10000.0
        partial_rotary_factor=0.25
    starcoder2: num_key_value_heads=2 hidden_act="gelu_pytorch_tanh" norm_epsilon=1e-05
        rope_theta=10000.0 use_bias=true
    xglm: activation_function="gelu" scale_embedding=true
"""


def _read() -> dict[str, dict[str, Any]]:
    table: dict[str, dict[str, Any]] = {}
    family = ""
    for word in _ROWS.split():
        key, _, value = word.partition("=")
        if not value:
            family = key.rstrip(":")
            table[family] = {}
        else:
            table[family][key] = json.loads(value)
    return table


FAMILY_DEFAULTS = _read()
"""Family (``model_type``) → key → what it is where it is absent."""
