"""Do the experts speak with one tokenizer? Compared as files; nothing of a checkpoint is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.checkpoint.source import read_json
from safeswap.errors import CheckpointError, FamilyError, listed

_READ = ("tokenizer.json", "vocab.json")
_CLOSED = ("tokenizer.model", "spiece.model", "vocab.txt", "tekken.json", "qwen.tiktoken")
_ALIGN = "Aligning vocabularies is not supported yet; use an expert with the base's tokenizer."

Vocabulary = Mapping[str, int]


def has_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint's folder holds a vocabulary."""
    return any((folder / name).exists() for name in (*_READ, *_CLOSED))


def compare_tokenizers(folders: Mapping[str, Path], base: str) -> list[str]:
    """What a user should know of the members' tokenizers and chat templates, in a line each.

    Args:
        folders: role → folder.
        base: the role that all others are compared with; what two experts add is compared too.

    Raises:
        FamilyError: one id means two tokens, one token has two ids, or the vocabularies are of a
            format that is not read and differ.
    """
    vocabularies = {role: _vocabulary(folder) for role, folder in folders.items()}
    experts = [role for role in folders if role != base]
    notes = []
    for number, role in enumerate(experts):
        theirs = vocabularies[role]
        for other in (base, *experts[:number]):
            if theirs is not None and vocabularies[other] is not None:
                _refuse_conflict(theirs, role, vocabularies[other] or {}, other)
        notes += _vocabulary_notes(theirs, vocabularies[base], folders[role], folders[base], role)
    return notes + _template_notes(folders, experts)


def _refuse_conflict(theirs: Vocabulary, role: str, ours: Vocabulary, other: str) -> None:
    whose = f"{other} expert's" if other != "base" else "base's"
    for token, number in theirs.items():
        if ours.get(token, number) != number:
            raise FamilyError(
                f"{role} expert: its tokenizer gives {token!r} the id {number}, the {whose} gives "
                f"{ours[token]}. {_ALIGN}"
            )
    by_id = {number: token for token, number in ours.items()}
    for token, number in theirs.items():
        if by_id.get(number, token) != token:
            raise FamilyError(
                f"{role} expert: id {number} is {token!r} in its tokenizer and {by_id[number]!r} "
                f"in the {whose}. {_ALIGN}"
            )


def _vocabulary_notes(
    theirs: Vocabulary | None, ours: Vocabulary | None, expert: Path, base: Path, role: str
) -> list[str]:
    if theirs is not None and ours is not None:
        added = [token for token in theirs if token not in ours]
        lacking = [token for token in ours if token not in theirs]
        notes = [f"{role}: its tokenizer adds {listed(map(repr, added))}"] if added else []
        return notes + (
            [f"{role}: its tokenizer lacks {listed(map(repr, lacking))}"] if lacking else []
        )
    if theirs is None and ours is None:
        both = [name for name in _CLOSED if (expert / name).exists() and (base / name).exists()]
        for name in both:
            if (expert / name).read_bytes() != (base / name).read_bytes():
                raise FamilyError(
                    f"{role} expert: {expert / name} differs from the base's, and no "
                    f"tokenizer.json says how. {_ALIGN}"
                )
        if both:
            return []
    return [f"{role}: tokenizer not compared (no tokenizer.json or vocab.json on both sides)"]


def _vocabulary(folder: Path) -> Vocabulary | None:
    vocabulary: dict[str, int] = {}
    if (folder / "tokenizer.json").exists():
        content: Any = read_json(folder / "tokenizer.json")
        try:
            table = content.get("model", {}).get("vocab", {})
            if isinstance(table, list):  # Unigram: a list of [piece, score]
                table = {piece[0]: number for number, piece in enumerate(table)}
            vocabulary |= table
            vocabulary |= {t["content"]: t["id"] for t in content.get("added_tokens", [])}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise _unreadable(folder / "tokenizer.json") from error
        return _checked(vocabulary, folder / "tokenizer.json")
    if (folder / "vocab.json").exists():
        plain: Any = read_json(folder / "vocab.json")
        return _checked(plain, folder / "vocab.json")
    return None


def _checked(vocabulary: Mapping[Any, Any], path: Path) -> Vocabulary:
    """Tokens with whole numbers, or an error: what else a file may say is no vocabulary."""
    if not all(isinstance(t, str) and type(n) is int for t, n in vocabulary.items()):
        raise _unreadable(path)
    return vocabulary


def _unreadable(path: Path) -> FamilyError:
    return FamilyError(f"{path}: has no vocabulary that can be read. Fetch the file again.")


def _template_notes(folders: Mapping[str, Path], experts: list[str]) -> list[str]:
    """Chat templates are no weights: the donor's goes along, whatever the others were trained on.

    An expert that was trained on another template may follow the output's less well.
    """
    templates = {role: _template(folders[role]) for role in experts}
    known = {role: text for role, text in templates.items() if text}
    if len(set(known.values())) < 2:
        return []
    return [
        f"the chat templates of {' and '.join(known)} differ; the output gets its donor's, and "
        "what an expert learned with another one may show less"
    ]


def _template(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    try:
        if file.exists():
            return file.read_text(encoding="utf-8").strip()
        if (folder / "tokenizer_config.json").exists():
            said = read_json(folder / "tokenizer_config.json").get("chat_template")
            return None if said is None else str(said).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}). Fetch it again.") from error
    return None
