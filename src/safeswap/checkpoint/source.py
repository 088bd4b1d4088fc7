"""Where a checkpoint comes from: a local folder, a hub id (``org/name@revision``) or its URL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from safeswap.errors import CheckpointError

_SMALL_FILES = (
    "*.json",
    "*.txt",
    "*.model",
    "*.jinja",
    "*.py",
    "LICENSE*",
    "NOTICE*",
    "*.tiktoken",
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Source:
    """A resolved checkpoint.

    Attributes:
        text: what the user typed.
        folder: the local folder that now holds its files.
        hub_id: ``org/name`` when it came from a hub, else None.
        revision: the commit on the hub, else None.
    """

    text: str
    folder: Path
    hub_id: str | None = None
    revision: str | None = None

    @property
    def name(self) -> str:
        """A short public name: the hub id, or the folder's own name (never a machine's path)."""
        return self.hub_id or self.folder.name


def resolve(text: str | Path) -> Source:
    """Find a checkpoint; from a hub, fetch only the files that are needed (none when cached).

    Args:
        text: a local folder, ``org/name``, ``org/name@revision`` or ``https://hub/org/name``.

    Raises:
        CheckpointError: there is no such folder, hub id or revision, or the hub cannot be reached
            and nothing is cached.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        return Source(str(text), folder.resolve())
    if folder.exists():
        raise CheckpointError(
            f"{text}: is a file. Give the folder that holds config.json and the weights."
        )
    endpoint, hub_id, revision = _split(str(text))
    if hub_id is None:
        raise CheckpointError(
            f"{text}: there is no such folder, and it is not a hub id (org/name or "
            "org/name@revision). Check the path."
        )
    return _from_hub(str(text), hub_id, revision, endpoint)


def _split(text: str) -> tuple[str | None, str | None, str | None]:
    if "://" in text:
        url = urlsplit(text)
        parts = [part for part in url.path.split("/") if part]
        revision = parts[3] if len(parts) > 3 and parts[2] in ("tree", "resolve") else None
        if len(parts) < 2:
            return None, None, None
        return f"{url.scheme}://{url.netloc}", "/".join(parts[:2]), revision
    name, _, revision = text.partition("@")
    return None, name if _HUB_ID.fullmatch(name) else None, revision or None


def _from_hub(text: str, hub_id: str, revision: str | None, endpoint: str | None) -> Source:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    api = HfApi(endpoint=endpoint)

    def fetch(patterns: Iterable[str]) -> Path:
        path = api.snapshot_download(hub_id, revision=revision, allow_patterns=list(patterns))
        return Path(path)

    try:
        folder = fetch(_SMALL_FILES)
        for weights in (("*.safetensors",), ("pytorch_model*.bin",)):
            folder = fetch((*_SMALL_FILES, *weights))
            if any(folder.glob(weights[0])):
                break
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{text}: no such folder here, not in the local hub cache, and the hub cannot be "
            "reached. Check the path, or download it first while online."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise CheckpointError(
            f"{text}: the hub refused it ({first_line}). Check the id and revision; gated models "
            "need `hf auth login` and an accepted licence."
        ) from error
    return Source(text, folder, hub_id, folder.name)


def known_sha256(path: Path) -> str | None:
    """The sha256 of a file of the hub's cache, which names large files by it; None elsewhere."""
    target = path.resolve().name if path.is_symlink() else ""
    return target if _SHA256.fullmatch(target) else None


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a checkpoint's folder.

    Raises:
        CheckpointError: missing, unreadable, or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent}: has no {path.name}. Give the folder of a transformers checkpoint."
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}). Fetch the file again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: is not a JSON object. Fetch the file again.")
    return content
