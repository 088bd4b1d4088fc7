"""What the tests of pushing share: the verb, and what a hub shows afterwards."""

from __future__ import annotations

import os
from pathlib import Path

from click.testing import CliRunner, Result
from stand_in import WritableHub

from safeswap.cli import main


def call(*given: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in given])


def shown(hub: WritableHub, repo: str = "me/safe", branch: str = "main") -> dict[str, bytes]:
    """What a reader sees of a repository, but for git's own file."""
    return {n: raw for n, raw in hub.repos[repo].head(branch).items() if n != ".gitattributes"}


def fetched(hub: WritableHub, folder: Path, repo: str = "me/safe") -> Path:
    folder.mkdir()
    for name, raw in shown(hub, repo).items():
        (folder / name).write_bytes(raw)
    return folder


def settings(endpoint: str) -> dict[str, str]:
    """The environment of a process of its own, with this hub."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    return environment | {"HF_HUB_DISABLE_TELEMETRY": "1"}
