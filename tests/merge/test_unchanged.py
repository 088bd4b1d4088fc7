"""Inputs that change while they are merged: found whatever their size and time say."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from safeswap.checkpoint.header import read_header
from safeswap.errors import CheckpointError
from safeswap.merge import run
from tiny import digest_of, swap

Trio = dict[str, Path]
Change = Callable[[Path], None]


def kept(path: Path, change: Change) -> None:
    """A change that gives the file its size and time back."""
    status = path.stat()
    change(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def flip(path: Path) -> None:
    start = read_header(path).tensors[0].start
    with path.open("r+b") as stream:
        stream.seek(start)
        byte = stream.read(1)
        stream.seek(start)
        stream.write(bytes([byte[0] ^ 1]))


def exchange(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    flip(other)
    other.replace(path)


def other_words(path: Path) -> None:
    path.write_text(path.read_text().replace("maji", "moto", 1))


def midway(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something once the weights are written."""
    real = run.write_weights

    def written(*arguments: object, **named: object) -> object:
        found = real(*arguments, **named)  # type: ignore[arg-type]
        act()
        return found

    monkeypatch.setattr(run, "write_weights", written)


def shard(folder: Path) -> Path:
    return min(folder.glob("*.safetensors"))


@pytest.mark.parametrize("how", [flip, exchange])
@pytest.mark.parametrize("role", ["base", "sw"])
def test_bytes_changed_with_size_and_time_kept_are_seen(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str, how: Change
) -> None:
    midway(monkeypatch, lambda: kept(shard(trio[role]), how))
    with pytest.raises(CheckpointError, match=f"{shard(trio[role]).name}: the {role} checkpoint"):
        swap(trio, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("role", ["base", "sw"])
def test_an_exchanged_tokenizer_is_seen(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    midway(monkeypatch, lambda: kept(trio[role] / "tokenizer.json", other_words))
    with pytest.raises(CheckpointError, match=f"tokenizer.json: the {role} checkpoint changed"):
        swap(trio, tmp_path / "out")


def test_a_new_file_that_would_go_along_is_seen(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    midway(monkeypatch, lambda: (trio["sw"] / "added_tokens.json").write_text("{}") and None)
    with pytest.raises(CheckpointError, match=r"added_tokens\.json"):
        swap(trio, tmp_path / "out")


def test_a_link_to_a_shard_is_no_change(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It changes the inode's time, and the bytes are read again and found the same."""
    wanted = digest_of(swap(trio, tmp_path / "first"))
    before = shard(trio["sw"]).stat().st_ctime_ns
    midway(monkeypatch, lambda: os.link(shard(trio["sw"]), tmp_path / "link"))
    assert digest_of(swap(trio, tmp_path / "second")) == wanted
    assert shard(trio["sw"]).stat().st_ctime_ns != before


@pytest.mark.parametrize("kind", ["fp8", "gguf"])
def test_the_same_of_weights_that_are_stored_narrow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from gguf_bytes import llama_bytes
    from narrow import make_fp8, stored_in
    from tiny import config_of, llama_shapes, make_trio

    trio = make_trio(tmp_path, shards=1)
    if kind == "fp8":
        for role in ("base", "safety", "sw"):
            make_fp8(trio[role], (8, 7))
        file = shard(trio["sw"])
    else:
        file = tmp_path / "sw.gguf"
        file.write_bytes(llama_bytes(stored_in(trio["sw"]), config_of(llama_shapes())))
        trio["sw"] = file
    wanted = digest_of(swap(trio, tmp_path / "first", donor="base"))
    with monkeypatch.context() as patch:
        midway(patch, lambda: os.link(file, tmp_path / "link"))
        assert digest_of(swap(trio, tmp_path / "second", donor="base")) == wanted

    def last_bit(path: Path) -> None:
        with path.open("r+b") as stream:
            stream.seek(-9, os.SEEK_END)
            byte = stream.read(1)
            stream.seek(-9, os.SEEK_END)
            stream.write(bytes([byte[0] ^ 1]))

    midway(monkeypatch, lambda: kept(file, last_bit))
    with pytest.raises(CheckpointError, match=f"{file.name}: the sw checkpoint changed"):
        swap(trio, tmp_path / "third", donor="base")
