"""Every answer of a file system to a lock, as each verb that takes one passes it on."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")
pytest.importorskip("lm_eval")
pytest.importorskip("optuna")

from safeswap.cli import main
from safeswap.io import locks
from small_job import small_verbs, write_small_job

ABSENT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
HELD = (errno.EWOULDBLOCK, errno.EACCES)
FAILED = (errno.EIO, errno.EINTR)
LOCKING = ("merge", "evaluate", "judge", "calibrate", "sweep", "search")
VERBS = small_verbs()


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    locks._told.clear()
    yield
    locks._told.clear()


def answering(monkeypatch: pytest.MonkeyPatch, number: int) -> list[int]:
    asked: list[int] = []

    def flock(descriptor: Any, how: int) -> None:
        asked.append(how)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    return asked


def typed(verb: str) -> Result:
    done = CliRunner().invoke(main, VERBS[verb])
    assert done.exception is None or isinstance(done.exception, SystemExit), (verb, done.exception)
    assert "Traceback" not in done.output
    return done


@pytest.mark.parametrize("number", ABSENT, ids=errno.errorcode.get)
def test_without_locks_every_verb_does_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    write_small_job(tmp_path)
    asked = answering(monkeypatch, number)
    for verb in VERBS:
        locks._told.clear()
        before = len(asked)
        done = typed(verb)
        assert done.exit_code == 0, (verb, done.output)
        assert "another safeswap is" not in done.output
        assert (len(asked) > before) == (verb in LOCKING), verb
        assert ("has no locks" in done.output) == (verb in LOCKING), (verb, done.output)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The job, up to its results."""
    folder = tmp_path_factory.mktemp("job")
    write_small_job(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for verb in ("merge", "evaluate"):
            assert typed(verb).exit_code == 0
    return folder


@pytest.mark.parametrize("number", [*HELD, *FAILED], ids=errno.errorcode.get)
def test_another_process_and_a_failing_disk_are_told_apart(
    answered: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(answered)
    answering(monkeypatch, number)
    monkeypatch.setitem(VERBS, "merge", [*VERBS["merge"][:-1], "other"])
    for verb in LOCKING:
        done = typed(verb)
        assert done.exit_code == 1, (verb, done.output)
        held = "another safeswap is writing" in done.output
        waits = f"cannot be locked ({os.strerror(number)})" in done.output
        assert held or waits, (verb, done.output)
        assert not held or number in HELD
        assert number in FAILED or held or verb in ("evaluate", "sweep", "search"), verb
    assert not (answered / "other").exists()


NO_LOCKS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
static int refused(void) { errno = atoi(getenv("LOCKS_ANSWER")); return -1; }
int flock(int file, int how) { return refused(); }
static int passed(const char *name, int file, int what, void *more) {
  if (what == F_SETLK || what == F_SETLKW || what == F_GETLK) return refused();
  int (*real)(int, int, ...) = dlsym(RTLD_NEXT, name);
  return real(file, what, more);
}
#define PASS(name) int name(int file, int what, ...) { va_list all; va_start(all, what); \
  void *more = va_arg(all, void *); va_end(all); return passed(#name, file, what, more); }
PASS(fcntl)
PASS(fcntl64)
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="builds a library with gcc")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_system_without_any_locks(tmp_path: Path, number: int) -> None:
    """Also SQLite's own, which no patch in Python reaches: the system's calls are what refuses."""
    (tmp_path / "no.c").write_text(NO_LOCKS)
    library = str(tmp_path / "no.so")
    build = ["gcc", "-shared", "-fPIC", "-o", library, str(tmp_path / "no.c"), "-ldl"]
    subprocess.run(build, check=True, capture_output=True)
    write_small_job(tmp_path)
    answers = {"LD_PRELOAD": library, "LOCKS_ANSWER": str(number)}
    for _ in range(2):  # the second time it goes on
        done = subprocess.run(
            [sys.executable, "-m", "safeswap", *VERBS["search"]],
            cwd=tmp_path,
            env={**os.environ, **answers, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr
        assert "has no locks" in done.stderr and "is locked" not in done.stderr
    assert (tmp_path / "found" / "search.db").stat().st_size
