"""Stores that are no S3: a hidden folder beside the target, and moves within the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from safeswap.cli import main
from safeswap.errors import OutputError
from safeswap.publish.folder_store import FolderStore
from tiny import digest_of, refused, swap

pytest.importorskip("fsspec")
Trio = dict[str, Path]
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def out(tmp_path: Path) -> str:
    return f"file://{tmp_path / 'store' / 'out'}"


def test_the_bytes_are_those_of_a_local_merge(trio: Trio, out: str, tmp_path: Path) -> None:
    swap(trio, out, "sw", "te", scratch=tmp_path / "scratch")  # type: ignore[arg-type]
    both = swap(trio, tmp_path / "both", "sw", "te")
    assert digest_of(tmp_path / "store/out") == digest_of(both)
    assert [p.name for p in (tmp_path / "store").iterdir()] == ["out"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_failed_goes_on_and_shows_nothing_before(
    trio: Trio, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, sent = FolderStore.upload, []

    def fails(self: FolderStore, name: str, *rest: Any) -> Any:
        if len(sent) == 2:
            raise OutputError("the line is cut. Run it again.")
        sent.append(name)
        return upload(self, name, *rest)

    def run() -> None:
        swap(trio, out, scratch=tmp_path / "scratch")  # type: ignore[arg-type]

    monkeypatch.setattr(FolderStore, "upload", fails)
    refused(run, "the line is cut", out=tmp_path / "store/out")
    hidden = sorted(p.name for p in (tmp_path / "store/.out.safeswap-partial").iterdir())
    assert hidden == sorted(sent) and len(sent) == 2
    put: list[str] = []

    def counted(self: FolderStore, name: str, *rest: Any) -> Any:
        put.append(name)
        return upload(self, name, *rest)

    monkeypatch.setattr(FolderStore, "upload", counted)
    run()
    assert not set(put) & {name for name in sent if name.endswith(".safetensors")}
    assert digest_of(tmp_path / "store/out") == digest_of(swap(trio, tmp_path / "whole"))


def test_a_shard_that_was_changed_there_is_made_and_sent_again(
    trio: Trio, out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> None:
        swap(trio, out, scratch=tmp_path / "scratch")  # type: ignore[arg-type]

    monkeypatch.setattr(FolderStore, "show", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run()
    monkeypatch.undo()
    shard = tmp_path / "store/.out.safeswap-partial/model-00001-of-00002.safetensors"
    raw = bytearray(shard.read_bytes())
    raw[-1] ^= 1
    shard.write_bytes(raw)
    run()
    assert digest_of(tmp_path / "store/out") == digest_of(swap(trio, tmp_path / "whole"))


def test_overwriting_replaces_a_merge_and_nothing_else(
    trio: Trio, out: str, tmp_path: Path
) -> None:
    given = {"scratch": tmp_path / "scratch"}
    swap(trio, out, **given)  # type: ignore[arg-type]
    refused(lambda: swap(trio, out, **given), "exists already")  # type: ignore[arg-type]
    more = {"overwrite": True, "method": "uniform", "shard_size": "1GB", **given}
    swap(trio, out, **more)  # type: ignore[arg-type]
    whole = swap(trio, tmp_path / "whole", method="uniform", shard_size="1GB")
    assert digest_of(tmp_path / "store/out") == digest_of(whole)
    (tmp_path / "store/out/mine.txt").write_text("mine")
    (tmp_path / "store/out/safeswap.json").unlink()
    refused(lambda: swap(trio, out, **more), "only what a merge wrote")  # type: ignore[arg-type]
    assert (tmp_path / "store/out/mine.txt").read_text() == "mine"


def test_an_output_is_no_input(trio: Trio, tmp_path: Path) -> None:
    words = ["merge", trio["base"], "--safety", trio["safety"], "--language", f"sw={trio['sw']}"]
    words += ["--out", "/x", "--no-figure", "--scratch", tmp_path]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 1 and "--scratch is for outputs in a bucket" in done.output
