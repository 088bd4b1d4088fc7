"""The tokens of a checkpoint's folder and their ids, from the files of fast and slow tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.checkpoint.digests import of_small_file
from safeswap.checkpoint.inside import refuse_leaving
from safeswap.checkpoint.loaded_names import LARGEST
from safeswap.checkpoint.source import read_json
from safeswap.checkpoint.vocabularies.pieces import pieces_of
from safeswap.errors import CheckpointError, ConfigError, FamilyError
from safeswap.io.files import reading_remedy, refuse_pointer
from safeswap.io.regular import read_regular

Tokens = Mapping[str, int]
"""Token → id."""

FAST, SLOW = "tokenizer.json", "vocab.json"
WORDPIECE = "vocab.txt"
PIECES = ("tokenizer.model", "spiece.model")
CLOSED = (*PIECES, WORDPIECE, "tekken.json", "qwen.tiktoken", "sentencepiece.bpe.model")
"""Compared byte by byte where their tokens are not read: the last three have ids that their
tokenizers' code makes, and a damaged file of pieces has none.
"""
FILES = (FAST, SLOW, *CLOSED)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a folder says of its tokens.

    Attributes:
        tokens: all tokens with their ids; None where no file that is read holds them.
        added: those that were added to a slow tokenizer, which are known without the others.
        fast: the content of ``tokenizer.json``, where there is one.
        unread: why a file that should hold them was not read; empty otherwise.
    """

    tokens: Tokens | None
    added: Tokens = field(default_factory=dict)
    fast: Mapping[str, Any] | None = None
    unread: str = ""


def read_vocabularies(folders: Mapping[str, Path]) -> dict[str, Vocabulary]:
    """`read_vocabulary` of several folders; a ``tokenizer.json`` that lies in more than one of them
    is read once: 17 MB of text are 100 MB of objects.

    Args:
        folders: role → folder.

    Raises:
        FamilyError, CheckpointError: as `read_vocabulary`.
    """
    known: dict[str, tuple[Mapping[str, Any], Tokens]] = {}
    return {role: read_vocabulary(folder, known) for role, folder in folders.items()}


def read_vocabulary(
    folder: Path, known: dict[str, tuple[Mapping[str, Any], Tokens]] | None = None
) -> Vocabulary:
    """Find the tokens of a folder: in ``tokenizer.json``, else ``vocab.json``, ``vocab.txt`` or a
    sentencepiece model, as transformers would; with what ``tokenizer_config.json`` and
    ``added_tokens.json`` add.

    Args:
        known: SHA-256 of a ``tokenizer.json`` that was read before → its content and tokens; what
            is read is put there.

    Raises:
        FamilyError: a JSON file is there and holds no vocabulary.
        CheckpointError: a file cannot be read.
    """
    added = _added(folder)
    if (folder / FAST).exists():
        content, tokens = _known(folder / FAST, {} if known is None else known)
        return Vocabulary({**added, **tokens} if added else tokens, added, content)
    if (folder / SLOW).exists():
        plain: Any = read_json(folder / SLOW)
        check_ids(plain, folder / SLOW)
        return Vocabulary(added | plain, added)
    if (folder / WORDPIECE).exists():
        return _of_lines(folder / WORDPIECE, added)
    model = next((folder / name for name in PIECES if (folder / name).exists()), None)
    return Vocabulary(None, added) if model is None else _of_pieces(model, added)


def _known(
    path: Path, known: dict[str, tuple[Mapping[str, Any], Tokens]]
) -> tuple[Mapping[str, Any], Tokens]:
    refuse_leaving(path.parent, path)
    try:
        digest = of_small_file(path)
    except OSError as error:
        todo = reading_remedy(error, "Fix its permissions, or fetch it again.")
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error
    if digest not in known:
        content = read_json(path)
        known[digest] = content, _fast(content, path)
    return known[digest]


def _fast(content: Mapping[str, Any], path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    try:
        table = content.get("model", {}).get("vocab", {})
        if isinstance(table, list):  # Unigram: a list of [piece, score]
            if not all(isinstance(piece, list) and len(piece) == 2 for piece in table):
                raise _unreadable(path)
            table = {piece[0]: number for number, piece in enumerate(table)}
        found |= table
        found |= {token["content"]: token["id"] for token in content.get("added_tokens", [])}
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _unreadable(path) from error
    check_ids(found, path)
    return found


def _of_lines(path: Path, added: Mapping[str, int]) -> Vocabulary:
    try:
        lines = _whole(path).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        return Vocabulary(None, added, unread=f"{path} is no text ({error.reason})")
    if lines and not lines[-1]:
        lines.pop()
    return Vocabulary({line.rstrip("\r"): n for n, line in enumerate(lines)} | dict(added), added)


def _of_pieces(path: Path, added: Mapping[str, int]) -> Vocabulary:
    try:
        pieces = pieces_of(_whole(path))
    except ValueError as error:  # UnicodeDecodeError is one
        return Vocabulary(None, added, unread=f"{path} is no sentencepiece model ({error})")
    return Vocabulary({piece: n for n, piece in enumerate(pieces)} | dict(added), added)


def _whole(path: Path) -> bytes:
    refuse_leaving(path.parent, path)
    refuse_pointer(path)
    try:
        return read_regular(path, LARGEST)
    except OSError as error:
        todo = reading_remedy(error, "Fix its permissions, or fetch it again.")
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _added(folder: Path) -> dict[str, int]:
    """The tokens that were added to a vocabulary, as slow tokenizers note them."""
    found: dict[str, int] = {}
    try:
        config: Any = json_of(folder / "tokenizer_config.json")
        for number, token in (config.get("added_tokens_decoder") or {}).items():
            found[token["content"] if isinstance(token, Mapping) else str(token)] = int(number)
        for text, number in json_of(folder / "added_tokens.json").items():
            found.setdefault(text, _id(number))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FamilyError(
            f"{folder}: the added tokens in added_tokens.json or tokenizer_config.json cannot be "
            f"read ({error!r}). Fetch the files again."
        ) from error
    return found


def _id(number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(f"{number!r} is no id")
    return number


def json_of(path: Path) -> dict[str, Any]:
    """A JSON object of a folder; empty where there is no such file."""
    return dict(read_json(path)) if path.exists() else {}


def check_ids(vocabulary: Mapping[Any, Any], path: Path) -> None:
    """Tokens with whole numbers, or an error: what else a file may say is no vocabulary.

    Raises:
        FamilyError: it is none.
    """
    if not all(isinstance(t, str) and type(n) is int for t, n in vocabulary.items()):
        raise _unreadable(path)


def _unreadable(path: Path) -> FamilyError:
    return FamilyError(f"{path}: has no vocabulary that can be read. Fetch the file again.")
