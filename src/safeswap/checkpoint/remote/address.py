"""Addresses of checkpoints: ``https://host/folder/``, ``s3://``, ``gs://``, ``hf://ORG/NAME@REV``.

An address may hold a secret: a user with a password, or a signed query. It is taken out where the
address comes in; what is shown and kept (`Address.text`) never had it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Literal
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from safeswap.display import without_password
from safeswap.errors import CheckpointError, nearest
from safeswap.io.address import split_login

Kind = Literal["hub", "web", "s3", "gs"]
SCHEMES = ("https", "hf", "s3", "gs", "http")
"""What may stand before ``://``; plain ``http`` too, where the user typed it."""
_FORMS = "https://HOST/FOLDER/, s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or hf://ORG/NAME@REVISION"
_NAME = re.compile(r"[\w.-]+")
_REVISION = re.compile(r"[\w.-]+(/[\w.-]+)*")
# S3: lower case letters, digits, dots and hyphens; Cloud Storage allows underscores too
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_UNFIT = re.compile(r"[\x00-\x20\x7f-\x9f\\]")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a checkpoint lies.

    Attributes:
        kind: ``hub``, ``web`` (http and https), ``s3`` or ``gs``.
        text: what is shown and kept, and opens it again: without login and query.
        root: of a hub ``org/name``; of the web the folder's URL with a slash at its end; of a
            bucket ``bucket/folder`` without one.
        revision: of a hub, where one was given.
        login: what ``Authorization`` says, where the address held a user and a password.
        query: what stood after ``?``: it goes to every file of the folder.
    """

    kind: Kind
    text: str
    root: str
    revision: str | None = None
    login: str | None = field(default=None, repr=False)
    query: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """A short public name: ``org/name`` of a hub, else the last part of the path."""
        if self.kind == "hub":
            return self.root
        return unquote(self.root.rstrip("/").rpartition("/")[2])


def parse_address(text: str) -> Address | None:
    """Take an address apart; nothing is asked of the network.

    Args:
        text: what a user or a file says.

    Returns:
        None where it is none: a local path, or a hub id without a scheme.

    Raises:
        CheckpointError: an unknown scheme, or an address that no checkpoint can have.
    """
    scheme, found, rest = text.partition("://")
    if not found or not re.fullmatch(r"[A-Za-z][\w+.-]*", scheme):
        return None
    shown = without_password(text).partition("?")[0]
    if _UNFIT.search(text):
        raise _bad(shown, "has a space, a backslash or a control character in it")
    kind = scheme.lower()
    if kind == "hf":
        return _hub(shown, rest)
    if kind in ("s3", "gs"):
        return _bucket(shown, "s3" if kind == "s3" else "gs", rest)
    if kind in ("https", "http"):
        return _web(shown, text)
    if kind == "file":
        raise CheckpointError(f"{shown}: give a local folder by its path, without file://.")
    known = nearest(kind, SCHEMES).rstrip("?")
    raise CheckpointError(f"{shown}: nothing is read from {kind}://{known}. Give {_FORMS}.")


def is_loopback(host: str | None) -> bool:
    """Whether a host is this very machine, by its name or number alone."""
    if host is None or host.lower() == "localhost":
        return host is not None
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _bad(shown: str, what: str) -> CheckpointError:
    return CheckpointError(f"{shown}: {what}. Give {_FORMS}.")


def _hub(shown: str, rest: str) -> Address:
    """``hf://org/name``, ``hf://org/name@revision``; ``hf://models/org/name`` likewise."""
    rest = rest.rstrip("/")
    if rest.count("/") >= 2 and rest.startswith("models/"):
        rest = rest.removeprefix("models/")
    name, at, revision = rest.partition("@")
    parts = name.split("/")
    revision = unquote(revision)
    if len(parts) != 2 or not all(map(_is_name, parts)) or parts[0] in ("datasets", "spaces"):
        raise _bad(shown, "names no model of a hub (hf://ORG/NAME or hf://ORG/NAME@REVISION)")
    if at and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise _bad(shown, f"{revision!r} is no revision (a branch, a tag or a commit)")
    kept = f"hf://{name}" + (f"@{quote(revision, safe='')}" if at else "")
    return Address("hub", kept, name, revision or None)


def _is_name(part: str) -> bool:
    return bool(_NAME.fullmatch(part)) and part.strip(".") != ""


def _bucket(shown: str, kind: Literal["s3", "gs"], rest: str) -> Address:
    bucket, _, path = rest.partition("/")
    path = path.rstrip("/")
    if not _BUCKET.fullmatch(bucket):
        raise _bad(shown, f"{bucket[:80]!r} is no name of a bucket")
    if any(mark in rest for mark in "?#*"):
        raise _bad(shown, "?, # and * are not read in addresses of buckets")
    if path and any(part.strip(".") == "" for part in path.split("/")):
        raise _bad(shown, "its path has an empty part or one of dots")
    root = f"{bucket}/{path}" if path else bucket
    return Address(kind, f"{kind}://{root}", root)


def _web(shown: str, text: str) -> Address:
    url, login = split_login(text)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a port that is none raises
    except ValueError as error:
        raise _bad(shown, f"is no address ({error})") from error
    if not host:
        raise _bad(shown, "names no host")
    if parts.fragment or url.endswith("#"):
        raise _bad(shown, "a fragment (#) names no folder")
    path = unquote(parts.path)
    if any(part in (".", "..") for part in path.split("/")) or _UNFIT.search(path.replace(" ", "")):
        raise _bad(shown, "its path leads out of where it begins")
    secret = login is not None or bool(parts.query)
    if parts.scheme.lower() == "http" and secret and not is_loopback(host):
        raise _bad(shown, "would send its password or key unencrypted; use https")
    folder = SplitResult(parts.scheme.lower(), parts.netloc, f"{parts.path.rstrip('/')}/", "", "")
    root = urlunsplit(folder)
    return Address("web", root, root, login=login, query=parts.query)
