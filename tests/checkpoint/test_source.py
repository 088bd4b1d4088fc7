"""Checkpoints from a hub: a small server stands in for it, on this machine."""

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
from safeswap.checkpoint.source import _split, pinned
from safeswap.plan import Plan

STRAY = (
    "pytorch_model.bin",
    "model-q4.gguf",
    "optimizer.pt",
    "original/consolidated.00.pth",
    "consolidated.safetensors",
    "onnx/model.safetensors",
)


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
