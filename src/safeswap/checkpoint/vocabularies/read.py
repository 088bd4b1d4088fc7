"""The tokens of a checkpoint's folder and their ids, from the files of fast and slow tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.checkpoint.digests import of_small_file
from safeswap.checkpoint.inside import refuse_leaving
from safeswap.checkpoint.loaded_names import LARGEST
from safeswap.checkpoint.source import read_json
from safeswap.checkpoint.vocabularies.byte_tokens import qwen_of, ranks_of, tekken_of
from safeswap.checkpoint.vocabularies.fairseq import fairseq_tokens, m2m_languages, tokenizer_class
from safeswap.checkpoint.vocabularies.pieces import pieces_of
from safeswap.errors import CheckpointError, ConfigError, FamilyError
from safeswap.io.files import reading_remedy, refuse_pointer
from safeswap.io.regular import read_regular

Tokens = Mapping[str, int]
"""Token → id."""

FAST, SLOW = "tokenizer.json", "vocab.json"
WORDPIECE = "vocab.txt"
PIECES = ("tokenizer.model", "spiece.model")
TEKKEN, QWEN, FAIRSEQ = "tekken.json", "qwen.tiktoken", "sentencepiece.bpe.model"
RANKS = ("tiktoken.model", "tokenizer.tiktoken")
CLOSED = (*PIECES, WORDPIECE, TEKKEN, QWEN, *RANKS, FAIRSEQ)
"""Compared byte by byte where their tokens are not read: a damaged file has none, and ids of
``sentencepiece.bpe.model`` are known for some tokenizers.
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
    """Find the tokens of a folder: in ``tokenizer.json``, else ``vocab.json``, ``vocab.txt``,
    ``tekken.json``, a sentencepiece model or a table of ranks, as their libraries would; with what
    ``tokenizer_config.json`` and ``added_tokens.json`` add.

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
        if tokenizer_class(*_settings(folder)) == "M2M100Tokenizer":
            plain = m2m_languages(plain, _languages(folder, added)) | plain
        return Vocabulary(added | plain, added)
    found = [*(n for n in _READERS if (folder / n).exists()), *_other_ranks(folder)]
    return _of_file(folder / found[0], added) if found else Vocabulary(None, added)


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


def _other_ranks(folder: Path) -> list[str]:
    """A table of ranks under a name of its own, where there is one only."""
    found = sorted(path.name for path in folder.glob("*.tiktoken"))
    return found if len(found) == 1 else []


def _of_file(path: Path, added: Tokens) -> Vocabulary:
    """The tokens of a file that its reader takes apart, and what was added to them."""
    kind, read = _READERS.get(path.name, _OTHER_RANKS)
    try:
        found = read(path)
    except UnicodeDecodeError as error:
        return Vocabulary(None, added, unread=f"{path} is no {kind} ({error.reason})")
    except ValueError as error:
        return Vocabulary(None, added, unread=f"{path} is no {kind} ({error})")
    return Vocabulary(found | dict(added), added)


def _of_lines(path: Path) -> dict[str, int]:
    lines = _whole(path).decode("utf-8").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return {line.rstrip("\r"): number for number, line in enumerate(lines)}


def _of_pieces(path: Path) -> dict[str, int]:
    """A sentencepiece model; some models' ``tokenizer.model`` is a table of ranks (GLM-4)."""
    raw = _whole(path)
    try:
        return {piece: number for number, piece in enumerate(pieces_of(raw))}
    except ValueError:
        try:
            return ranks_of(raw)
        except ValueError:
            pass
        raise


def _of_ranks(path: Path) -> dict[str, int]:
    return ranks_of(_whole(path))


def _of_qwen(path: Path) -> dict[str, int]:
    return qwen_of(_whole(path))


def _of_tekken(path: Path) -> dict[str, int]:
    return tekken_of(read_json(path))


def _of_fairseq(path: Path) -> dict[str, int]:
    kind = tokenizer_class(*_settings(path.parent))
    languages = _languages(path.parent, _added(path.parent))
    return fairseq_tokens(pieces_of(_whole(path)), kind, languages)


_OTHER_RANKS = ("table of ranks", _of_ranks)
_READERS: Mapping[str, tuple[str, Callable[[Path], dict[str, int]]]] = {
    WORDPIECE: ("text", _of_lines),
    TEKKEN: ("tokenizer of Mistral's", _of_tekken),
    **dict.fromkeys(PIECES, ("sentencepiece model", _of_pieces)),
    QWEN: ("table of ranks", _of_qwen),
    **dict.fromkeys(RANKS, _OTHER_RANKS),
    FAIRSEQ: ("sentencepiece model whose ids are known", _of_fairseq),
}
"""Files in the order in which they are looked for: what each is, and what reads it."""


def _settings(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    return json_of(folder / "tokenizer_config.json"), json_of(folder / "config.json")


def _languages(folder: Path, added: Tokens) -> list[str]:
    """The codes of languages that a folder lists among its special tokens; none where their ids
    are stated: then they are read from there.
    """
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        content = json_of(folder / name)
        for key in ("additional_special_tokens", "extra_special_tokens"):
            listed = content.get(key)
            if isinstance(listed, list) and listed:
                texts = [t.get("content") if isinstance(t, Mapping) else t for t in listed]
                known = [text for text in texts if isinstance(text, str)]
                return [] if any(text in added for text in known) else list(dict.fromkeys(known))
    return []


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
