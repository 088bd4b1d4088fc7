"""How many heads an attention has, as config.json says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safeswap.anatomy.heads import Heads
from safeswap.checkpoint.compare import spelled_out
from safeswap.checkpoint.config_defaults import FAMILY_DEFAULTS
from safeswap.errors import AnatomyError

_KEYS = ("num_attention_heads", "num_key_value_heads", "head_dim")


def heads_of(config: Mapping[str, Any], where: str) -> Heads:
    """The heads of a model's text, from its configuration; what it leaves out is the family's.

    Args:
        where: names the checkpoint in messages.

    Raises:
        AnatomyError: it says no number of heads, or one that its heads of keys and values do not
            divide.
    """
    said = spelled_out(config)
    text = said.get("text_config")
    said = {**said, **text} if isinstance(text, Mapping) else said
    known = FAMILY_DEFAULTS.get(str(said.get("model_type", "")), {})
    queries, groups, width = (_count(said.get(key, known.get(key))) for key in _KEYS)
    groups = groups or queries
    if not queries or not groups:
        raise AnatomyError(
            f"{where}: config.json says no number of attention heads. Use --by module."
        )
    if queries % groups:
        raise AnatomyError(
            f"{where}: config.json says {queries} attention heads and {groups} of keys and values, "
            "which do not share them evenly. Use --by module."
        )
    return Heads(queries, groups, width)


def _count(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
