"""A small stand-in for Cloud Storage's JSON API, on this machine: listing, objects, ranges."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Gcs:
    """Serves the objects of one bucket.

    Attributes:
        objects: key → (generation, content).
        failing: statuses of the next requests for content.
        page: objects on a page of a listing.
    """

    def __init__(self, bucket: str) -> None:
        self.bucket, self.page = bucket, 3
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.failing: list[int] = []
        self.ranges: list[str | None] = []
        gcs = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 5
            disable_nagle_algorithm = True

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                gcs.answer(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def put(self, key: str, content: bytes) -> None:
        before = self.objects.get(key, (100, b""))[0]
        self.objects[key] = before + 1, content

    def answer(self, handler: Any) -> None:
        url = urlsplit(handler.path)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        match = re.fullmatch(r"(/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", url.path)
        if match is None or match[2] != self.bucket:
            return self.send(handler, 404, b'{"error": {"code": 404, "message": "none"}}')
        if match[3] is None:
            return self.send(handler, 200, json.dumps(self.listing(asked)).encode())
        key = unquote(match[3])
        generation, content = self.objects.get(key, (0, b""))
        if not generation or str(asked.get("generation", generation)) != str(generation):
            return self.send(handler, 404, b'{"error": {"code": 404, "message": "none"}}')
        if asked.get("alt") != "media" and not match[1]:
            return self.send(handler, 200, json.dumps(self.entry(key)).encode())
        self.ranges.append(handler.headers.get("Range"))
        if self.failing:
            return self.send(handler, self.failing.pop(0), b"")
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("Range") or "")
        if not found:
            return self.send(handler, 200, content)
        begin, end = int(found[1]), min(int(found[2]) + 1, len(content))
        said = {"Content-Range": f"bytes {begin}-{end - 1}/{len(content)}"}
        return self.send(handler, 206, content[begin:end], said)

    def listing(self, asked: dict[str, str]) -> dict[str, Any]:
        before, mark = asked.get("prefix", ""), asked.get("delimiter", "")
        keys = sorted(key for key in self.objects if key.startswith(before))
        folders = set()
        if mark:
            deeper = [key for key in keys if mark in key[len(before) :]]
            folders = {before + k[len(before) :].partition(mark)[0] + mark for k in deeper}
            keys = [key for key in keys if key not in deeper]
        at = int(asked.get("pageToken", 0))
        found: dict[str, Any] = {"kind": "storage#objects", "prefixes": sorted(folders)}
        found["items"] = [self.entry(key) for key in keys[at : at + self.page]]
        if at + self.page < len(keys):
            found["nextPageToken"] = str(at + self.page)
        return found

    def entry(self, key: str) -> dict[str, Any]:
        generation, content = self.objects[key]
        return {
            "kind": "storage#object",
            "name": key,
            "bucket": self.bucket,
            "size": str(len(content)),
            "generation": str(generation),
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }

    @staticmethod
    def send(handler: Any, status: int, content: bytes, said: dict[str, str] | None = None) -> None:
        handler.send_response(status)
        for key, value in {"Content-Type": "application/json", **(said or {})}.items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)
