"""Do the experts speak with one tokenizer? Compared as files; nothing of a checkpoint is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.checkpoint.source import read_json
from safeswap.checkpoint.vocabularies.align import Alignment, check_overlap
from safeswap.checkpoint.vocabularies.read import (
    CLOSED,
    FILES,
    Tokens,
    Vocabulary,
    json_of,
    read_vocabularies,
)
from safeswap.errors import CheckpointError, FamilyError, listed

_ALIGN = (
    "Rows are matched by token only where all members have a tokenizer.json (or the files of a "
    "slow tokenizer) and matrices as high as their config.json says. Use such folders; "
    "AutoTokenizer.from_pretrained(…).save_pretrained writes a tokenizer.json."
)
_FORCE = (
    "Use an expert that was trained with the base's tokenizer, or put the right one into its "
    "folder; --force (force=True) merges all the same."
)
_SAME_TEXT = "the output has its donor's, and what an expert learned with another may show less"
_FREE = frozenset(
    (
        *(
            "chat_template",
            "added_tokens_decoder",
            "model_max_length",
            "padding_side",
            "max_length",
        ),
        *("truncation_side", "padding", "truncation", "truncation_strategy", "stride", "pad_token"),
        *("name_or_path", "tokenizer_file", "special_tokens_map_file", "use_fast", "auto_map"),
        *("processor_class", "tokenizer_class", "additional_special_tokens", "pad_to_multiple_of"),
        *("extra_special_tokens", "backend", "is_local", "errors", "vocab_size", "_commit_hash"),
        *("model_input_names", "local_files_only", "cache_dir", "pad_token_type_id", "vocab_file"),
        *(
            "return_tensors",
            "transformers_version",
            "image_token",
            "response_schema",
            "merges_file",
        ),
        *("clean_up_tokenization_spaces", "max_len", "from_slow", "sp_model_kwargs", "tokens_trie"),
    )
)
"""Keys of tokenizer_config.json that change no ids of a text, or that are compared elsewhere."""
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "cls_token", "mask_token")


def has_tokenizer(folder: Path) -> bool:
    """Whether a checkpoint's folder holds a vocabulary."""
    return any((folder / name).exists() for name in FILES)


def compare_tokenizers(
    folders: Mapping[str, Path],
    base: str,
    *,
    read: Mapping[str, Vocabulary] | None = None,
    alignment: Alignment | None = None,
    force: bool = False,
) -> list[str]:
    """What a user should know of the members' tokenizers and chat templates, in a line each.

    Args:
        folders: role → folder.
        base: the role that all others are compared with; what two experts add is compared too.
        read: role → its vocabulary, where that was read before.
        alignment: how rows are matched by token, where they are; then a token may have another id
            in each member.
        force: note what is refused otherwise: vocabularies that do not correspond, and one
            vocabulary that cuts a text into other tokens.

    Raises:
        FamilyError: one id means two tokens or one token has two ids and rows cannot be matched,
            the vocabularies are of a format that is not read and differ, they do not correspond,
            or a text becomes other tokens.
    """
    read = read or read_vocabularies(folders)
    experts = [role for role in folders if role != base]
    notes = []
    for number, role in enumerate(experts):
        for other in (base, *experts[:number]) if alignment is None else ():
            _refuse_conflict(*_comparable(read[role], read[other]), role, other)
        theirs, ours = read[role], read[base]
        if theirs.tokens is None and ours.tokens is None and (theirs.added or ours.added):
            notes += _changes(theirs.added, ours.added, role)
        notes += _vocabulary_notes(theirs, ours, folders[role], folders[base], role)
        known = theirs.tokens is not None and ours.tokens is not None
        same = not known or {*(theirs.tokens or ())} == {*(ours.tokens or ())}
        steps = _steps(folders[role], theirs), _steps(folders[base], ours)
        fast = [one.fast is not None for one in (theirs, ours)]
        who = f"{role} expert {folders[role]}"
        if known or fast[0] == fast[1]:
            notes += _cut_notes(steps, fast, who, same=same, force=force)
        notes += _setting_notes(folders[role], folders[base], role)
    if alignment is not None:
        called = {role: f"{role} expert {folder}" for role, folder in folders.items()}
        notes += check_overlap(alignment.tokens, called, force=force)
    return notes + _template_notes(folders, experts)


def _comparable(one: Vocabulary, two: Vocabulary) -> tuple[Tokens, Tokens]:
    if one.tokens is not None and two.tokens is not None:
        return one.tokens, two.tokens
    return one.added, two.added


def _refuse_conflict(theirs: Tokens, ours: Tokens, role: str, other: str) -> None:
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
    theirs: Vocabulary, ours: Vocabulary, expert: Path, base: Path, role: str
) -> list[str]:
    if theirs.tokens is not None and ours.tokens is not None:
        changes = _changes(theirs.tokens, ours.tokens, role)
        slow = theirs.fast is None and ours.fast is None
        return changes or (_closed_notes(expert, base, role) if slow else [])
    if theirs.tokens is None and ours.tokens is None:
        both = [name for name in CLOSED if (expert / name).exists() and (base / name).exists()]
        for name in both:
            if (expert / name).read_bytes() != (base / name).read_bytes():
                why = f" ({theirs.unread or ours.unread})" if theirs.unread or ours.unread else ""
                raise FamilyError(
                    f"{role} expert: {expert / name} differs from the base's, and no "
                    f"tokenizer.json says how{why}. {_ALIGN}"
                )
        if both:
            return []
    return [f"{role}: tokenizer not compared (no tokenizer.json or vocab.json on both sides)"]


