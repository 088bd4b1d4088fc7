"""Tokens that are byte strings: tiktoken's tables of ranks, and Mistral's ``tekken.json``.

A byte is written as the character that GPT-2 gives it, as a ``tokenizer.json`` of the same tokens
has it, so that members of either kind are matched. Formats: github.com/openai/tiktoken
(``load.py``), github.com/mistralai/mistral-common (``tekken.py``), and Qwen's first tokenizer
(``tokenization_qwen.py`` beside its weights), whose special tokens stand in its code alone.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_CHARACTERS = {byte: chr(byte) for byte in _PRINTABLE}
_CHARACTERS |= {byte: chr(256 + number) for number, byte in enumerate(_OTHERS)}
_TO_TEXT = str.maketrans({chr(byte): text for byte, text in _CHARACTERS.items()})
_MOST = 1 << 24
"""Tokens of a vocabulary; the largest known have 2¹⁸."""
_LONGEST_RANK = 8

_TEKKEN_BEFORE_V11 = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]"),
    *("[IMG_END]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    "[TOOL_CONTENT]",
)
"""Special tokens of files up to version v7, which do not name them."""
_QWEN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{n}|>" for n in range(205)))


def text_of(token: bytes) -> str:
    """A byte string as GPT-2 writes it, a character a byte."""
    return token.decode("latin-1").translate(_TO_TEXT)


def ranks_of(raw: bytes) -> dict[str, int]:
    """The tokens of a tiktoken file and their ids: a line each, base64 and a rank.

    Raises:
        ValueError: it is no such file; says at which line.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(raw.split(b"\n"), 1):
        line = line.rstrip(b"\r")
        if line:
            token, _, rank = line.partition(b" ")
            if not rank.isdigit() or len(rank) > _LONGEST_RANK:
                raise ValueError(f"line {number} has no rank")
            _put(found, text_of(_decoded(token, f"line {number}")), int(rank), f"line {number}")
    if not found:
        raise ValueError("no tokens")
    return found


def qwen_of(raw: bytes) -> dict[str, int]:
    """The tokens of ``qwen.tiktoken``, and the special ones that Qwen's code puts behind them.

    Raises:
        ValueError: as :func:`ranks_of`.
    """
    found = ranks_of(raw)
    first = max(found.values()) + 1
    return found | {token: first + number for number, token in enumerate(_QWEN)}


def tekken_of(content: Mapping[str, Any]) -> dict[str, int]:
    """The tokens of a ``tekken.json`` and their ids: special ones first, then each by its rank.

    Raises:
        ValueError: it is none; says what is wrong.
    """
    said = content.get("config")
    said = said if isinstance(said, dict) else {}
    total, special = (
        _count(said.get(key), f"config.{key}")
        for key in ("default_vocab_size", "default_num_special_tokens")
    )
    if special > total:
        raise ValueError("config has more special tokens than tokens")
    found: dict[str, int] = {}
    entries = content.get("vocab")
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        where = f"entry {number} of vocab"
        if not isinstance(entry, dict) or not isinstance(entry.get("token_bytes"), str):
            raise ValueError(f"{where} has no token_bytes")
        rank = _count(entry.get("rank"), f"the rank of {where}")
        if rank < total - special:  # a file may hold more than its model has rows for
            token = _decoded(entry["token_bytes"].encode("utf-8", "surrogatepass"), where)
            _put(found, text_of(token), special + rank, where)
    if len(found) != total - special:
        raise ValueError(f"it has {len(found)} of {total - special} ranks")
    return found | _special_of(content.get("special_tokens"), special)


def _special_of(entries: Any, count: int) -> dict[str, int]:
    """The special tokens of a ``tekken.json``; those without a name are called by their number."""
    if entries is None:
        named: Iterable[tuple[str, int]] = zip(_TEKKEN_BEFORE_V11, range(count), strict=False)
    else:
        named = []
        for entry in entries if isinstance(entries, list) else [None]:
            if not isinstance(entry, dict) or not isinstance(entry.get("token_str"), str):
                raise ValueError("special_tokens are no list of tokens")
            named.append((entry["token_str"], _count(entry.get("rank"), "a special token's rank")))
    found: dict[str, int] = {}
    for token, rank in named:
        if rank >= count:
            raise ValueError(f"a special token has the rank {rank} of {count}")
        _put(found, token, rank, "special_tokens")
    known = set(found.values())
    return found | {f"<SPECIAL_{n}>": n for n in range(count) if n not in known}


def _put(found: dict[str, int], token: str, number: int, where: str) -> None:
    if token in found:
        raise ValueError(f"{where} has a token that was there before")
    found[token] = number


def _count(value: Any, what: str) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{what} is no number of tokens")
    return value


def _decoded(token: bytes, where: str) -> bytes:
    try:
        found = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where} is no base64") from error
    if not found:
        raise ValueError(f"{where} is empty")
    return found
