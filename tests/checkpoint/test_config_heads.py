"""Heads as configurations say them, against transformers' own reading of the same."""

from __future__ import annotations

from typing import Any

import pytest

from safeswap.anatomy.heads import Heads
from safeswap.checkpoint.heads import heads_of
from safeswap.errors import AnatomyError

GROUPED: dict[str, Any] = {"num_attention_heads": 8, "num_key_value_heads": 2, "hidden_size": 64}
CONFIGS = [
    {"model_type": "llama", **GROUPED},
    {"model_type": "llama", "num_attention_heads": 8, "hidden_size": 64},
    {"model_type": "qwen3", **GROUPED, "head_dim": 16},
    {"model_type": "gemma3_text", "num_attention_heads": 4, "hidden_size": 640},
    {"model_type": "mistral", "num_attention_heads": 32, "hidden_size": 4096},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda one: str(sorted(one.items())))
def test_what_is_left_out_is_the_familys(config: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    given = {key: value for key, value in config.items() if key != "model_type"}
    theirs = transformers.AutoConfig.for_model(config["model_type"], **given)
    width = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    wanted = Heads(theirs.num_attention_heads, theirs.num_key_value_heads, width)
    assert heads_of(config, "here") == wanted


def test_the_text_of_a_model_with_towers() -> None:
    text = {"model_type": "gemma3_text", **GROUPED, "head_dim": 16}
    towers = {"num_attention_heads": 16}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": towers}
    assert heads_of(config, "here") == Heads(8, 2, 16)


@pytest.mark.parametrize(
    ("config", "words"),
    [({}, "says no number"), ({"n_head": 6, "num_kv_heads": 4}, "6 attention heads and 4")],
)
def test_what_says_no_heads_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(AnatomyError, match=rf"here: config\.json {words}|{words}.*--by module"):
        heads_of(config, "here")
