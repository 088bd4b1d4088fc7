"""Do the members' configurations describe one computation? Compared whole, as JSON alone.

Both configurations are brought to one spelling first (`spelled_out`): families' own words, the two
ways of writing rotary positions, windows that are switched off, patterns of layers. What is absent
is the family's default where that is known. Then every key is compared; `config_keys` lists what
may differ and what is only worth a note, and anything else that differs is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safeswap.checkpoint.config_keys import (
    FREE,
    LENGTH_KINDS,
    NOTED,
    PATTERNS,
    SIZES,
    SYNONYMS,
    consequence,
    default_of,
    is_token_id,
    is_vocabulary_size,
)
from safeswap.checkpoint.model import Checkpoint
from safeswap.errors import FamilyError
from safeswap.roles import BASE

Flat = Mapping[str, Any]
"""Dotted key → value that is no object."""
_ABSENT = object()
_OFF: tuple[Any, ...] = (None, False, [], {}, "")
_SHOWN = 3


def refuse_other_size(base: Checkpoint, expert: Checkpoint, role: str) -> None:
    """Refuse another family or size, before a tensor is looked at.

    Raises:
        FamilyError: names the key and both values.
    """
    _refuse(base, expert, role, lambda key: key.rpartition(".")[2] in SIZES)


def refuse_other_vocabulary(base: Checkpoint, expert: Checkpoint, role: str) -> None:
    """Refuse another size of the vocabulary, where rows are not matched by their tokens.

    Raises:
        FamilyError: names the key and both values.
    """
    _refuse(base, expert, role, is_vocabulary_size)


def _refuse(base: Checkpoint, expert: Checkpoint, role: str, counts: Callable[[str], bool]) -> None:
    ours, theirs = flat(base.config), flat(expert.config)
    for key in (*ours, *(key for key in theirs if key not in ours)):
        if not counts(key):
            continue
        one, two = ours.get(key), theirs.get(key)
        if one != two and one is not None and two is not None:
            raise FamilyError(
                f"{role} expert {expert.text}: config.json says "
                f"{_spelled(key, base.config, expert.config)} = {_shown(two)}, the "
                f"base says {_shown(one)}. Experts must be fine-tunes of the base "
                f"{base.source.text}."
            )


def compare_configs(
    members: Mapping[str, Checkpoint], *, force: bool = False, mapped: bool = False
) -> list[str]:
    """Compare every expert's configuration with the base's, key by key.

    Args:
        members: role → checkpoint, the base among them.
        force: note what would be refused.
        mapped: rows are matched by token, so that one token may have another id in each.

    Returns:
        What a user should know, in a line each: the key, both values, and what it means.

    Raises:
        FamilyError: the same weights would compute something else; names up to three keys.
    """
    base = members[BASE]
    ours, notes = flat(base.config), []
    for role, expert in members.items():
        if role == BASE:
            continue
        theirs = flat(expert.config)
        refused = []
        for key in sorted({*ours, *theirs}):
            found = _difference(key, ours, theirs)
            if mapped and is_vocabulary_size(key) and ours.get(key) != theirs.get(key):
                found = True, "rows are matched by token; the output has its donor's"
            if found and mapped and is_token_id(key):
                found = True, "the output has its donor's ids"
            if found is None:
                continue
            shown = _spelled(key, base.config, expert.config)
            text = _sentence(shown, theirs.get(key, _ABSENT), ours.get(key, _ABSENT), found[1])
            if found[0] or force:
                notes.append(f"{role}: {text}")
            else:
                refused.append(text)
        if refused:
            more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
            raise FamilyError(
                f"{role} expert {expert.text}: {'; '.join(refused[:_SHOWN])}{more}. Use an "
                f"expert that was trained with the configuration of {base.source.text}; or, if it "
                "was and only its config.json is wrong, correct that; --force (force=True) merges "
                "all the same."
            )
    return notes


def _difference(key: str, ours: Flat, theirs: Flat) -> tuple[bool, str] | None:
    """Whether a difference is only noted, and what it means; None where there is none."""
    leaf = key.rpartition(".")[2]
    if leaf in FREE or leaf == "tie_word_embeddings" or any(p in FREE for p in key.split(".")):
        return None
    if is_vocabulary_size(key):  # compared with the tensors
        return None
    one, two = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
    known = True
    if one is _ABSENT or two is _ABSENT:
        section = key.rpartition(".")[0]
        family = ours.get(f"{section}.model_type", ours.get("model_type", ""))
        known, default = default_of(str(family), key)
        default = default if known else None
        one, two = (default if value is _ABSENT else value for value in (one, two))
    if one == two or (_is_off(one) and _is_off(two)):
        return None
    if leaf in NOTED and not (leaf == "max_position_embeddings" and _length_counts(ours, theirs)):
        return True, NOTED[leaf]
    if not known:
        return True, "it is not known what is taken where it is not said"
    return False, consequence(key)


def _is_off(value: Any) -> bool:
    return any(
        value is off or (value == off and not isinstance(value, (int, float))) for off in _OFF
    )


def _length_counts(*configs: Flat) -> bool:
    return any(
        key.endswith("rope_type") and value in LENGTH_KINDS
        for config in configs
        for key, value in config.items()
    )


def _sentence(key: str, theirs: Any, ours: Any, means: str) -> str:
    return f"config.json says {key} = {_shown(theirs)}, the base says {_shown(ours)}: {means}"


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "nothing"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _spelled(key: str, *configs: Mapping[str, Any]) -> str:
    """The key as the files spell it; ``key`` is as `spelled_out` does."""
    old = not any("rope_parameters" in str(config) for config in configs)
    section, _, leaf = key.rpartition(".")
    if old and section.endswith("rope_parameters") and leaf in _ROPE.values():
        section = section.removesuffix("rope_parameters").rstrip(".")
    elif old and "rope_parameters" in section:
        return key.replace("rope_parameters", "rope_scaling")
    places = [_section(config, section) for config in configs]
    words = [word for word, common in (SYNONYMS | _ROPE).items() if common == leaf]
    if not any(leaf in place for place in places):
        leaf = next((w for w in words if any(w in place for place in places)), leaf)
    return f"{section}.{leaf}" if section else leaf


def _section(config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    for part in path.split(".") if path else ():
        inner = config.get(part)
        config = inner if isinstance(inner, Mapping) else {}
    return config


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration in one spelling, without its sections' nesting: dotted key → value."""
    return dict(_leaves("", spelled_out(config)))


