"""Files on a web server, and on a hub, as origins of bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from safeswap.checkpoint.remote.fetch import CHANGED, WAY_OUT, TransientError, tried
from safeswap.checkpoint.remote.http import Client, blocks, is_gone, origin_of, refuse_status
from safeswap.errors import CheckpointError

_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})")


@dataclass
class WebFile:
    """A file at a URL.

    Attributes:
        client: what sends requests to it.
        url: with what secret query the address had; never shown.
        where: for messages.
        size: bytes.
        version: what the server says of its content (ETag, Last-Modified); empty if nothing.
        ranged: whether the server gives ranges.
        sha256: where the hub knows it.
        pinned: the address names its content (a commit of a hub): the version need not be
            compared, and servers to which requests are sent on have others.
    """

    client: Client
    url: str
    where: str
    size: int
    version: str
    ranged: bool = True
    sha256: str | None = None
    pinned: bool = False
    _located: str | None = field(default=None, repr=False)

    def stream(self, begin: int, end: int) -> Iterator[bytes]:
        """See ``Origin.stream``."""
        headers = {} if begin == 0 and end == self.size else ranged(begin, end)
        url = self._located or self.url
        with self.client.ask("GET", url, self.where, headers) as (response, final):
            if url != self.url and is_gone(response.status):  # a signed address that ran out
                self._located = None
                raise TransientError(f"the server says {response.status}", 0.0)
            if origin_of(final) != self.client.origin:
                self._located = final
            self._check(response, begin, end, bool(headers))
            try:
                yield from blocks(response)
            except CheckpointError as error:
                raise CheckpointError(f"{self.where}: {error}") from error

    def refuse_changed(self) -> None:
        """See ``Origin.refuse_changed``."""
        if self.pinned:
            return
        now = probe(self.client, self.url, self.where)
        if now is None or (now.size, now.version) != (self.size, self.version):
            raise CheckpointError(f"{self.where}: {CHANGED}")

    def _check(self, response: Any, begin: int, end: int, asked: bool) -> None:
        """Refuse an answer that is not the range of this very file.

        Raises:
            CheckpointError: another file, no range, or none at all.
        """
        if response.status in (412, 416):
            raise CheckpointError(f"{self.where}: {CHANGED}")
        if response.status not in (200, 206):
            refuse_status(response.status, self.where, login=self.client.authorization is not None)
        version = version_of(response)
        if not self.pinned and version != self.version:
            raise CheckpointError(f"{self.where}: {CHANGED}")
        if response.status == 200:
            if asked:
                raise CheckpointError(
                    f"{self.where}: the server gives no ranges any more. {WAY_OUT}"
                )
            length = _number(response.headers.get("Content-Length"))
            if length is not None and length != self.size:
                raise CheckpointError(f"{self.where}: {CHANGED}")
            return
        found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        first, last, size = map(int, found.groups()) if found else (-1, -1, -1)
        if size >= 0 and size != self.size:
            raise CheckpointError(f"{self.where}: {CHANGED}")
        if first != begin or not begin <= last < end:
            raise CheckpointError(
                f"{self.where}: the server gave another range than it was asked for. {WAY_OUT}"
            )


def ranged(begin: int, end: int) -> dict[str, str]:
    """The header that asks for bytes ``begin`` to ``end``."""
    return {"Range": f"bytes={begin}-{end - 1}"}


def version_of(response: Any) -> str:
    """What a server says of a file's content: its ETag, and when it was changed."""
    tag, when = (response.headers.get(name, "").strip() for name in ("ETag", "Last-Modified"))
    return "; ".join(text[:200] for text in (tag, when) if text)


def probe(client: Client, url: str, where: str) -> WebFile | None:
    """What a server says of a file, asked by its first bytes; None where it has none.

    Raises:
        CheckpointError: it may not be read, the server does not answer, or tells no size.
    """

    def ask() -> WebFile | None:
        with client.ask("GET", url, where, ranged(0, 8)) as (response, _):
            if response.status in (404, 410):
                return None
            version = version_of(response)
            if response.status == 206:
                found = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
                size = int(found[3]) if found else None
            elif response.status in (200, 416):  # an empty file has no first byte
                size = (
                    0 if response.status == 416 else _number(response.headers.get("Content-Length"))
                )
            else:
                refuse_status(response.status, where, login=client.authorization is not None)
            if size is None:
                raise CheckpointError(f"{where}: the server does not say how large it is.")
            return WebFile(client, url, where, size, version, ranged=response.status != 200)

    return tried(where, ask)


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,19}", text) else None
