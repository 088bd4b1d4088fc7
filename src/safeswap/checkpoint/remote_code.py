"""Code that a checkpoint brings along: found by reading its files, and run by nobody unasked.

``auto_map`` in a configuration names Python classes of the folder, or of another repository, for
transformers to import. A name with a slash where an implementation of attention is chosen stands
for a repository of compiled kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.checkpoint.source import read_json
from safeswap.errors import CheckpointError

CONFIGURATIONS = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "generation_config.json",
)
_IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")


def code_named_in(folder: Path) -> dict[str, str]:
    """The files of a checkpoint that name code → what they name, in words; none for most.

    Raises:
        CheckpointError: one of them cannot be read.
    """
    found = {}
    for name in CONFIGURATIONS:
        if (folder / name).is_file():
            named = _named(read_json(folder / name))
            if named:
                found[name] = named
    return found


def names_code(folder: Path) -> bool:
    """Whether any configuration of a checkpoint names classes of its own (``auto_map``); one that
    cannot be read names none.
    """
    try:
        return bool(code_named_in(folder))
    except CheckpointError:
        return False


def kernels_in(folder: Path) -> str | None:
    """The repository of kernels that config.json asks for, if it does."""
    path = folder / "config.json"
    return _kernels(read_json(path)) if path.is_file() else None


def _named(content: Mapping[str, Any], depth: int = 4) -> str:
    table = content.get("auto_map")
    if table:
        classes = table.values() if isinstance(table, Mapping) else [table]
        names = {name for one in classes for name in (one if isinstance(one, list) else [one])}
        return ", ".join(sorted(str(name)[:80] for name in names if name)[:3])
    inner = content.values() if depth else ()
    found = (_named(one, depth - 1) for one in inner if isinstance(one, Mapping))
    return next((name for name in found if name), "")


def _kernels(content: Mapping[str, Any], depth: int = 4) -> str | None:
    for key, value in content.items():
        if key.lstrip("_").removesuffix("_internal") in _IMPLEMENTATIONS and "/" in str(value):
            return str(value)[:80]  # a name, or a table of one for each part of the model
        if isinstance(value, Mapping):
            found = _kernels(value, depth - 1) if depth else None
            if found:
                return found
    return None