def _leaves(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, Mapping):
        return [(prefix, value)]
    inner = [_leaves(f"{prefix}.{key}" if prefix else str(key), v) for key, v in value.items()]
    return [pair for pairs in inner for pair in pairs]


def spelled_out(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, or a section of one, in the spelling that is compared."""
    said = dict(config)
    for word, common in SYNONYMS.items():
        if word in said:
            value = said.pop(word)
            if said.get(common) is None:
                said[common] = value
    _write_rope(said)
    _write_heads(said)
    _write_windows(said)
    return {
        k: spelled_out(v) if k.endswith("_config") and isinstance(v, Mapping) else v
        for k, v in said.items()
    }


def _write_rope(said: dict[str, Any]) -> None:
    """``rope_theta``, ``rope_scaling`` and their like as the one table ``rope_parameters``."""
    table: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = said.pop(key, None)
        table |= value if isinstance(value, Mapping) else {}
    for key, name in _ROPE.items():
        value = said.pop(key, None)
        if value is not None:
            table.setdefault(name, value)
    local = said.pop("rope_local_base_freq", None)
    if local is not None:
        whole = {k: v for k, v in table.items() if not isinstance(v, Mapping)}
        near = {"rope_theta": local, "rope_type": "default"}
        table = {"full_attention": whole, "sliding_attention": near} | {
            k: v for k, v in table.items() if isinstance(v, Mapping)
        }
    if table:
        said["rope_parameters"] = _rope_kind(table)


_ROPE = {
    "rope_theta": "rope_theta",
    "rotary_emb_base": "rope_theta",
    "partial_rotary_factor": "partial_rotary_factor",
    "rotary_pct": "partial_rotary_factor",
}


def _rope_kind(table: Mapping[str, Any]) -> dict[str, Any]:
    if any(isinstance(value, Mapping) for value in table.values()):
        return {k: _rope_kind(v) if isinstance(v, Mapping) else v for k, v in table.items()}
    kind = table.get("rope_type", table.get("type", "default"))
    rest = {key: value for key, value in table.items() if key not in ("type", "rope_type")}
    return {**rest, "rope_type": "longrope" if kind == "su" else kind}


def _write_heads(said: dict[str, Any]) -> None:
    """As many heads for keys as for queries, and as wide as the model has room for, where nothing
    else is said or known.
    """
    heads, width = said.get("num_attention_heads"), said.get("hidden_size")
    family = str(said.get("model_type", ""))
    if not isinstance(heads, int) or heads < 1:
        return
    if said.get("num_key_value_heads") is None and not default_of(family, "num_key_value_heads")[0]:
        said["num_key_value_heads"] = heads
    if said.get("head_dim") is None and not default_of(family, "head_dim")[0]:
        said.pop("head_dim", None)
        if isinstance(width, int):
            said["head_dim"] = width // heads


def _write_windows(said: dict[str, Any]) -> None:
    """No window where it is switched off; which layers have one, where a pattern says it."""
    if said.get("use_sliding_window") is False or (
        "use_sliding_window" not in said and said.get("model_type") in _SWITCHED
    ):
        for key in ("sliding_window", "max_window_layers", "use_sliding_window"):
            said.pop(key, None)
    every = said.pop("_sliding_window_pattern", said.pop("sliding_window_pattern", None))
    layers, types = said.get("num_hidden_layers"), said.get("layer_types")
    every = every or PATTERNS.get(str(said.get("model_type", "")))
    if types is None and isinstance(layers, int) and isinstance(every, int) and 0 < layers < 10000:
        said["layer_types"] = [
            "full_attention" if (layer + 1) % every == 0 else "sliding_attention"
            for layer in range(layers)
        ]
    elif isinstance(types, list) and types and set(types) == {"full_attention"}:
        del said["layer_types"]


_SWITCHED = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")
"""Families whose windows are off unless config.json says that they are on."""
