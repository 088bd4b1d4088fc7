"""Names that a judge's model goes by, what a local folder says of itself, and names of files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safeswap.io.jsonfile import load_json
from safeswap.io.regular import is_folder

APART = ("-prompt", "-thought")
"""How the names end of what is filed apart: verdicts on prompts and thoughts, not on answers."""


def names_of(spec: str) -> Iterator[str]:
    """Names that a spec may go by, the most telling first, in lower case with hyphens.

    A folder goes by what its configuration says, its own name, and in a hub cache
    (``models--ORG--NAME/snapshots/REVISION``) the name of the model's folder.
    """
    folder = Path(spec)
    if not is_folder(folder):
        yield _plain(spec)
        return
    told = json_in(folder / "config.json").get("_name_or_path")
    if isinstance(told, str):
        yield _plain(told)
    folder = folder.resolve()
    yield _plain(folder.name)
    if folder.parent.name == "snapshots":
        yield _plain(folder.parent.parent.name)


def file_name(name: str) -> str:
    """A name as one path component: letters, digits, dot, dash and underscore stay."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unnamed"


def _plain(name: str) -> str:
    return re.sub(r"[-_.:/\s\\]+", "-", name.lower())


def json_in(path: Path) -> dict[str, Any]:
    """The table in a JSON file; empty where none can be read, since a name only helps."""
    try:
        content = load_json(path, constants=True, names=False)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
