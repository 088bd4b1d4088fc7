"""Every answer that a file system gives to a lock, at every place that asks for one."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from safeswap.calibration import run
from safeswap.checkpoint.staging import Staging
from safeswap.errors import EvaluationError, OutputError, SafeswapError
from safeswap.evaluation.results.journal import Journal
from safeswap.evaluation.results.store import one_at_a_time
from safeswap.io import locks

study = pytest.importorskip("safeswap.search.study")

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
ABSENT = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)
FAILED = (errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EINTR, errno.EPERM)


def stage(folder: Path) -> None:
    Staging(folder / "out", "job").release()


def calibrate(folder: Path) -> None:
    with run._taken(folder / "grams"):
        pass


def journal(folder: Path) -> None:
    with Journal(folder / "rows.jsonl") as rows:
        rows.add([{"key": str(len(rows.rows))}])


def replace(folder: Path) -> None:
    with Journal(folder / "rows.jsonl") as rows:
        rows.replace([{"key": "b"}])


def settings(folder: Path) -> None:
    with one_at_a_time(folder):
        pass


def worker(folder: Path) -> None:
    with study.working(folder / "workers") as name:
        assert (folder / "workers" / name).exists()


PLACES: dict[str, tuple[Callable[[Path], None], type[SafeswapError]]] = {
    "merge": (stage, OutputError),
    "calibrate": (calibrate, OutputError),
    "journal": (journal, EvaluationError),
    "replace": (replace, EvaluationError),
    "settings": (settings, EvaluationError),
    "worker": (worker, EvaluationError),
}


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    locks._told.clear()
    yield
    locks._told.clear()


def answering(monkeypatch: pytest.MonkeyPatch, number: int, place: str = "") -> None:
    real, left = fcntl.flock, [1 if place == "replace" else 0]  # whose second lock is meant

    def flock(descriptor: Any, how: int) -> None:
        if left[0]:
            left[0] -= 1
            real(descriptor, how)
            return
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


@pytest.mark.parametrize("place", ["merge", "calibrate", "journal", "replace"])
@pytest.mark.parametrize("number", HELD, ids=errno.errorcode.get)
def test_another_process_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    act, kind = PLACES[place]
    answering(monkeypatch, number, place)
    before = open_files()
    with pytest.raises(kind, match=r"another safeswap is writing.*Wait for it"):
        act(tmp_path)
    assert open_files() == before


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", ABSENT, ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_told_once_and_used(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
    number: int,
) -> None:
    act, _ = PLACES[place]
    answering(monkeypatch, number, place)
    act(tmp_path)
    act(tmp_path)
    (told,) = caplog.messages
    assert "has no locks" in told and "another safeswap is" not in told


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", FAILED, ids=errno.errorcode.get)
def test_what_else_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, number: int
) -> None:
    act, kind = PLACES[place]
    answering(monkeypatch, number, place)
    before = open_files()
    with pytest.raises(kind) as caught:
        act(tmp_path)
    said = str(caught.value)
    assert f"cannot be locked ({os.strerror(number)})" in said and "another safeswap" not in said
    assert "read-only" in said or number != errno.EROFS
    assert "Free some space" in said or number not in (errno.ENOSPC, errno.EDQUOT)
    assert open_files() == before
    assert not list(tmp_path.glob("*.part"))


def test_without_locks_no_worker_is_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").touch()
    assert study.is_gone(tmp_path, "one")
    for number in (*ABSENT, *HELD):
        answering(monkeypatch, number)
        assert not study.is_gone(tmp_path, "one")
    answering(monkeypatch, errno.EIO)
    with pytest.raises(EvaluationError, match="cannot be locked"):
        study.is_gone(tmp_path, "one")
