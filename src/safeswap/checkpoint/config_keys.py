"""What the keys of a config.json mean for two members of a family: which may differ, and why not.

Everything that is not listed here as free counts: a key that nobody thought of is compared.
"""

from __future__ import annotations

from typing import Final

from safeswap.checkpoint.config_defaults import FAMILY_DEFAULTS


def _table(text: str) -> frozenset[str]:
    return frozenset(text.split())


SIZES: Final = (
    "model_type",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
)
"""Without these being equal nothing corresponds to anything: not to be forced. Vocabularies may
differ where their tokens are known, and tying may (``vocabularies/``, ``tying.py``)."""

FREE: Final = _table("""
    _name_or_path name_or_path transformers_version architectures torch_dtype dtype _commit_hash
    use_cache output_attentions output_hidden_states return_dict return_dict_in_generate
    output_scores torchscript use_bfloat16 _attn_implementation _attn_implementation_internal
    _attn_implementation_autoset attn_implementation _flash_attn_2_enabled use_flash_attn
    use_flash_attention attn_impl init_device gradient_checkpointing slow_but_exact pretraining_tp
    quantization_config compression_config quantization tie_encoder_decoder
    id2label label2id num_labels problem_type finetuning_task task_specific_params
    keys_to_ignore_at_inference chunk_size_feed_forward is_encoder_decoder unsloth_version
    unsloth_fixed model_name trl_version peft_version license language tags
    max_length min_length do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences exponential_decay_length_penalty
    suppress_tokens begin_suppress_tokens forced_bos_token_id forced_eos_token_id
    remove_invalid_values max_new_tokens prefix
    attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop emb_pdrop resid_dropout
    embed_dropout embedding_dropout residual_dropout activation_dropout classifier_dropout dropout
    layerdrop hidden_dropout_prob attention_probs_dropout_prob ffn_dropout attn_dropout
    classifier_dropout_prob summary_type summary_use_proj summary_activation
    summary_proj_to_labels summary_first_dropout initializer_range initializer_factor init_std
    output_router_logits router_aux_loss_coef router_z_loss_coef router_jitter_noise
    input_jitter_noise aux_loss_alpha seq_aux z_loss_coefficient pad_token_id
""")
"""Names, versions, formats, what only training or only generating reads."""

NOTED: Final = {
    **dict.fromkeys(
        ("bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id", "decoder_start_token_id"),
        "answers may begin or end elsewhere; the output has its donor's",
    ),
    **dict.fromkeys(("eod_token_id", "eos_token"), "answers may end elsewhere"),
    "auto_map": "the code that a loader may run is another; the output has its donor's",
    "max_position_embeddings": "another length was trained for; the output has its donor's",
}
"""What may differ but is worth knowing, and what it means."""

LENGTH_KINDS: Final = ("dynamic", "longrope", "yarn")
"""Ways to scale positions that read the model's length: with them it is no mere limit."""

SYNONYMS: Final = {
    **dict.fromkeys(("n_embd", "n_embed", "d_model"), "hidden_size"),
    **dict.fromkeys(("n_layer", "n_layers", "num_layers"), "num_hidden_layers"),
    **dict.fromkeys(("n_head", "n_heads", "num_heads", "attention_heads"), "num_attention_heads"),
    **dict.fromkeys(("num_kv_heads", "multi_query_group_num"), "num_key_value_heads"),
    **dict.fromkeys(("n_inner", "ffn_dim"), "intermediate_size"),
    **dict.fromkeys(
        ("n_positions", "n_ctx", "max_seq_len", "max_sequence_length", "seq_length", "seq_len"),
        "max_position_embeddings",
    ),
}
"""Families' own words, read as the common one where that is not said too."""

PATTERNS: Final = {
    **dict.fromkeys(("gemma2", "gpt_oss"), 2),
    **dict.fromkeys(("cohere2", "olmo3", "exaone4"), 4),
    **dict.fromkeys(("gemma3_text", "gemma3"), 6),
}
"""Every how many layers attention is whole and not in a window, where layer_types are not said."""

_CONSEQUENCES: Final = (
    (("rope", "rotary", "alibi", "position"), "positions are encoded otherwise"),
    (("expert", "moe", "router", "topk"), "tokens go to other experts"),
    (("hidden_act", "activation", "glu"), "another activation function"),
    (("window", "layer_types", "chunk", "attention_types"), "layers see other stretches of text"),
    (("softcap", "scale", "scalar", "multiplier", "scaling"), "numbers are scaled otherwise"),
    (("eps", "norm"), "norms are computed otherwise"),
    (("head",), "the same matrices are cut into other heads"),
    (("bias",), "biases are used in one of them only"),
)


_OTHER_SECTIONS = ("vision", "audio", "image", "speech")


def is_vocabulary_size(key: str) -> bool:
    """Whether a key says how many rows the text's tables have: ``vocab_size`` and its like.

    Args:
        key: dotted; what a section of a tower says of codes is not meant.
    """
    section, _, leaf = key.rpartition(".")
    return "vocab_size" in leaf and not any(word in section for word in _OTHER_SECTIONS)


def is_token_id(key: str) -> bool:
    """Whether a key names tokens by their ids."""
    return key.endswith(("token_id", "token_ids", "token_index"))


def consequence(key: str) -> str:
    """What it means that two members differ in a key."""
    for words, text in _CONSEQUENCES:
        if any(word in key for word in words):
            return f"{text}, and the same weights compute something else"
    return "the same weights may compute something else"


def default_of(family: str, key: str) -> tuple[bool, object]:
    """Whether it is known what a family takes where a key is absent, and that value.

    Args:
        family: the ``model_type``.
        key: dotted; its last part counts.
    """
    leaf = key.rpartition(".")[2]
    if key.count(".") > 1:  # deeper than a section: not in the table
        return leaf == "rope_type", "default"
    known = FAMILY_DEFAULTS.get(family, {})
    if leaf in known:
        return True, known[leaf]
    return leaf == "rope_type", "default"
