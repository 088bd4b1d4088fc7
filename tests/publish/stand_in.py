"""A server that stands in for a hub that is written to: it speaks the API that its client uses.

Repositories, branches, preupload, LFS batch with basic and multipart uploads, commits as NDJSON.
What it keeps is what it was sent; who looks at it asks this object, and not safeswap.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

TOKEN = "hf_" + "TokenForTestsOnly" * 2


@dataclass
class Repo:
    """A repository: branch → commits, each a table from name to bytes, the newest last."""

    private: bool
    branches: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    card: dict[str, Any] | None = None

    def head(self, branch: str = "main") -> dict[str, bytes]:
        return self.branches[branch][-1][1]

    def commits(self, branch: str = "main") -> int:
        return len(self.branches[branch]) - 1  # the first is the empty one that it is made with


class WritableHub:
    """The stand-in.

    Attributes:
        repos: ``org/name`` → repository.
        objects: SHA-256 → bytes that were uploaded, committed or not.
        asked: (method, path) of all requests; ``tokens`` are their Authorization headers.
        before: called with method and path before each answer: a status, or (status, message), is
            answered in place of it; "drop" closes the connection; "late" answers and then drops
            the answer.
        accepts: the only value of Authorization that is let in.
        part_bytes: uploads above that many bytes come in parts.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[tuple[str, str | None]] = []
        self.before: Callable[[str, str], Any] = lambda method, path: None
        self.part_bytes = 1 << 30
        self.accepts = f"Bearer {TOKEN}"
        self.lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout, wbufsize = 20, 1 << 16  # one packet an answer

            def log_message(self, *arguments: Any) -> None:
                pass

            def answer(self) -> None:
                path = unquote(self.path.split("?")[0])
                body = self.body()
                with hub.lock:
                    hub.asked.append((self.command, path))
                    hub.tokens.append((path, self.headers.get("Authorization")))
                told = hub.before(self.command, path)
                if told == "drop":
                    self.close_connection = True
                    return
                if told and told != "late":
                    status, message = told if isinstance(told, tuple) else (told, "no")
                    return self.reply(status, {"error": message}, {"X-Error-Message": message})
                with hub.lock:
                    status, content, headers = hub.answer(
                        self.command, path, body, self.headers.get("Authorization")
                    )
                if told == "late":
                    self.close_connection = True
                    return
                self.reply(status, content, headers)

            do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                read = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    read += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return read

            def reply(self, status: int, content: Any, headers: dict[str, str]) -> None:
                raw = json.dumps(content).encode()
                self.send_response(status)
                for key, value in {**headers, "Content-Length": str(len(raw))}.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(raw)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def add(self, name: str, *, private: bool, files: dict[str, bytes] | None = None) -> Repo:
        """A repository that is there already."""
        made = Repo(private)
        made.branches["main"] = [(_oid("first"), {".gitattributes": b"", **(files or {})})]
        self.repos[name] = made
        return made

    def answer(
        self, method: str, path: str, body: bytes, token: str | None
    ) -> tuple[int, Any, dict[str, str]]:
        parts = path.strip("/").split("/")
        if parts[0] == "lfs":
            return self.upload(method, parts[1:], body)
        if token != self.accepts:
            return 401, {"error": "Invalid username or password."}, {}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if path.endswith(".git/info/lfs/objects/batch"):
            return 200, self.batch(json.loads(body)), {}
        if parts[:2] != ["api", "models"]:
            return 404, {"error": "not found"}, {}
        name, rest = "/".join(parts[2:4]), parts[4:]
        repo = self.repos.get(name)
        if repo is None:
            return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
        if not rest or rest[0] == "revision":
            return self.about(name, repo, rest[1] if rest else "main")
        branch = rest[1]
        if rest[0] == "branch":
            if branch in repo.branches:
                return 409, {"error": "Reference already exists"}, {}
            repo.branches[branch] = list(repo.branches["main"][-1:])
            return 201, {}, {}
        if branch not in repo.branches:
            return 404, {"error": "no branch"}, {"X-Error-Code": "RevisionNotFound"}
        if rest[0] == "preupload":
            return 200, self.modes(json.loads(body), repo.head(branch)), {}
        if rest[0] == "commit":
            return self.commit(repo, branch, body)
        return 404, {"error": "not found"}, {}

    def create(self, asked: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        name = f"{asked['organization']}/{asked['name']}"
        url = f"{self.url}/{name}"
        if name in self.repos:
            return 409, {"error": "You already created this model repo", "url": url}, {}
        self.add(name, private=asked.get("visibility") == "private")
        return 200, {"url": url, "name": name}, {}

    def about(self, name: str, repo: Repo, revision: str) -> tuple[int, Any, dict[str, str]]:
        every = {c[0]: c for commits in repo.branches.values() for c in commits}
        found = repo.branches[revision][-1] if revision in repo.branches else every.get(revision)
        if found is None:
            return 404, {"error": "no revision"}, {"X-Error-Code": "RevisionNotFound"}
        siblings = []
        for file, raw in found[1].items():
            entry: dict[str, Any] = {"rfilename": file, "size": len(raw), "blobId": _git(raw)}
            if _large(file):
                sha = hashlib.sha256(raw).hexdigest()
                entry["lfs"] = {"sha256": sha, "size": len(raw), "pointerSize": 130}
            siblings.append(entry)
        about = {"id": name, "sha": found[0], "private": repo.private, "siblings": siblings}
        about |= {"cardData": repo.card} if repo.card else {}
        return 200, about, {}

    def modes(self, asked: dict[str, Any], head: dict[str, bytes]) -> dict[str, Any]:
        files = []
        for one in asked["files"]:
            mode = "lfs" if _large(one["path"]) else "regular"
            entry = {"path": one["path"], "uploadMode": mode, "shouldIgnore": False}
            files.append(entry)
        return {"files": files}

    def batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for one in asked["objects"]:
            oid, size = one["oid"], one["size"]
            entry: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.objects:
                upload: dict[str, Any] = {"href": f"{self.url}/lfs/{oid}/whole?sig=SECRETSIG"}
                if size > self.part_bytes:
                    count = -(-size // self.part_bytes)
                    header = {str(n): f"{self.url}/lfs/{oid}/{n}" for n in range(1, count + 1)}
                    upload["header"] = {"chunk_size": str(self.part_bytes), **header}
                    upload["href"] = f"{self.url}/lfs/{oid}/complete"
                entry["actions"] = {"upload": upload}
            objects.append(entry)
        return {"transfer": "multipart", "objects": objects}

    def upload(self, method: str, parts: list[str], body: bytes) -> tuple[int, Any, dict[str, str]]:
        oid, what = parts
        if what == "complete":
            held = self.parts.pop(oid)
            given = [(one["partNumber"], one["etag"]) for one in json.loads(body)["parts"]]
            assert given == [(n, hashlib.md5(held[n]).hexdigest()) for n in sorted(held)]
            body = b"".join(held[n] for n in sorted(held))
        elif what != "whole":
            self.parts.setdefault(oid, {})[int(what)] = body
            return 200, {}, {"ETag": hashlib.md5(body).hexdigest()}
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "other bytes than announced"}, {}
        self.objects[oid] = body
        return 200, {}, {}

    def commit(self, repo: Repo, branch: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        parent, files = repo.branches[branch][-1]
        files = dict(files)
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, parent):
            return 412, {"error": "A commit has happened since"}, {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {"error": f"LFS pointer to nothing: {value['path']}"}, {}
                files[value["path"]] = self.objects[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        oid = _oid(f"{parent} {sorted(files)} {header['summary']}")
        repo.branches[branch].append((oid, files))
        made = {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/x/commit/{oid}"}
        return 200, made, {}

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _large(name: str) -> bool:
    return name.endswith((".safetensors", ".png"))


def _git(raw: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


def _oid(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


@contextmanager
def serving() -> Iterator[WritableHub]:
    """A hub for the time of the block."""
    hub = WritableHub()
    try:
        yield hub
    finally:
        hub.stop()
