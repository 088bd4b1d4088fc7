"""Tiny models of many families, built from transformers' own configs with seeded random weights.

Every family has two to three layers of width 32 and 64 words, so that a model is made in a few
milliseconds. `FAMILIES` maps a short name to a function that makes the config, `WEIGHTLESS` does
for families without norm weights and `SINGLE` for families whose layers are a mixer without an
mlp; `tiny_model` builds the model and `save_tiny` stores it the way a user's checkpoint is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _config(class_name: str, **changes: Any) -> Callable[[], PretrainedConfig]:
    """A config of `class_name`: SMALL with `changes`, where None removes a key."""

    def make() -> PretrainedConfig:
        settings = {k: v for k, v in {**SMALL, **changes}.items() if v is not None}
        config: PretrainedConfig = getattr(transformers, class_name)(**settings)
        return config

    return make


def _own_words(class_name: str, **settings: Any) -> Callable[[], PretrainedConfig]:
    """A config of a family that has its own words for width and depth."""

    def make() -> PretrainedConfig:
        words = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        config: PretrainedConfig = getattr(transformers, class_name)(**{**words, **settings})
        return config

    return make


_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    # Llama and its close relatives
    "llama": _config("LlamaConfig"),
    "llama-biases": _config("LlamaConfig", attention_bias=True, mlp_bias=True),
    "mistral": _config("MistralConfig", head_dim=8),
    "ministral": _config("MinistralConfig", head_dim=8),
    "qwen2": _config("Qwen2Config"),
    "qwen3": _config("Qwen3Config", head_dim=8),
    "gemma": _config("GemmaConfig", head_dim=8),
    "gemma2": _config("Gemma2Config", head_dim=8),
    "gemma3-text": _config("Gemma3TextConfig", head_dim=8),
    "phi3": _config("Phi3Config"),
    "olmo2": _config("Olmo2Config"),
    "olmo3": _config("Olmo3Config"),
    "cohere": _config("CohereConfig"),
    "cohere-qk-norm": _config("CohereConfig", use_qk_norm=True),
    "cohere2": _config("Cohere2Config", head_dim=8),
    "stablelm": _config("StableLmConfig"),
    "stablelm-qk-norm": _config("StableLmConfig", qk_layernorm=True, use_parallel_residual=True),
    "granite": _config("GraniteConfig"),
    "glm": _config("GlmConfig", head_dim=8),
    "glm4": _config("Glm4Config", head_dim=8),
    "smollm3": _config("SmolLM3Config"),
    "starcoder2": _config("Starcoder2Config"),
    "phi": _config("PhiConfig"),
    "phi-qk-norm": _config("PhiConfig", qk_layernorm=True),
    "persimmon": _config("PersimmonConfig", num_key_value_heads=None),
    "nemotron": _config("NemotronConfig", head_dim=8),
    "exaone4": _config("Exaone4Config"),
    "ernie4.5": _config("Ernie4_5Config", head_dim=8),
    "hunyuan": _config("HunYuanDenseV1Config", head_dim=8),
    "helium": _config("HeliumConfig", head_dim=8),
    "apertus": _config("ApertusConfig"),
    "seed-oss": _config("SeedOssConfig", head_dim=8),
    "diffllama": _config("DiffLlamaConfig"),
    # families with words of their own
    "gpt2": _own_words("GPT2Config", n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "gpt-neo": _own_words(
        "GPTNeoConfig",
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        max_position_embeddings=64,
        attention_types=[[["global", "local"], 1]],
    ),
    "gpt-neox": _config("GPTNeoXConfig", num_key_value_heads=None),
    "gptj": _own_words("GPTJConfig", n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4),
    "gpt-bigcode": _own_words("GPTBigCodeConfig", n_embd=32, n_layer=2, n_head=4, n_positions=64),
    "codegen": _own_words(
        "CodeGenConfig", n_embd=32, n_layer=2, n_head=4, n_positions=64, rotary_dim=4
    ),
    "falcon": _own_words(
        "FalconConfig", hidden_size=32, num_hidden_layers=2, num_attention_heads=4
    ),
    "falcon-new": _own_words(
        "FalconConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_kv_heads=2,
        new_decoder_architecture=True,
    ),
    "falcon-rw": _own_words(
        "FalconConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=True,
        bias=True,
        multi_query=False,
        parallel_attn=False,
    ),
    "bloom": _own_words("BloomConfig", hidden_size=32, n_layer=2, n_head=4),
    "opt": _own_words(
        "OPTConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=64,
        word_embed_proj_dim=32,
    ),
    "opt-projected": _own_words(
        "OPTConfig",
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=64,
        word_embed_proj_dim=16,
        do_layer_norm_before=False,
    ),
    "mpt": _own_words("MptConfig", d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
    "xglm": _own_words(
        "XGLMConfig",
        d_model=32,
        num_layers=2,
        attention_heads=4,
        ffn_dim=48,
        max_position_embeddings=64,
    ),
    "biogpt": _config("BioGptConfig", num_key_value_heads=None),
    # mixtures of experts
    "mixtral": _config("MixtralConfig", num_local_experts=4, num_experts_per_tok=2),
    "qwen2-moe": _config(
        "Qwen2MoeConfig", **_MOE, shared_expert_intermediate_size=16, decoder_sparse_step=1
    ),
    "qwen3-moe": _config("Qwen3MoeConfig", **_MOE, head_dim=8),
    "olmoe": _config("OlmoeConfig", num_experts=4, num_experts_per_tok=2),
    "granite-moe": _config("GraniteMoeConfig", num_local_experts=4, num_experts_per_tok=2),
    "granite-moe-shared": _config(
        "GraniteMoeSharedConfig",
        num_local_experts=4,
        num_experts_per_tok=2,
        shared_intermediate_size=16,
    ),
    "gpt-oss": _config("GptOssConfig", num_local_experts=4, num_experts_per_tok=2, head_dim=8),
    "dbrx": _own_words(
        "DbrxConfig",
        d_model=32,
        n_heads=4,
        n_layers=2,
        max_seq_len=64,
        attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
    ),
    "deepseek-v2": _config(
        "DeepseekV2Config",
        num_hidden_layers=3,
        num_key_value_heads=4,
        first_k_dense_replace=1,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
    "deepseek-v3": _config(
        "DeepseekV3Config",
        num_hidden_layers=3,
        num_key_value_heads=4,
        first_k_dense_replace=1,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        n_shared_experts=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=4,
        qk_nope_head_dim=8,
        v_head_dim=8,
    ),
    "glm4-moe": _config(
        "Glm4MoeConfig",
        num_hidden_layers=3,
        first_k_dense_replace=1,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        head_dim=8,
        use_qk_norm=True,
    ),
    "phimoe": _config(
        "PhimoeConfig", num_local_experts=4, num_experts_per_tok=2, attention_bias=True
    ),
    "llama4-text": _config(
        "Llama4TextConfig",
        intermediate_size_mlp=48,
        head_dim=8,
        num_local_experts=4,
        num_experts_per_tok=1,
        interleave_moe_layer_step=2,
    ),
    # linear attention beside full attention, with a feed-forward in every layer
    "qwen3-next": _config(
        "Qwen3NextConfig",
        **_MOE,
        head_dim=8,
        shared_expert_intermediate_size=16,
        num_hidden_layers=4,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    "jamba": _config(
        "JambaConfig",
        num_hidden_layers=3,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=4,
        mamba_d_state=4,
        mamba_dt_rank=4,
        use_mamba_kernels=False,
    ),
    "lfm2": _config("Lfm2Config", layer_types=["conv", "full_attention"]),
    # vectors and matrices beside attention and mlp
    "gemma4-text": _config(
        "Gemma4TextConfig",
        head_dim=8,
        global_head_dim=8,
        hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=64,
        num_kv_shared_layers=0,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "bitnet": _config("BitNetConfig"),
    "doge": _config("DogeConfig"),
}

# Families whose norms have no weights: their layers have no norms to place.
WEIGHTLESS: dict[str, Callable[[], PretrainedConfig]] = {
    "olmo": _config("OlmoConfig"),
    "nanochat": _config("NanoChatConfig"),
}

# Language models whose layers are a mixer alone.
SINGLE: dict[str, Callable[[], PretrainedConfig]] = {
    "mamba": _own_words(
        "MambaConfig", hidden_size=32, num_hidden_layers=2, state_size=4, use_mambapy=False
    ),
    "falcon-mamba": _own_words(
        "FalconMambaConfig", hidden_size=32, num_hidden_layers=2, state_size=4
    ),
    "mamba2": _own_words(
        "Mamba2Config",
        hidden_size=32,
        num_hidden_layers=2,
        state_size=4,
        num_heads=8,
        head_dim=8,
        n_groups=2,
    ),
}


def tiny_model(name: str, seed: int = 0, tie: bool | None = None) -> PreTrainedModel:
    """The model of family `name`, weights drawn from `seed`; `tie` overrides tied embeddings."""
    config = (FAMILIES | WEIGHTLESS | SINGLE)[name]()
    if tie is not None:
        config.tie_word_embeddings = tie
    torch.manual_seed(seed)
    # The auto classes carry no types.
    auto: Any = AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config).eval()
    return model


def save_tiny(
    name: str, folder: str | Path, seed: int = 0, tie: bool | None = None, of: int | None = None
) -> Path:
    """Store `tiny_model(name, seed, tie)` in `folder` as safetensors and return the folder.

    With `of`, store what a fine-tune of that seed's model is: its weights, and half the difference.
    """
    model = tiny_model(name, seed, tie)
    if of is not None:
        with torch.no_grad():
            base = dict(tiny_model(name, of, tie).named_parameters())
            for key, weight in model.named_parameters():
                weight.copy_((weight + base[key]) / 2)
    model.save_pretrained(folder)
    return Path(folder)


def t5() -> PretrainedConfig:
    """A small encoder-decoder."""
    sizes = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2}
    return transformers.T5Config(**sizes, num_heads=4)


def with_pictures() -> PretrainedConfig:
    """A small Qwen2-VL: a tower for pictures beside the text layers."""
    text = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
    }
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    return transformers.Qwen2VLConfig(text_config=text, vision_config=vision)


def save_all(folder: Path, auto: Any, make: Any) -> None:
    """A trio of `make()`'s model: two experts half-way to other weights."""
    base: dict[str, torch.Tensor] = {}
    for seed, role in enumerate(("base", "safety", "sw")):
        torch.manual_seed(seed)
        model = auto(make()).eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if seed:
                    weight.copy_((weight + base[name]) / 2)
                else:
                    base[name] = weight.detach().clone()
        model.save_pretrained(folder / role)