def _closed_notes(expert: Path, base: Path, role: str) -> list[str]:
    """The same tokens in files that are not the same: what else they say is not read."""
    both = [name for name in CLOSED if (expert / name).exists() and (base / name).exists()]
    return [
        f"{role}: its {name} has the base's tokens and differs from the base's in what else it "
        f"says (scores, patterns, normalisation): a text may become other tokens; {_SAME_TEXT}"
        for name in both
        if (expert / name).read_bytes() != (base / name).read_bytes()
    ]


def _changes(theirs: Tokens, ours: Tokens, role: str) -> list[str]:
    added = [token for token in theirs if token not in ours]
    lacking = [token for token in ours if token not in theirs]
    notes = [f"{role}: its tokenizer adds {listed(map(repr, added))}"] if added else []
    return notes + (
        [f"{role}: its tokenizer lacks {listed(map(repr, lacking))}"] if lacking else []
    )


def _cut_notes(
    steps: Sequence[Mapping[str, Any]],
    fast: Sequence[bool],
    who: str,
    *,
    same: bool,
    force: bool,
) -> list[str]:
    """How a text is cut into tokens, apart from which tokens there are.

    Args:
        steps: the expert's and the base's.
        fast: whether each of the two has a tokenizer.json.
    """
    theirs, ours = steps
    role = who.partition(" ")[0]
    notes, refused = [], []
    keys = {*theirs, *ours} if theirs and ours else set()
    if fast[0] != fast[1]:
        keys &= {*theirs} & {*ours}  # merges.txt says merges, and nothing of other steps
        notes.append(
            f"{role}: how its tokenizer cuts a text is compared by {listed(sorted(keys)) or 'none'}"
            " of its steps: only one of it and the base has a tokenizer.json"
        )
    for key in sorted(keys):
        one, two = ours.get(key), theirs.get(key)
        if one == two or (key in _PIECES and (one is None or two is None)):
            continue
        shown = _where_apart(two, one)
        if key in _PIECES and not same:  # with more tokens come more merges
            notes.append(f"{role}: its tokenizer's {key} are not the base's: {shown}")
        elif key in _PIECES or key == "model.type":
            refused.append(
                f"its tokenizer's {key} is not the base's: {shown}; with the same vocabulary a "
                "text becomes other tokens"
            )
        else:
            notes.append(
                f"{role}: its tokenizer's {key} is not the base's: {shown}; a text may become "
                f"other tokens; {_SAME_TEXT}"
            )
    if refused and not force:
        raise FamilyError(f"{who}: {'; '.join(refused)}. {_FORCE}")
    return [f"{role}: {text}" for text in refused] + notes


_PIECES = ("model.merges", "model.scores")


def _steps(folder: Path, read: Vocabulary) -> dict[str, Any]:
    """What cuts texts: the parts of tokenizer.json, or the merges beside a vocab.json."""
    steps: dict[str, Any] = {}
    if read.fast is not None:
        content: Any = read.fast
        model = content.get("model")
        for key, value in (model if isinstance(model, Mapping) else {}).items():
            if value not in (None, False, ""):
                steps[f"model.{key}"] = value
        table = steps.pop("model.vocab", None)
        if isinstance(table, list):
            steps["model.scores"] = {piece[0]: _rounded(piece[1]) for piece in table}
        for key in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            if content.get(key) is not None:
                steps[key] = content[key]
    elif (folder / "merges.txt").exists():
        try:
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"{folder / 'merges.txt'}: cannot be read ({error}). Fetch it again."
            ) from error
        steps["model.merges"] = [line for line in lines if line and not line.startswith("#version")]
    if "model.merges" in steps:  # as texts or as pairs, as the writer pleased
        steps["model.merges"] = [
            pair if isinstance(pair, str) else " ".join(map(str, pair))
            for pair in steps["model.merges"]
        ]
    steps.pop("model.dropout", None)
    return steps


def _rounded(score: Any) -> Any:
    return round(score, 6) if isinstance(score, float) else score


def _where_apart(two: Any, one: Any) -> str:
    """Both values, or of two long ones the first part that differs."""
    if isinstance(one, list) and isinstance(two, list):
        at = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
        if at is None:
            return f"{len(two)} entries, the base has {len(one)}"
        return f"entry {at} is {_short(two[at])}, the base has {_short(one[at])}"
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        key = next(k for k in (*one, *two) if one.get(k) != two.get(k))
        return f"{key!r} is {_short(two.get(key))}, the base has {_short(one.get(key))}"
    return f"{_short(two)}, the base has {_short(one)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _setting_notes(expert: Path, base: Path, role: str) -> list[str]:
    """What tokenizer_config.json says of how texts become ids, where both folders have one."""
    files = [folder / "tokenizer_config.json" for folder in (expert, base)]
    if not all(file.exists() for file in files):
        return []
    theirs, ours = (json_of(file) for file in files)
    notes = []
    for key in sorted({*theirs, *ours} - _FREE):
        two, one = theirs.get(key), ours.get(key)
        if key in _SPECIAL:  # as a text, or as a table with it
            two, one = (v.get("content") if isinstance(v, Mapping) else v for v in (two, one))
        if one == two or not (one or two):
            continue
        notes.append(
            f"{role}: tokenizer_config.json says {key} = {_short(two)}, the base says "
            f"{_short(one)}; {_SAME_TEXT}"
        )
    return notes


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
