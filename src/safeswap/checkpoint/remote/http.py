"""HTTP as this package speaks it: ranges, redirects that leak nothing, answers that may lie.

What belongs to one host (``Authorization``) is sent to that scheme, host and port and nowhere else,
whatever a redirect says. From https nothing leads to http, and from elsewhere nothing to this
machine. Certificates are checked, proxies are those of the environment.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError, SSLError

from safeswap.checkpoint.remote.address import is_loopback
from safeswap.checkpoint.remote.fetch import CONNECTIONS, TransientError, seconds_of
from safeswap.display import without_password
from safeswap.errors import CheckpointError
from safeswap.io.address import split_login
from safeswap.version import __version__

TIMEOUT = urllib3.Timeout(connect=15.0, read=30.0)
REDIRECTS = 6
BLOCK = 1 << 18
_AGAIN = {408, 425, 429, 500, 502, 503, 504}
_REDIRECT = {301, 302, 303, 307, 308}
_GONE = {401, 403, 404, 410}


class MissingError(Exception):
    """There is no such file, as far as the server says (404, 410; 403 as buckets say it)."""


class Client:
    """Requests to one origin, and to where it redirects.

    Attributes:
        authorization: sent to that origin alone.
    """

    def __init__(self, url: str, authorization: str | None = None) -> None:
        self.origin = origin_of(url)
        self.authorization = authorization

    @contextmanager
    def ask(
        self, method: str, url: str, where: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[tuple[Any, str]]:
        """Send a request and follow redirects.

        Args:
            where: the address for messages, without secrets.

        Returns:
            urllib3's response, its body unread, and the URL that it came from.

        Raises:
            TransientError: the connection failed, or the server says to try again.
            CheckpointError: a redirect that is not followed, a certificate that is not good.
        """
        response = None
        try:
            for _ in range(REDIRECTS + 1):
                response = self._send(method, url, where, headers or {})
                if response.status not in _REDIRECT:
                    break
                target = self._target(url, response.headers.get("Location"), where)
                _close(response)
                response, url = None, target
            if response is None:
                raise CheckpointError(
                    f"{where}: is redirected more than {REDIRECTS} times. Give the address that "
                    "it leads to."
                )
            if response.status in _AGAIN:
                wait = seconds_of(response.headers.get("Retry-After"))
                raise TransientError(f"the server says {response.status}", wait)
            yield response, url
        finally:
            if response is not None:
                _close(response)

    def _send(self, method: str, url: str, where: str, headers: Mapping[str, str]) -> Any:
        sent = {"Accept-Encoding": "identity", "User-Agent": f"safeswap/{__version__}", **headers}
        if self.authorization and origin_of(url) == self.origin:
            sent["Authorization"] = self.authorization
        try:
            return _pool(url).request(
                method,
                url,
                headers=sent,
                preload_content=False,
                redirect=False,
                retries=False,
                timeout=TIMEOUT,
            )
        except HTTPError as error:
            raise _of_transport(error, where) from error

    @staticmethod
    def _target(url: str, location: str | None, where: str) -> str:
        """Where a redirect leads, if that is followed.

        Raises:
            CheckpointError: nowhere, to another scheme, or to this machine from another.
        """
        target = split_login(urljoin(url, location or ""))[0]
        try:
            old, new = urlsplit(url), urlsplit(target)
        except ValueError:
            new = urlsplit("")
        shown = without_password(target).partition("?")[0]
        if not location or new.scheme not in ("http", "https") or not new.hostname:
            raise CheckpointError(f"{where}: is redirected to no address. Check the server.")
        if old.scheme == "https" and new.scheme == "http":
            raise CheckpointError(
                f"{where}: is redirected from https to {shown}, which is not encrypted, and is "
                "not followed. Give that address yourself if you trust it."
            )
        if is_loopback(new.hostname) and not is_loopback(old.hostname):
            raise CheckpointError(
                f"{where}: is redirected to this machine ({shown}), and is not followed."
            )
        return target


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what a secret is for."""
    parts = urlsplit(url)
    port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    return parts.scheme.lower(), (parts.hostname or "").lower(), port


def blocks(response: Any) -> Iterator[bytes]:
    """The body as it comes.

    Raises:
        TransientError: the connection broke off, or nothing came for long.
        CheckpointError: the body is packed, although that was not asked for.
    """
    coding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise CheckpointError(
            f"the server packs what it sends ({coding[:20]}) although that was not asked for, so "
            "that ranges mean nothing. Switch that off at the server for these files."
        )
    try:
        while block := response.read1(BLOCK, decode_content=False):
            yield block
    except (HTTPError, OSError) as error:
        raise TransientError(f"the connection broke off ({type(error).__name__})") from error


def whole(response: Any, limit: int, where: str) -> bytes:
    """The whole body of a small file.

    Raises:
        TransientError: it ended early.
        CheckpointError: it is larger than ``limit`` bytes.
    """
    found, said = bytearray(), response.headers.get("Content-Length", "")
    for block in blocks(response):
        found += block
        if len(found) > limit:
            raise CheckpointError(
                f"{where}: is larger than {limit} bytes, which no file of its kind is."
            )
    if said.isascii() and said.isdigit() and int(said) != len(found):
        raise TransientError(f"the answer had {len(found)} of {said} bytes")
    return bytes(found)


def refuse_status(status: int, where: str, *, login: bool) -> None:
    """What an answer that is neither content nor worth another try means.

    Args:
        login: a token or password was sent.

    Raises:
        CheckpointError: says what.
    """
    if status in (401, 403):
        todo = "Check that the account may read it." if login else "Give the login that it needs."
        raise CheckpointError(f"{where}: may not be read (the server says {status}). {todo}")
    if status in (404, 410):
        raise CheckpointError(f"{where}: is not there. Check the address.")
    raise CheckpointError(f"{where}: the server says {status}. Check the address.")


def is_gone(status: int) -> bool:
    """Whether a signed address that a redirect gave may have run out."""
    return status in _GONE


def _of_transport(error: HTTPError, where: str) -> Exception:
    inner = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(inner, SSLError) and "certificate" in str(inner).lower():
        return CheckpointError(
            f"{where}: its certificate is not good ({str(inner)[:200]}). SSL_CERT_FILE names the "
            "certificates that are trusted."
        )
    if isinstance(inner, LocationValueError):
        return CheckpointError(f"{where}: is no address ({str(inner)[:200]}).")
    return TransientError(f"no connection ({type(inner).__name__})")


def _close(response: Any) -> None:
    """Let the connection go: back to the pool where all was read, else closed."""
    if getattr(response, "length_remaining", None) == 0:
        response.drain_conn()  # of nothing, but it is not done before it has seen the end
        response.release_conn()
    else:
        response.close()


_lock = threading.Lock()


def _pool(url: str) -> Any:
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and proxy_bypass(parts.netloc):
        proxy = None
    with _lock:
        return _manager(os.getpid(), proxy)


@cache
def _manager(process: int, proxy: str | None) -> Any:
    """Connections that are kept; a forked process makes its own."""
    options: dict[str, Any] = {"num_pools": 16, "maxsize": CONNECTIONS, "block": False}
    if proxy is None:
        return urllib3.PoolManager(**options)
    address, login = split_login(proxy if "://" in proxy else f"http://{proxy}")
    headers = {"Proxy-Authorization": login} if login else None
    return urllib3.ProxyManager(address, proxy_headers=headers, **options)
