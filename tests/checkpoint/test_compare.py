"""Configurations compared whole: what differs is refused or noted, with key, values and meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from families import FAMILIES
from safeswap.checkpoint import Checkpoint, compare, join_family, open_checkpoint
from safeswap.checkpoint.compare import compare_configs, flat
from safeswap.checkpoint.config_defaults import FAMILY_DEFAULTS
from safeswap.checkpoint.config_keys import FREE
from safeswap.checkpoint.source import Source
from tiny import edit_json, make_trio, refused, swap

Trio = dict[str, Path]


@pytest.fixture
def trio(tmp_path: Path) -> Trio:
    return make_trio(tmp_path / "trio")


def notes_of(trio: Trio, force: bool = False) -> tuple[str, ...]:
    members = {role: open_checkpoint(trio[role]) for role in ("base", "safety", "sw")}
    return join_family(members, force=force).notes


def say(trio: Trio, role: str, **keys: Any) -> None:
    edit_json(trio[role] / "config.json", **keys)


# key → what the base says (None: nothing), what the expert says
REFUSED: dict[str, tuple[Any, Any]] = {
    "rope_theta": (10000.0, 500000.0),
    "rope_scaling": (None, {"type": "linear", "factor": 2.0}),
    "rope_parameters": (
        {"rope_type": "default", "rope_theta": 1e4},
        {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0},
    ),
    "partial_rotary_factor": (0.5, 0.25),
    "rotary_pct": (0.25, 1.0),
    "rms_norm_eps": (1e-6, 1e-5),
    "layer_norm_eps": (1e-5, 1e-12),
    "layer_norm_epsilon": (1e-5, 1e-6),
    "hidden_act": ("silu", "gelu"),
    "activation_function": ("gelu", "gelu_new"),
    "hidden_activation": ("gelu", "gelu_pytorch_tanh"),
    "sliding_window": (4096, 1024),
    "layer_types": (
        ["full_attention", "sliding_attention"],
        ["sliding_attention", "full_attention"],
    ),
    "final_logit_softcapping": (30.0, 50.0),
    "attn_logit_softcapping": (50.0, None),
    "query_pre_attn_scalar": (256, 128),
    "head_dim": (8, 4),
    "logit_scale": (0.0625, 1.0),
    "embedding_multiplier": (1.0, 12.0),
    "residual_multiplier": (1.0, 0.22),
    "attention_multiplier": (1.0, 0.5),
    "num_experts_per_tok": (2, 4),
    "norm_topk_prob": (True, False),
    "routed_scaling_factor": (1.0, 2.5),
    "use_parallel_residual": (True, False),
    "alibi": (True, False),
    "scale_attn_weights": (True, False),
    "no_rope_layers": ([1, 1], [1, 0]),
    "attention_chunk_size": (8192, 4096),
    "a_key_of_tomorrow": (1, 2),
    "text_config": ({"rms_norm_eps": 1e-6}, {"rms_norm_eps": 1e-5}),
    "attn_config": ({"clip_qkv": 8.0}, {"clip_qkv": 4.0}),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_changes_the_computation_is_refused_with_key_and_values(
    trio: Trio, key: str, tmp_path: Path
) -> None:
    ours, theirs = REFUSED[key]
    for role, value in (("base", ours), ("safety", ours), ("sw", theirs)):
        say(trio, role, **({key: value} if value is not None else {}))
    config = str(trio["sw"])
    if theirs is None or (ours is None and key != "rope_scaling"):
        assert any(key in note and str(ours) in note for note in notes_of(trio))  # not known: noted
        return
    message = refused(lambda: notes_of(trio), "sw expert", config, key, "the base says", "--force")
    plain = [v for v in (ours, theirs) if not isinstance(v, (dict, list)) and v is not None]
    assert all(repr(value) in message for value in plain)
    forced = notes_of(trio, force=True)
    assert any(note.startswith("sw: ") and key in note for note in forced)
    # the safety expert says what the base says, so it is not named
    assert not any(note.startswith("safety: ") for note in forced)


@pytest.mark.parametrize("key", ["num_attention_heads", "num_key_value_heads", "model_type"])
def test_sizes_inside_a_nested_configuration_are_not_to_be_forced(trio: Trio, key: str) -> None:
    for role, value in (("base", 4), ("safety", 4), ("sw", 8)):
        say(trio, role, text_config={key: value})
    for force in (False, True):
        words = ("sw expert", f"text_config.{key} = 8", "the base says 4")
        refused(lambda force=force: notes_of(trio, force), *words)


@pytest.mark.parametrize("word", ["n_head", "num_heads", "n_embd", "n_layer"])
def test_a_message_has_the_word_of_the_files(trio: Trio, word: str) -> None:
    for role, value in (("base", 4), ("safety", 4), ("sw", 8)):
        say(trio, role, attn_config={word: value})
    refused(lambda: notes_of(trio), f"attn_config.{word} = 8, the base says 4")


@pytest.mark.parametrize("key", sorted(FREE))
def test_what_may_differ_passes_without_a_word(trio: Trio, key: str) -> None:
    if key.startswith(("quantization", "compression")):
        pytest.skip("tests/checkpoint/test_names.py has it")
    say(trio, "sw", **{key: 7})
    assert notes_of(trio) == ()
    say(trio, "base", **{key: 8})
    assert notes_of(trio) == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [("eos_token_id", [2, 5]), ("bos_token_id", 0), ("max_position_embeddings", 4096)],
)
def test_what_is_worth_knowing_is_noted(trio: Trio, key: str, value: Any) -> None:
    say(trio, "base", **{key: 1})
    say(trio, "safety", **{key: 1})
    say(trio, "sw", **{key: value})
    (note,) = notes_of(trio)
    assert note.startswith("sw: ") and f"{key} = {value!r}, the base says 1" in note


def test_a_length_that_positions_are_scaled_by_is_no_mere_limit(trio: Trio) -> None:
    for role, length in (("base", 64), ("safety", 64), ("sw", 128)):
        rope = {"rope_type": "dynamic", "factor": 2.0}
        say(trio, role, rope_scaling=rope, max_position_embeddings=length)
    refused(lambda: notes_of(trio), "max_position_embeddings = 128", "positions")


def test_a_key_of_one_side_whose_default_nobody_knows_is_noted(trio: Trio) -> None:
    say(trio, "sw", key_of_tomorrow=3)
    (note,) = notes_of(trio)
    assert "key_of_tomorrow = 3, the base says nothing" in note and "not known" in note


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default-written": ({}, {"rms_norm_eps": 1e-6, "hidden_act": "silu", "rope_theta": 10000}),
    "off": ({}, {"attention_bias": False, "mlp_bias": None, "rope_scaling": None}),
    "rope-spellings": (
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0}},
    ),
    "rope-default": (
        {"rope_theta": 1e4},
        {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}},
    ),
    "longrope": (
        {"rope_scaling": {"type": "su", "short_factor": [1.0]}},
        {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}},
    ),
    "window-off": (
        {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 2},
        {"use_sliding_window": False, "sliding_window": None, "max_window_layers": 28},
    ),
    "all-layers-whole": ({}, {"layer_types": ["full_attention", "full_attention"]}),
    "heads-derived": ({"head_dim": None}, {"head_dim": 4}),
}


@pytest.mark.parametrize("case", SAME)
def test_two_spellings_of_one_computation_are_the_same(trio: Trio, case: str) -> None:
    ours, theirs = SAME[case]
    for role, keys in (("base", ours), ("safety", theirs), ("sw", ours)):
        say(trio, role, **keys)
    assert notes_of(trio) == ()


def test_a_default_that_is_not_written_is_compared(trio: Trio) -> None:
    say(trio, "sw", rms_norm_eps=1e-5)  # Llama takes 1e-6 where nothing is said
    refused(lambda: notes_of(trio), "rms_norm_eps = 1e-05, the base says nothing", "norms")


@pytest.mark.parametrize("family", sorted(FAMILY_DEFAULTS))
def test_the_defaults_are_those_of_transformers(family: str) -> None:
    found = CONFIG_MAPPING[family]().to_dict()
    rope = found.get("rope_parameters") or {}
    for key, value in FAMILY_DEFAULTS[family].items():
        assert (rope if key in ("rope_theta", "partial_rotary_factor") else found)[key] == value


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "cohere2", "gpt_oss", "olmo3"])
def test_layers_of_a_pattern_are_those_of_transformers(family: str) -> None:
    config = CONFIG_MAPPING[family](num_hidden_layers=12).to_dict()
    said = {k: v for k, v in config.items() if k not in ("layer_types", "_sliding_window_pattern")}
    assert flat(said)["layer_types"] == config["layer_types"]


def test_words_of_families_are_read_as_the_common_ones() -> None:
    one = flat({"model_type": "bloom", "n_layer": 2, "n_head": 4, "n_embed": 32})
    two = flat({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32})
    assert one == {"model_type": "bloom", **two}


def test_a_forced_merge_is_verified(trio: Trio, tmp_path: Path) -> None:
    from safeswap.api import verify_merge

    say(trio, "sw", rope_theta=77.0)
    refused(lambda: swap(trio, tmp_path / "out"), "rope_theta = 77.0", out=tmp_path / "out")
    out = swap(trio, tmp_path / "out", force=True)
    assert verify_merge(out).from_inputs
    notes = json.loads((out / "safeswap.json").read_text())["profile"]["notes"]
    assert any("rope_theta" in note for note in notes)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_defaults_left_out_are_never_refused(family: str, tmp_path: Path) -> None:
    """Writers leave out what is the default; here for every family that the tests know."""
    config = FAMILIES[family]()
    whole = json.loads(json.dumps(config.to_dict(), default=str))
    short = json.loads(json.dumps(config.to_diff_dict(), default=str))
    short["model_type"] = whole["model_type"]
    members = {}
    for role, content in (("base", whole), ("sw", short), ("te", whole)):
        source = Source(role, tmp_path)
        members[role] = Checkpoint(source, content, (), {})
    for base, expert in (("base", "sw"), ("sw", "base")):
        compare.refuse_other_size(members[base], members[expert], expert)
        compare_configs({"base": members[base], "sw": members[expert]})
    assert compare_configs({"base": members["base"], "te": members["te"]}) == []
