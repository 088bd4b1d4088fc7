"""Checkpoints from a hub: a small server stands in for it, on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from safeswap.checkpoint.source import _split, pinned
from safeswap.plan import Plan

COMMIT = "c0ffee" + "0" * 34
OLDER = "beef00" + "0" * 34
STRAY = (
    "pytorch_model.bin",
    "model-q4.gguf",
    "optimizer.pt",
    "original/consolidated.00.pth",
    "consolidated.safetensors",
    "onnx/model.safetensors",
)


class Hub:
    """Serves folders as `org/NAME`, and keeps a list of what was asked for."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.asked: list[str] = []
        self.broken = ""
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
                    tree = [self.entry(file, path) for file, path in files.items()]
                    return self.send(200, json.dumps(tree).encode(), {}, body)
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


@pytest.fixture
def hub(trio: dict[str, Path]) -> Iterator[Hub]:
    for folder in trio.values():
        for name in STRAY:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"never to be fetched")
    served = Hub(trio)
    yield served
    served.stop()


def run(hub: Hub, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-m", "safeswap", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | more,
        check=False,
    )


def merge(
    hub: Hub, home: Path, out: Path, prefix: str = "org/", suffix: str = "", **more: str
) -> Any:
    experts = ["--safety", f"{prefix}safety{suffix}", "--language", f"sw={prefix}sw{suffix}"]
    options = ["--out", str(out), "--no-figure"]
    return run(hub, home, "merge", f"{prefix}base{suffix}", *experts, *options, **more)


def test_a_merge_from_hub_ids_fetches_what_it_needs_and_works_offline(
    hub: Hub, tmp_path: Path
) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    done = merge(hub, home, out)
    assert done.returncode == 0, done.stderr
    fetched = {path for path in hub.asked if "/resolve/" in path}
    assert any(path.endswith(".safetensors") for path in fetched)
    assert not [path for path in fetched if path.endswith(STRAY)]
    manifest = json.loads((out / "safeswap.json").read_text())
    record = manifest["profile"]["inputs"]["base"]
    assert (record["name"], record["revision"]) == ("org/base", COMMIT)
    assert all(file["sha256"] for file in record["files"])
    hub.stop()
    again = merge(hub, home, tmp_path / "again", HF_HUB_OFFLINE="1")
    assert again.returncode == 0, again.stderr
    for file in out.glob("*.safetensors"):
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    checked = run(hub, home, "verify", str(out), HF_HUB_OFFLINE="1")
    assert checked.returncode == 0, checked.stderr
    nothing = merge(hub, tmp_path / "other", tmp_path / "none", HF_HUB_OFFLINE="1")
    assert nothing.returncode == 1 and "cannot be reached" in nothing.stderr
    assert "Traceback" not in nothing.stderr and not (tmp_path / "none").exists()


def test_urls_and_revisions_name_the_hub_and_the_version(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = merge(hub, home, tmp_path / "pinned", suffix="@v1")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "pinned" / "safeswap.json").read_text())["profile"]["inputs"]
    assert {role: entry["revision"] for role, entry in record.items()} == dict.fromkeys(
        record, OLDER
    )
    # the URL alone says which hub: the environment names one that nobody answers at
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    done = merge(hub, home, tmp_path / "url", prefix=f"{hub.url}/org/", **nowhere)
    assert done.returncode == 0, done.stderr
    # and so does the plan, which verify and the next merge open the inputs by
    plan = Plan.load(tmp_path / "url" / "safeswap-plan.yaml")
    assert plan.inputs["sw"].source == f"{hub.url}/org/sw/tree/{COMMIT}"
    options = ["--out", str(tmp_path / "again"), "--no-figure"]
    plan_file = str(tmp_path / "url" / "safeswap-plan.yaml")
    asked = len(hub.asked)
    for verb in (["verify", str(tmp_path / "url")], ["merge", "--plan", plan_file, *options]):
        refused = run(hub, home, *verb, **nowhere)  # only the file names this host
        assert refused.returncode == 1 and "--allow-remote" in refused.stderr, refused.stderr
        assert len(hub.asked) == asked
        done = run(hub, home, *verb, "--allow-remote", **nowhere)
        assert done.returncode == 0, done.stderr


def test_what_the_hub_does_not_have_is_refused(hub: Hub, tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    for base, words in (
        ("org/absent", ("org/absent", "no such folder", "Check")),
        ("org/base@absent", ("org/base@absent", "revision", "Check")),
        ("org/base", ("org/base", "Check", "connection")),
    ):
        hub.broken = "" if "absent" in base else "00002.safetensors"
        experts = ["--safety", "org/safety", "--language", "sw=org/sw"]
        refused = run(hub, home, "merge", base, *experts, "--out", str(out))
        assert refused.returncode == 1, refused.stderr
        assert "Traceback" not in refused.stderr
        assert all(word in refused.stderr for word in words), refused.stderr
        assert not out.exists()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("org/name", (None, "org/name", None)),
        ("org/name@v1", (None, "org/name", "v1")),
        ("org/name@refs/pr/1", (None, "org/name", "refs/pr/1")),
        ("https://hub.example/org/name", ("https://hub.example", "org/name", None)),
        ("https://hub.example/org/name/tree/v1/", ("https://hub.example", "org/name", "v1")),
        (
            "https://hub.example/org/name/tree/refs%2Fpr%2F1",
            ("https://hub.example", "org/name", "refs/pr/1"),
        ),
        ("https://hub.example/name", (None, None, None)),
        ("a/b/c", (None, None, None)),
        ("name", (None, None, None)),
    ],
)
def test_hub_ids_and_urls_are_taken_apart(text: str, wanted: tuple[str | None, ...]) -> None:
    assert _split(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("org/name", "org/name@c0ffee"),
        ("org/name@v1", "org/name@c0ffee"),
        ("https://hub.example/org/name", "https://hub.example/org/name/tree/c0ffee"),
        ("http://[::1]:8/org/name/tree/v1", "http://[::1]:8/org/name/tree/c0ffee"),
    ],
)
def test_what_opens_a_checkpoint_again_names_hub_and_commit(text: str, wanted: str) -> None:
    assert pinned(text, "org/name", "c0ffee") == wanted
    assert _split(wanted)[1:] == ("org/name", "c0ffee")
