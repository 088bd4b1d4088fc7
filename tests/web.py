"""A small web server on this machine, honest or not, for checkpoints at addresses."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class Asked:
    """One request: its path, range, and what it was authorized by; and how much was sent."""

    path: str
    query: str
    range: str | None
    authorization: str | None
    sent: int = 0


@dataclass
class Faults:
    """What the server does wrong; to files whose names end in ``of``."""

    of: str = ".safetensors"
    ranges: bool = True  # False: whole files whatever was asked for
    tags: bool = True  # False: nothing tells one content from another
    drop_after: int | None = None  # close the connection after so many bytes of a body
    truncate_after: int | None = None  # end a body early, and say so in Content-Length
    drops: int = 1 << 30  # how many times
    statuses: list[int] = field(default_factory=list)  # for the next requests
    retry_after: str | None = None
    redirect: dict[str, str] = field(default_factory=dict)  # end of a path → where to
    shift: int = 0  # answer with a range that begins so much later
    endless: bool = False  # the body goes on and on
    packed: bool = False  # says that the body is gzip
    pace: float = 0.0  # seconds between 64 KiB
    login: str | None = None  # refuse without this header


class Web:
    """Serves a folder of folders.

    Attributes:
        url: with a slash at its end.
        asked: the requests so far.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.faults = root, Faults()
        self.asked: list[Asked] = []
        self.read: dict[tuple[Path, int], tuple[bytes, str]] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5
            disable_nagle_algorithm = True

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                web.answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False  # connections that are kept open are not waited for

            def handle_error(self, *arguments: Any) -> None:
                pass  # a client that goes away is no news

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)

    def sent(self, of: str = ".safetensors") -> int:
        """Bytes of bodies that were sent of files so called."""
        return sum(one.sent for one in self.asked if one.path.endswith(of))

    def content(self, file: Path) -> tuple[bytes, str]:
        """A file's bytes and digest, read once as long as it is not touched."""
        key = (file, file.stat().st_mtime_ns)
        if key not in self.read:
            content = file.read_bytes()
            self.read[key] = content, hashlib.sha256(content).hexdigest()[:16]
        return self.read[key]

    def answer(self, handler: Any) -> None:
        path, _, query = handler.path.partition("?")
        name = unquote(path).lstrip("/")
        headers = handler.headers
        asked = Asked(name, query, headers.get("Range"), headers.get("Authorization"))
        self.asked.append(asked)
        faults, file = self.faults, self.root / name
        faulty = name.endswith(faults.of)
        for end, target in faults.redirect.items():
            if name.endswith(end):
                return self.head(handler, 302, 0, {"Location": target})
        if faults.login and asked.authorization != faults.login:
            return self.head(handler, 401, 0, {})
        if not file.is_file():
            return self.head(handler, 404, 0, {})
        if faulty and faults.statuses:
            more = {"Retry-After": faults.retry_after} if faults.retry_after else {}
            return self.head(handler, faults.statuses.pop(0), 0, more)
        content, tag = self.content(file)
        said = {"Content-Type": "application/octet-stream"}
        if faults.tags or not faulty:
            said["ETag"] = f'"{tag}"'
            said["Last-Modified"] = formatdate(file.stat().st_mtime, usegmt=True)
        if headers.get("If-None-Match") and headers["If-None-Match"] == said.get("ETag"):
            return self.head(handler, 304, 0, said)
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked.range or "")
        status, body = 200, content
        if match and faults.ranges:
            begin, end = int(match[1]), min(int(match[2]) + 1, len(content))
            if begin >= len(content):
                said["Content-Range"] = f"bytes */{len(content)}"
                return self.head(handler, 416, 0, said)
            begin += faults.shift if faulty else 0
            status, body = 206, content[begin:end]
            said["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
        if faulty and faults.packed:
            said["Content-Encoding"] = "gzip"
        self.body(handler, asked, status, body, said, faulty)

    def body(
        self, handler: Any, asked: Asked, status: int, body: bytes, said: dict[str, str], bad: bool
    ) -> None:
        faults, cut = self.faults, len(body)
        if bad and faults.drops and len(body) > 64:
            after = faults.drop_after if faults.drop_after is not None else faults.truncate_after
            if after is not None and after < len(body):
                cut, faults.drops = after, faults.drops - 1
        endless = bad and faults.endless and len(body) > 64
        shown = cut if faults.truncate_after is not None else len(body)
        self.head(handler, status, None if endless else shown, said)
        for at in range(0, cut, 1 << 16):
            handler.wfile.write(body[at : min(cut, at + (1 << 16))])
            asked.sent += min(cut, at + (1 << 16)) - at
            time.sleep(faults.pace)
        if endless:
            for _ in range(64):
                handler.wfile.write(b"\0" * (1 << 16))
                asked.sent += 1 << 16
            handler.close_connection = True
        if cut < len(body):
            handler.close_connection = True

    @staticmethod
    def head(handler: Any, status: int, length: int | None, said: dict[str, str]) -> None:
        handler.send_response(status)
        for key, value in said.items():
            handler.send_header(key, value)
        if length is not None:
            handler.send_header("Content-Length", str(length))
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()
