"""Ranges of a file through pieces, by many threads at once; the cache's room and its pieces."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from safeswap.checkpoint.remote import cache as cached
from safeswap.checkpoint.remote import ranges
from safeswap.checkpoint.remote.cache import TRAILER, Room, cache_folder, cache_room
from safeswap.checkpoint.remote.ranges import RemoteFile
from safeswap.errors import CheckpointError, ConfigError

SIZE = 300_000
CONTENT = np.random.default_rng(1).integers(0, 256, SIZE, np.uint8).tobytes()


@dataclass
class Made:
    """A file in memory that counts what is asked of it."""

    content: bytes = CONTENT
    version: str = "1"
    where: str = "made"
    sha256: str | None = None
    asked: list[tuple[int, int]] = field(default_factory=list)
    gate: threading.Event | None = None

    @property
    def size(self) -> int:
        return len(self.content)

    def stream(self, begin: int, end: int) -> Iterator[bytes]:
        self.asked.append((begin, end))
        if self.gate is not None:
            assert self.gate.wait(10)
        for at in range(begin, end, 1000):
            yield self.content[at : min(end, at + 1000)]

    def refuse_changed(self) -> None:
        pass

    @property
    def bytes_asked(self) -> int:
        return sum(end - begin for begin, end in self.asked)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "PIECE", 4000)
    monkeypatch.setattr(ranges, "_LARGE", 1000)


def opened(folder: Path, origin: Made, room: int = 1 << 30) -> RemoteFile:
    folder.mkdir(exist_ok=True)
    return RemoteFile(origin, folder, Room(folder, room))


def read(file: RemoteFile, begin: int, end: int) -> bytes:
    out = np.empty(end - begin, np.uint8)
    file.read_into(begin, out)
    return out.tobytes()


@pytest.mark.parametrize("room", [1 << 30, 50_000, 0], ids=["room", "little room", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_any_ranges_by_any_threads_are_the_file_s_bytes(
    tmp_path: Path, seed: int, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "HELD", 20_000)
    file = opened(tmp_path / "pieces", Made(), room)
    wrong: list[tuple[int, int]] = []

    def work(number: int) -> None:
        dice = np.random.default_rng([seed, number])
        for _ in range(60):
            begin = int(dice.integers(0, SIZE - 1))
            end = int(min(SIZE, begin + dice.choice([1, 50, 3000, 12_000])))
            if dice.random() < 0.5:
                file.prefetch(begin, end - begin + int(dice.integers(0, 30_000)))
            if read(file, begin, end) != CONTENT[begin:end]:
                wrong.append((begin, end))

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong


def test_a_pass_from_front_to_back_asks_for_each_byte_once(tmp_path: Path) -> None:
    origin = Made()
    file = opened(tmp_path / "pieces", origin)
    for at in range(0, SIZE, 7_000):
        file.prefetch(at, 14_000)
        assert read(file, at, min(SIZE, at + 7_000)) == CONTENT[at : at + 7_000]
    assert origin.bytes_asked == SIZE
    assert all(end - begin <= 4000 for begin, end in origin.asked)


def test_small_neighbours_that_wait_become_one_request(tmp_path: Path) -> None:
    origin = Made(gate=threading.Event())
    file = opened(tmp_path / "pieces", origin)
    for n in range(ranges.CONNECTIONS):  # all are busy
        file.prefetch(200_000 + 5000 * n, 4000)
    for at in range(0, 3000, 100):
        file.prefetch(at, 100)
    assert origin.gate is not None
    origin.gate.set()
    assert read(file, 0, 3000) == CONTENT[:3000]
    assert [pair for pair in origin.asked if pair[0] < 3000] == [(0, 3000)]


def test_a_gap_between_many_small_pieces_is_asked_for_across_them(tmp_path: Path) -> None:
    origin = Made()
    file = opened(tmp_path / "pieces", origin)
    for at in range(500, 4000, 1000):
        read(file, at, at + 100)
    before = len(origin.asked)
    assert read(file, 0, 4000) == CONTENT[:4000]
    assert len(origin.asked) == before + 1


def test_the_next_process_finds_the_pieces_and_trusts_none_that_is_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "pieces"
    read(opened(folder, Made()), 0, SIZE)
    again = Made()
    assert read(opened(folder, again), 0, SIZE) == CONTENT
    assert not again.asked
    pieces = sorted(path for path in folder.rglob("*") if path.is_file())
    damaged = bytearray(pieces[3].read_bytes())
    damaged[10] ^= 1
    pieces[3].write_bytes(damaged)
    pieces[5].write_bytes(pieces[5].read_bytes()[:-1])
    last = Made()
    assert read(opened(folder, last), 0, SIZE) == CONTENT
    assert last.bytes_asked == 2 * 4000
    other = Made(version="2")
    read(opened(folder, other), 0, 4000)
    assert other.asked == [(0, 4000)]


def test_old_pieces_make_room_and_new_ones_do_not(tmp_path: Path) -> None:
    folder, piece = tmp_path / "pieces", 4000 + TRAILER
    old = Made(version="old")
    read(opened(folder, old), 0, 40_000)
    for n, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        os.utime(path, (n, n))
    new = Made(version="new")
    file = opened(folder, new, 10 * piece)  # ten old ones lie there
    read(file, 0, 12_000)
    left = [p for p in folder.rglob("*") if p.is_file()]
    assert len(left) == 10
    read(file, 12_000, 60_000)
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= 10 * piece
    assert read(file, 0, 40_000) == CONTENT[:40_000]
    assert new.bytes_asked == 60_000  # seven were kept, the rest is held in memory


def test_a_full_cache_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read(opened(tmp_path / "pieces", Made(), 0), 0, 20_000)
    assert [record.getMessage() for record in caplog.records if "full" in record.getMessage()]
    assert len(caplog.records) == 1


def test_an_end_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = opened(tmp_path / "pieces", Made())
    with pytest.raises(CheckpointError, match="10 bytes too early"):
        read(file, SIZE - 5, SIZE + 10)
    file.prefetch(SIZE - 5, 1000)
    assert read(file, SIZE - 5, SIZE) == CONTENT[-5:]


def test_a_failure_reaches_who_waits_and_is_tried_again_by_the_next(tmp_path: Path) -> None:
    origin = Made()
    file = opened(tmp_path / "pieces", origin)

    def broken(begin: int, end: int) -> Iterator[bytes]:
        raise CheckpointError("broken. Check it.")
        yield b""

    whole, origin.stream = origin.stream, broken  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(CheckpointError, match="broken"):
            read(file, 0, 10)
    origin.stream = whole  # type: ignore[method-assign]
    assert read(file, 0, 10) == CONTENT[:10]


@pytest.mark.parametrize(
    ("text", "room"), [("3kb", 3 << 10), ("2 MiB", 2 << 20), ("5", 5), ("1GB", 1 << 30)]
)
def test_the_room_is_what_the_variable_says(
    tmp_path: Path, text: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFESWAP_CACHE_SIZE", text)
    assert cache_room(tmp_path) == room


@pytest.mark.parametrize("text", ["much", "-1GB", "1.5GB", "GB", "1XB"])
def test_a_room_that_is_none_is_refused(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFESWAP_CACHE_SIZE", text)
    with pytest.raises(ConfigError, match="20GB"):
        cache_room(tmp_path)


def test_the_cache_is_the_user_s_alone_and_where_the_variables_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFESWAP_CACHE", str(tmp_path / "a" / "b"))
    assert cache_folder() == tmp_path / "a" / "b"
    assert cache_folder().stat().st_mode & 0o077 == 0
    monkeypatch.delenv("SAFESWAP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(cached.sys, "platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "safeswap"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAFESWAP_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="SAFESWAP_CACHE"):
        cache_folder()
