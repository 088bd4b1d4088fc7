"""Whole files into the cache: gone on with, checked, and only in one version."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from safeswap.checkpoint.remote.fetch import TransientError
from safeswap.checkpoint.remote.opening import download_whole
from safeswap.errors import CheckpointError

CONTENT = bytes(range(256)) * 4000


@dataclass
class Made:
    """A file that breaks off after so many bytes, so many times."""

    content: bytes = CONTENT
    version: str = "1"
    sha256: str | None = None
    ranged: bool = True
    where: str = "made"
    breaks: int = 0
    stop: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)
    changed: bool = False

    @property
    def size(self) -> int:
        return len(self.content)

    def stream(self, begin: int, end: int) -> Iterator[bytes]:
        self.asked.append((begin, end))
        for at in range(begin, end, 100_000):
            if at - begin >= 300_000 and self.stop:
                raise CheckpointError("stopped. Run it again.")
            if at - begin >= 300_000 and self.breaks:
                self.breaks -= 1
                raise TransientError("broke off")
            yield self.content[at : min(end, at + 100_000)]

    def refuse_changed(self) -> None:
        if self.changed:
            raise CheckpointError("made: It changed while it was read. Run the command again.")


def test_a_download_that_was_stopped_goes_on(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="stopped"):
        download_whole(tmp_path, {"a.safetensors": Made(stop=True)})
    assert not (tmp_path / "a.safetensors").exists()
    again = Made(breaks=1)
    download_whole(tmp_path, {"a.safetensors": again})
    assert (tmp_path / "a.safetensors").read_bytes() == CONTENT
    assert again.asked == [(300_000, len(CONTENT)), (600_000, len(CONTENT))]
    third = Made()
    download_whole(tmp_path, {"a.safetensors": third})
    assert not third.asked
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_another_version_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="stopped"):
        download_whole(tmp_path, {"a.bin": Made(stop=True)})
    other = Made(content=CONTENT[::-1], version="2")
    download_whole(tmp_path, {"a.bin": other})
    assert other.asked == [(0, len(CONTENT))]
    assert (tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_without_ranges_it_begins_anew_each_time(tmp_path: Path) -> None:
    origin = Made(ranged=False, breaks=2)
    download_whole(tmp_path, {"a.bin": origin})
    assert origin.asked == [(0, len(CONTENT))] * 3
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_what_is_not_what_its_store_says_is_refused(tmp_path: Path) -> None:
    good = hashlib.sha256(CONTENT).hexdigest()
    download_whole(tmp_path, {"good.bin": Made(sha256=good)})
    bad = Made(content=CONTENT[::-1], sha256=good)
    with pytest.raises(CheckpointError, match="SHA-256"):
        download_whole(tmp_path, {"bad.bin": bad})
    with pytest.raises(CheckpointError, match="changed"):
        download_whole(tmp_path, {"new.bin": Made(changed=True)})
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["good.bin"]
