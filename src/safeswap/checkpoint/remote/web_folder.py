"""A folder on a web server: it cannot be listed, so known names are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from safeswap.checkpoint.loaded_names import LARGEST, companion_names
from safeswap.checkpoint.remote.address import Address
from safeswap.checkpoint.remote.cache import cache_folder
from safeswap.checkpoint.remote.fetch import CONNECTIONS, tried
from safeswap.checkpoint.remote.http import Client, refuse_status, whole
from safeswap.checkpoint.remote.web import WebFile, probe
from safeswap.errors import CheckpointError
from safeswap.io.files import write_atomically

_CONFIGS = ("config.json", "adapter_config.json")


class WebFolder:
    """A folder of a web server, as a store."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._client = Client(address.root, address.login)

    def companions(self) -> dict[str, bytes]:
        """See ``Store.companions``."""
        names = [*_CONFIGS, *(n for n in companion_names() if n not in _CONFIGS)]
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = dict(zip(names, pool.map(self._get, names), strict=True))
        found = {name: said for name, said in answers.items() if isinstance(said, bytes)}
        if not any(name in found for name in _CONFIGS):
            for name in _CONFIGS:
                said = answers[name]
                if isinstance(said, int) and said not in (404, 410):
                    login = self._client.authorization is not None
                    refuse_status(said, self._where(name), login=login)
        return found

    def look(self, names: Iterable[str]) -> Mapping[str, WebFile]:
        """See ``Store.look``."""
        asked = list(names)
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            answers = pool.map(
                lambda name: probe(self._client, self._url(name), self._where(name)), asked
            )
            return {n: one for n, one in zip(asked, answers, strict=True) if one is not None}

    def _where(self, name: str) -> str:
        return f"{self._address.text}{name}"

    def _url(self, name: str) -> str:
        query = f"?{self._address.query}" if self._address.query else ""
        return f"{self._address.root}{quote(name)}{query}"

    def _get(self, name: str) -> bytes | int:
        """A small file's content, or what the server says instead. What came before is kept, and
        asked for only if it changed since.
        """
        url, where = self._url(name), self._where(name)
        kept = _Kept(url)

        def ask() -> bytes | int:
            with self._client.ask("GET", url, where, kept.headers) as (response, _):
                if response.status == 304 and kept.content is not None:
                    return kept.content
                if response.status != 200:
                    return int(response.status)
                kind = response.headers.get("Content-Type", "")
                if kind.startswith("text/html") and not name.endswith(".html"):
                    return 404  # a page that says so, or asks to log in
                content = whole(response, LARGEST, where)
                kept.save(content, response.headers)
                return content

        return tried(where, ask)


class _Kept:
    """A small file as it came the last time: a line of JSON, then its bytes."""

    def __init__(self, url: str) -> None:
        # the name of the file does not show a query that may be a secret
        self._path: Path = cache_folder() / "small" / hashlib.sha256(url.encode()).hexdigest()[:32]
        self.headers: dict[str, str] = {}
        self.content: bytes | None = None
        with suppress(OSError, ValueError, KeyError, TypeError):
            head, _, content = self._path.read_bytes().partition(b"\n")
            said = json.loads(head)
            if hashlib.sha256(content).hexdigest() == said["sha256"]:
                self.headers, self.content = dict(said["headers"]), content

    def save(self, content: bytes, headers: Mapping[str, str]) -> None:
        """Keep it, where the server says what tells whether it changed; as well as can be."""
        asked = {"If-None-Match": headers.get("ETag")}
        if not asked["If-None-Match"]:
            asked = {"If-Modified-Since": headers.get("Last-Modified")}
        if not all(asked.values()):
            return
        head = {"headers": asked, "sha256": hashlib.sha256(content).hexdigest()}
        with suppress(OSError, CheckpointError):
            self._path.parent.mkdir(exist_ok=True)
            write_atomically(self._path, json.dumps(head).encode() + b"\n" + content)
