"""Do a donor's own files agree: its tokenizer's special tokens with the ids that its configuration
and its generation settings name, and its tokens with the rows that it has?
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.checkpoint.vocabularies.read import Tokens, json_of

_FILES = ("config.json", "generation_config.json")
_KINDS = {"eos": "answers may not end", "bos": "texts may begin otherwise", "pad": ""}


def disagreements(folder: Path, tokens: Tokens, height: int) -> list[str]:
    """What in a checkpoint's folder does not go together, in a line each; the folder's files go
    along with the output as they are.

    Args:
        folder: the donor's.
        tokens: its tokens with their ids.
        height: rows of its embeddings.
    """
    said = json_of(folder / "tokenizer_config.json")
    files = {name: json_of(folder / name) for name in _FILES}
    lines = []
    for kind, means in _KINDS.items():
        token = said.get(f"{kind}_token")
        token = token.get("content") if isinstance(token, Mapping) else token
        if not isinstance(token, str) or token not in tokens:
            continue
        key, number = f"{kind}_token_id", tokens[token]
        named = {name: ids for name, one in files.items() if (ids := _ids(one.get(key)))}
        if named and all(number not in ids for ids in named.values()):
            where = ", ".join(f"{name} says {key} = {ids}" for name, ids in named.items())
            because = f": {means}" if means else ""
            lines.append(
                f"the donor's {kind}_token {token!r} has the id {number}, {where}{because}"
            )
    beyond = sum(number >= height for number in tokens.values())
    if beyond:
        lines.append(
            f"{beyond} tokens of the donor's tokenizer have an id beyond its {height} rows: no "
            "text with one of them can be read"
        )
    return lines


def _ids(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if type(one) is int]
