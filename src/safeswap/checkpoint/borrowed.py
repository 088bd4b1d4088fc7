"""Members that bring weights and no config.json: GGUF files, with another member's configuration.

What a GGUF file says of its model (sizes, heads, the base of its positions, the epsilon of its
norms) must be what the configuration says that it gets, and its tokens those of the tokenizer; the
rest is taken on trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from safeswap.checkpoint.compare import flat
from safeswap.checkpoint.config_keys import SIZES
from safeswap.checkpoint.model import Checkpoint
from safeswap.checkpoint.precisions.gguf_header import read_tokens
from safeswap.checkpoint.vocabularies.read import read_vocabulary
from safeswap.errors import FamilyError

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""What sentencepiece writes for a space, and llama.cpp in some tokens not."""
_LEAVES = {"num_experts": ("num_experts", "num_local_experts")}
_EPSILONS = ("rms_norm_eps", "layer_norm_eps", "norm_epsilon")


def with_configs(
    members: Mapping[str, Checkpoint], *, force: bool = False
) -> tuple[dict[str, Checkpoint], list[str]]:
    """Give every member a configuration, and a note for each that has another's.

    Args:
        members: role → checkpoint, the base first.
        force: note where a GGUF file says something else than the configuration, but for sizes.

    Raises:
        FamilyError: no member has a config.json; a GGUF file is of another model than the
            configuration describes.
    """
    found, notes = dict(members), []
    lender = next((role for role, one in members.items() if one.has_config), None)
    for role, member in members.items():
        if member.facts is None:
            continue
        if lender is None:
            raise FamilyError(
                f"{role} checkpoint {member.source.text}: is GGUF without a config.json, and no "
                "other checkpoint has one, so nothing says how the model computes. Give one member "
                "as a transformers checkpoint, or put the model's config.json and tokenizer beside "
                "the file."
            )
        whose = role if member.has_config else lender
        config = members[whose].config
        notes += _disagreements(role, member, config, whose, force=force)
        if not member.has_config:
            tied = {"tie_word_embeddings": member.facts.config["tie_word_embeddings"]}
            found[role] = replace(member, config={**config, **tied})
            notes.append(
                f"{role}: is GGUF without a config.json and tokenizer: read with the {whose} "
                f"checkpoint's; {_tokens(role, member, members[whose], force=force)}"
            )
    return found, notes


def _tokens(role: str, member: Checkpoint, lender: Checkpoint, *, force: bool) -> str:
    """Whether a file's tokens are those of the tokenizer that it gets, in words. llama.cpp writes
    some added tokens and fillers otherwise, so that a few may differ.

    Raises:
        FamilyError: more than one of a hundred is another.
    """
    theirs = read_vocabulary(lender.folder).tokens
    ours = read_tokens(member.files[0].path)
    if theirs is None or not ours:
        return "that its tokens are the same cannot be checked"
    by_id = {number: token for token, number in theirs.items()}
    pairs = [(n, token, by_id[n]) for n, token in enumerate(ours) if n in by_id]
    other = [(n, a, b) for n, a, b in pairs if a.replace(_SPACE, " ") != b.replace(_SPACE, " ")]
    if len(other) * 100 <= len(pairs):
        return f"of {len(pairs)} tokens {len(other) or 'none'} is another"
    number, one, two = other[0]
    text = (
        f"{len(other)} of {len(pairs)} tokens are others than in the tokenizer of "
        f"{lender.source.text}: id {number} is {one!r}, there {two!r}"
    )
    if force:
        return text
    raise FamilyError(
        f"{role} checkpoint {member.source.text}: {text}. Use a file of the same model, or put its "
        "own config.json and tokenizer beside it; --force (force=True) goes on all the same."
    )


def _disagreements(
    role: str, member: Checkpoint, config: Mapping[str, Any], whose: str, *, force: bool
) -> list[str]:
    """What the file says otherwise than a configuration, as notes.

    Raises:
        FamilyError: a size, or without force anything, differs.
    """
    assert member.facts is not None
    said, notes = _plain(config), []
    for key, value in {"model_type": None, **member.facts.config}.items():
        names = _LEAVES.get(key, _EPSILONS if key in _EPSILONS else (key,))
        there = next((said[name] for name in names if name in said), None)
        if key == "tie_word_embeddings" or there is None:
            continue
        if key == "model_type":
            same, value = there in member.facts.models, member.facts.architecture
        else:
            same = _alike(there, value)
        if same:
            continue
        text = (
            f"{role} checkpoint {member.source.text}: the GGUF file says {key} = {value!r}, the "
            f"{whose} checkpoint's config.json says {there!r}"
        )
        if key in SIZES or not force:
            raise FamilyError(
                f"{text}. Experts must be fine-tunes of the same base: give the right file, or "
                "the config.json that belongs to it beside it."
            )
        notes.append(text)
    return notes


def _alike(one: Any, two: Any) -> bool:
    """Whether two values are one; files of GGUF have numbers of 32 bits, and config.json may have
    got them from there.
    """
    numbers = all(isinstance(value, (int, float)) for value in (one, two))
    return bool(one == two or (numbers and np.float32(one) == np.float32(two)))


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """Last part of each key → value; those of the text model, and of whole attention, go first."""
    found: dict[str, Any] = {}
    leaves = flat(config)
    for key in sorted(leaves, key=lambda key: ("text_config" not in key, "sliding" in key)):
        found.setdefault(key.rpartition(".")[2], leaves[key])
    return found
