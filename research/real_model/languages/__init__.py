"""What a study needs to know of each language: names of files, wordings of tasks, example chats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def language(code: str) -> dict[str, Any]:
    """The YAML of a language as it stands."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{code}.yaml").read_text("utf-8"))
    return found
