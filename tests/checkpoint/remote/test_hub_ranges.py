"""``hf://``: weights by ranges from a stand-in of the hub, and the host that it sends on to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub import COMMIT, OLDER, Hub
from tiny import swap
from web import Web

TOKEN = "hf_s3cret"


@pytest.fixture
def hub(trio: dict[str, Path]) -> Iterator[Hub]:
    served = Hub(trio)
    served.page = 2
    yield served
    served.stop()


@pytest.fixture
def store(hub: Hub, web: Web) -> Web:
    """The host that has the weights."""
    hub.store = web.url
    return web


def run(hub: Hub, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
    environment |= {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "NO_PROXY": "127.0.0.1"}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": TOKEN}
    return subprocess.run(
        [sys.executable, "-m", "safeswap", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment | more,
        check=False,
    )


def merge(hub: Hub, home: Path, out: Path, *options: str, suffix: str = "", **more: str) -> Any:
    experts = ["--safety", f"hf://org/safety{suffix}", "--language", f"sw=hf://org/sw{suffix}"]
    given = [f"hf://org/base{suffix}", *experts, "--out", str(out), "--no-figure", *options]
    return run(hub, home, "merge", *given, **more)


def weights_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


def test_a_merge_by_ranges_keeps_the_token_to_the_hub_and_the_weights_out_of_its_cache(
    hub: Hub, store: Web, trio: dict[str, Path], tmp_path: Path
) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    done = merge(hub, home, out)
    assert done.returncode == 0, done.stderr
    assert weights_of(out) == weights_of(swap(trio, tmp_path / "local"))
    assert set(hub.authorizations) == {f"Bearer {TOKEN}"}
    assert {one.authorization for one in store.asked} == {None}
    assert not list(home.rglob("*.safetensors"))
    manifest = json.loads((out / "safeswap.json").read_text())
    record = manifest["profile"]["inputs"]["base"]
    assert (record["name"], record["revision"]) == ("org/base", COMMIT)
    assert all(len(file["sha256"]) == 64 for file in record["files"])
    assert manifest["plan"]["inputs"]["base"]["source"] == f"hf://org/base@{COMMIT}"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and home not in path.parents]
    kept = b"".join(path.read_bytes() for path in files)
    assert not any(word.encode() in kept for word in (TOKEN, "Signature", "hush"))
    asked = len(store.asked)
    checked = run(hub, home, "verify", str(out))
    assert checked.returncode == 0, checked.stderr
    # a plan may name it; the pieces are kept, and a commit does not change
    options = ["--out", str(tmp_path / "again"), "--no-figure"]
    again = run(hub, home, "merge", "--plan", str(out / "safeswap-plan.yaml"), *options)
    assert again.returncode == 0, again.stderr
    assert len(store.asked) == asked


def test_a_revision_and_whole_files(hub: Hub, trio: dict[str, Path], tmp_path: Path) -> None:
    home, out = tmp_path / "home", tmp_path / "out"
    done = merge(hub, home, out, "--download", suffix="@v1")
    assert done.returncode == 0, done.stderr
    assert (home / "hub/models--org--base/snapshots" / OLDER / "config.json").exists()
    assert list(home.rglob("model-00001-of-00002.safetensors"))
    hub.asked.clear()
    again = merge(hub, home, tmp_path / "again", suffix="@v1", HF_HUB_OFFLINE="1")
    assert not hub.asked  # what the hub's cache has whole is read from there
    assert again.returncode == 0, again.stderr
    assert weights_of(tmp_path / "again") == weights_of(out)


def test_offline_nobody_is_asked(hub: Hub, tmp_path: Path) -> None:
    done = merge(hub, tmp_path / "home", tmp_path / "out", HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "not in the local hub cache" in done.stderr
    assert not hub.asked


def test_evaluation_needs_the_whole_files_and_fetches_them_as_of_an_id(
    hub: Hub, trio: dict[str, Path], tmp_path: Path
) -> None:
    code = (
        "from safeswap.checkpoint.source import resolve\n"
        "found = resolve('hf://org/te')\n"
        "print(len(found.remote), sorted(p.name for p in found.folder.glob('*.safetensors')))\n"
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub.url}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment
    )
    names = sorted(path.name for path in trio["te"].glob("*.safetensors"))
    assert done.stdout.strip() == f"0 {names}", done.stderr
