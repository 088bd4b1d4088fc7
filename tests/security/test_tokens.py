"""Tokens go to the configured hub alone, and what only a file names is not asked at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from safeswap.checkpoint.source import refuse_foreign
from safeswap.errors import CheckpointError
from tiny import make_trio, swap

TOKEN = "hf_" + "s" * 34


class Host:
    """Has nothing, and remembers who asked for what with which authorization."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                host.asked.append((self.path, self.headers.get("Authorization")))
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_HEAD(self) -> None:
                self.do_GET()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """The configured hub, and another host."""
    both = Host(), Host()
    yield both
    for host in both:
        host.server.shutdown()
        host.server.server_close()


def run(hub: Host, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN}
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-m", "safeswap", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    return make_trio(tmp_path / "trio")


def experts(trio: dict[str, Path]) -> list[str]:
    return ["--safety", str(trio["safety"]), "--language", f"sw={trio['sw']}"]


def test_an_address_of_the_users_is_asked_without_the_token(
    hosts: tuple[Host, Host], trio: dict[str, Path], tmp_path: Path
) -> None:
    hub, other = hosts
    done = run(
        hub, tmp_path / "home", "merge", f"{other.url}/org/base", *experts(trio),
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 1 and other.asked and not hub.asked
    assert {authorization for _, authorization in other.asked} == {None}


def test_the_configured_hub_gets_it_by_id_and_by_address(
    hosts: tuple[Host, Host], trio: dict[str, Path], tmp_path: Path
) -> None:
    hub, other = hosts
    for base in ("org/base", f"{hub.url}/org/base"):
        hub.asked.clear()
        out = str(tmp_path / "out")
        run(hub, tmp_path / "home", "merge", base, *experts(trio), "--out", out)
        assert {authorization for _, authorization in hub.asked} == {f"Bearer {TOKEN}"}
    assert not other.asked


def named_by_files(out: Path, url: str, trio: dict[str, Path], folder: Path) -> list[list[str]]:
    """Command lines whose files, and nothing else, name the address."""
    here = str(trio["base"])
    for file in (out / "safeswap.json", out / "safeswap-plan.yaml"):
        file.write_text(file.read_text().replace(here, url))
    plan, to = str(out / "safeswap-plan.yaml"), str(folder / "to")
    kit = folder / "kit.yaml"
    models = "".join(
        f"  - model: {trio[r]}\n    parameters: {{weight: 1}}\n" for r in ("safety", "sw")
    )
    kit.write_text(f"merge_method: task_arithmetic\nbase_model: {url}\nmodels:\n{models}")
    sweep, search = folder / "sweep.yaml", folder / "search.yaml"
    named = f"base: {url}\nsafety: {trio['safety']}\nlanguages: {{sw: {trio['sw']}}}\nsuite: mgsm\n"
    sweep.write_text(named + "grid: {share-difference: {}}\n")
    search.write_text(named)
    return [
        ["verify", str(out)],
        ["merge", "--plan", plan, "--out", to],
        ["convert", plan, "--to", "mergekit"],
        ["convert", str(kit), "--from", "mergekit", *experts(trio)],
        ["sweep", str(sweep), "--out", to],
        ["search", str(search), "--out", to],
    ]


def test_what_only_a_file_names_is_not_asked(
    hosts: tuple[Host, Host], trio: dict[str, Path], tmp_path: Path
) -> None:
    hub, other = hosts
    out = swap(trio, tmp_path / "out")
    for line in named_by_files(out, f"{other.url}/org/base", trio, tmp_path):
        done = run(hub, tmp_path / "home", *line)
        assert done.returncode != 0 and "Traceback" not in done.stderr, (line, done.stderr)
        assert not other.asked and not hub.asked, line
        assert "configured hub" in done.stderr, done.stderr
    done = run(hub, tmp_path / "home", "verify", str(out), "--allow-remote")
    assert done.returncode == 1 and {how for _, how in other.asked} == {None}
    other.asked.clear()
    done = run(hub, tmp_path / "home", "verify", str(out), "--base", str(trio["base"]))
    assert done.returncode == 0 and not other.asked, done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "https://evil.example/org/name",
        "https://huggingface.co@evil.example/org/name",
        "https://huggingface.co.evil.example/org/name",
        "http://huggingface.co/org/name",
        "https://huggingface.co:444/org/name",
        "ftp://huggingface.co/org/name",
        "https://evil.example",
        "file:///etc/passwd",
    ],
)
def test_addresses_that_look_like_the_hub_are_not_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://huggingface.co")
    with pytest.raises(CheckpointError, match="not on the configured hub"):
        refuse_foreign(text, "plan.yaml")
    refuse_foreign("https://huggingface.co/org/name", "plan.yaml")
    refuse_foreign("org/name@v1", "plan.yaml")
