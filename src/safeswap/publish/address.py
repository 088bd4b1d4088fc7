"""Where an output goes: a folder on this disk, a folder in a bucket, or a repository of a hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from safeswap.checkpoint.remote.address import parse_address
from safeswap.display import without_password
from safeswap.errors import CheckpointError, ConfigError, nearest

_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "file": "file", "memory": "memory"}
"""What is typed → what it is called from then on."""
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHAPE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(frozen=True, slots=True)
class BucketFolder:
    """A folder in a bucket.

    Attributes:
        scheme: ``s3``, ``gs``, or another that fsspec knows.
        path: bucket and folder, ``bucket/a/b``.
    """

    scheme: str
    path: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}"


@dataclass(frozen=True, slots=True)
class HubRepo:
    """A repository of models on the configured hub."""

    name: str

    def __str__(self) -> str:
        return self.name


def is_address(text: str | Path) -> bool:
    """Whether a text has a scheme; a path has none."""
    return isinstance(text, str) and _SHAPE.match(text) is not None


def bucket_folder(text: str, option: str = "--out") -> BucketFolder:
    """The folder in a bucket that an address names.

    Args:
        option: what it was given with, for the message.

    Raises:
        ConfigError: another scheme, a login or a query in it, or no folder.
    """
    shown = without_password(text)
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("none://")
    scheme = parts.scheme.lower()
    if scheme in ("hf", "https", "http"):
        raise ConfigError(
            f"{option} {shown}: is not written to directly. For a hub, merge into a folder and add "
            "--push-to-hub ORG/NAME (or: safeswap push OUT --to ORG/NAME)."
        )
    if scheme not in _SCHEMES:
        known = [f"{name}://" for name in ("s3", "gs", "file")]
        raise ConfigError(f"{option} {shown}: unknown scheme{nearest(f'{scheme}://', known)}")
    if "@" in parts.netloc:
        raise ConfigError(
            f"{option} {shown}: holds a login, which others could see. Leave it out: keys come "
            "from the environment or the usual files of your cloud's own tools."
        )
    if parts.query or parts.fragment:
        raise ConfigError(f"{option} {shown}: has a ? or # in it. Give bucket and folder alone.")
    folders = [part for part in parts.path.split("/") if part]
    local = _SCHEMES[scheme] == "file"
    if any(part in (".", "..") for part in folders) or (local and parts.netloc):
        raise ConfigError(f"{option} {shown}: no such place. Write it without . and .. and host.")
    if not folders or not (parts.netloc or local or scheme == "memory"):
        raise ConfigError(f"{option} {shown}: names no folder. Give one: {scheme}://BUCKET/FOLDER.")
    whole = [parts.netloc, *folders] if parts.netloc else folders
    found = BucketFolder(_SCHEMES[scheme], ("/" if local else "") + "/".join(whole))
    if found.scheme in ("s3", "gs"):  # what a bucket may be called is what can be read again
        try:
            parse_address(str(found))
        except CheckpointError as error:
            raise ConfigError(f"{option} {error}") from error
    return found


def target(text: str, option: str = "--to") -> BucketFolder | HubRepo:
    """A folder in a bucket, or a repository of the configured hub.

    Raises:
        ConfigError: it is neither.
    """
    if text.lower().startswith("hf://"):
        text = text[5:].removeprefix("models/").rstrip("/")
    if is_address(text) and not text.lower().startswith(("http://", "https://")):
        return bucket_folder(text, option)
    return hub_repo(text, option)


def hub_repo(text: str, option: str = "--push-to-hub") -> HubRepo:
    """A repository by its id.

    Raises:
        ConfigError: no id of one.
    """
    name, _, revision = text.partition("@")
    if revision and _REPO.fullmatch(name):
        raise ConfigError(f"{option} {text}: give the branch with --revision {revision}.")
    if not _REPO.fullmatch(text) or ".." in text or "--" in text or text.endswith((".git", "-")):
        raise ConfigError(
            f"{option} {without_password(text)}: is no repository of a hub. Give ORG/NAME, of "
            "letters, digits, - _ and . (another hub than the public one: set HF_ENDPOINT), or "
            "s3://BUCKET/FOLDER."
        )
    return HubRepo(text)
