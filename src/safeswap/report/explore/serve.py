"""The explorer on this machine's own address, under a path that nobody guesses."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from safeswap.errors import ConfigError
from safeswap.profile import Profile
from safeswap.report.explore.write import explorer

HOST = "127.0.0.1"


def serve_explorer(
    profile: Profile,
    *,
    port: int = 0,
    ready: Callable[[str], None] = lambda address: None,
    **options: Any,
) -> None:
    """Serve the page on loopback until the process is interrupted.

    Args:
        port: of the address; 0 for one that is free.
        ready: told the page's address once it is served.
        options: as of `safeswap.report.explore.write.explorer`.

    Raises:
        ConfigError: the port is taken.
        SafeswapError: as `write_explorer`.
    """
    text = explorer(profile, **options)
    try:
        server = PageServer(text, port)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--port {port}: cannot be listened on ({error}). Leave it out, and a free one is "
            "taken; or write a file with --out explore.html."
        ) from error
    with server, suppress(KeyboardInterrupt):  # which is how it ends
        ready(server.address)
        server.serve_forever(poll_interval=0.1)


class PageServer(ThreadingHTTPServer):
    """One page at one address: whoever does not know its path sees nothing.

    Attributes:
        address: of the page, with the path.
    """

    daemon_threads = True

    def __init__(self, text: str, port: int = 0) -> None:
        self.body = text.encode()
        self.path = f"/{secrets.token_urlsafe(24)}/"
        super().__init__((HOST, port), _Handler)
        self.hosts = tuple(f"{name}:{self.server_port}" for name in (HOST, "localhost"))
        self.address = f"http://{self.hosts[0]}{self.path}"

    def server_bind(self) -> None:
        """Bind, and ask nobody what this machine is called, which the class above does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away half way is no error."""
        if not isinstance(sys.exception(), (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD of the page, asked for by this machine's own name; refuses all else."""

    server: PageServer
    server_version = "safeswap"
    sys_version = ""
    timeout = 30.0
    """Seconds until one that says nothing, or takes nothing, is let go."""

    def do_GET(self) -> None:
        """The page."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Its headers."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        # another name for this address is a page elsewhere that has it resolve here
        known = self.headers.get("Host") in self.server.hosts
        asked = secrets.compare_digest(self.path.encode(), self.server.path.encode())
        if not (known and asked):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.send_response(HTTPStatus.OK)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(self.server.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the path is a secret."""
