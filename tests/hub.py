"""A small server that stands in for a hub of models, on this machine."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
OLDER = "beef00" + "0" * 34


class Hub:
    """Serves folders as `org/NAME`.

    Attributes:
        asked: the paths so far; `authorizations` are their headers.
        broken: files whose name ends so break off.
        elsewhere: the address of another host, to which requests for files are sent on.
        store: the address of a host that holds the weights, to which requests for them are sent
            on as hubs do: ``store/NAME/FILE?Signature=…``.
        page: files on a page of a listing.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self.asked: list[str] = []
        self.authorizations: list[str | None] = []
        self.broken = ""
        self.elsewhere = ""
        self.store = ""
        self.page = 1000
        self.ranges: list[str | None] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, body: bool) -> None:
                path = unquote(self.path.split("?")[0]).strip("/")
                hub.asked.append(path)
                hub.authorizations.append(self.headers.get("Authorization"))
                if hub.elsewhere and path.startswith("org/"):
                    to = {"Location": f"{hub.elsewhere}{self.path}"}
                    return self.send(302, b"", to, body)
                parts = path.split("/")
                api = parts[:2] == ["api", "models"]
                org, name, *rest = parts[2:] if api else parts
                folder = folders.get(name) if org == "org" else None
                if folder is None or len(rest) < 2:
                    return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
                revision = {"main": COMMIT, COMMIT: COMMIT, "v1": OLDER, OLDER: OLDER}.get(rest[1])
                if revision is None:
                    return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
                files = {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}
                if api and rest[0] == "revision":
                    siblings = [{"rfilename": file} for file in files]
                    about = {"id": f"org/{name}", "sha": revision, "siblings": siblings}
                    return self.send(200, json.dumps(about).encode(), {}, body)
                if api and rest[0] == "tree":
                    tree = [self.entry(file, path) for file, path in sorted(files.items())]
                    at = int((parse_qs(urlsplit(self.path).query).get("cursor") or ["0"])[0])
                    more = {}
                    if at + hub.page < len(tree):
                        following = f"{hub.url}/{path}?cursor={at + hub.page}"
                        more = {"Link": f'<{following}>; rel="next"'}
                    shown = tree[at : at + hub.page]
                    return self.send(200, json.dumps(shown).encode(), more, body)
                file = files.get("/".join(rest[2:]))
                if file is None:
                    return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
                content = file.read_bytes()
                large = file.suffix == ".safetensors"
                digest = (hashlib.sha256 if large else hashlib.sha1)(content).hexdigest()
                headers = {"ETag": f'"{digest}"', "X-Repo-Commit": revision}
                if body and hub.broken and file.name.endswith(hub.broken):
                    self.close_connection = True
                    return None
                if large and hub.store:
                    to = f"{hub.store}{name}/{file.name}?Signature=hush"
                    return self.send(302, b"", headers | {"Location": to}, body)
                if body and large:
                    hub.ranges.append(self.headers.get("Range"))
                match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
                if match:
                    begin, end = int(match[1]), min(int(match[2]) + 1, len(content))
                    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
                    return self.send(206, content[begin:end], headers, body)
                return self.send(200, content, headers, body)

            def entry(self, name: str, path: Path) -> dict[str, Any]:
                content = path.read_bytes()
                found = {"type": "file", "path": name, "size": len(content)}
                found["oid"] = hashlib.sha1(content).hexdigest()
                if path.suffix == ".safetensors":
                    oid = hashlib.sha256(content).hexdigest()
                    found["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 100}
                return found

            def send(
                self, status: int, content: bytes, headers: dict[str, str], body: bool
            ) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if body:
                    self.wfile.write(content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
