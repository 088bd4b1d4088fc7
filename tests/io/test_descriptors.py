"""However many shards there are, few files are open at once; and a limit is called a limit."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from safeswap.errors import OutputError
from safeswap.io import descriptors
from safeswap.io.descriptors import Descriptors
from tiny import make_trio

LIMITED = """
import resource, sys
from safeswap import api
from safeswap.errors import SafeswapError
trio, out, limit = sys.argv[1:]
import safeswap.report.figure_process, safeswap.merge.run  # what is imported later opens files too
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (int(limit), hard))
languages = {role: f"{trio}/{role}" for role in ("sw", "te", "bn")}
try:
    api.merge(f"{trio}/base", safety=f"{trio}/safety", languages=languages, out=out, figure=False,
              workers=2)
except SafeswapError as error:
    print(error)
    sys.exit(1)
"""


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three language experts, 60 shards each."""
    folder = tmp_path_factory.mktemp("sharded")
    trio = make_trio(folder, shards=60, layers=7)
    other = make_trio(folder / "more", shards=60, layers=7)
    (folder / "bn").symlink_to(other["te"])
    assert len(list(trio["sw"].glob("*.safetensors"))) == 60
    return folder


def merged(sharded: Path, out: Path, limit: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", LIMITED, str(sharded), str(out), str(limit)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90)


def test_three_languages_of_sixty_shards_need_few_open_files(sharded: Path, tmp_path: Path) -> None:
    done = merged(sharded, tmp_path / "out", 64)
    assert done.returncode == 0, done.stdout + done.stderr
    for language in ("sw", "te", "bn"):
        assert len(list((tmp_path / "out" / language).glob("*.safetensors"))) == 60


def test_where_even_that_is_too_few_the_limit_is_named(sharded: Path, tmp_path: Path) -> None:
    done = merged(sharded, tmp_path / "out", 9)
    assert done.returncode == 1, done.stderr
    assert "Too many open files" in done.stdout and "ulimit -n" in done.stdout
    assert not (tmp_path / "out").exists()


def test_what_is_idle_is_closed_before_giving_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system refuses more than two: the idle one goes, and one too many in use is refused."""
    real, held = os.open, []

    def scarce(path: Path, *arguments: int) -> int:
        if len(files._open) > 2:
            raise OSError(errno.EMFILE, "Too many open files")
        held.append(path)
        return real(path, *arguments)

    files = Descriptors(8)
    monkeypatch.setattr(descriptors.os, "open", scarce)
    for name in "abcd":
        with files.using(tmp_path / name):
            pass
    with (
        files.using(tmp_path / "e"),
        files.using(tmp_path / "f"),
        files.using(tmp_path / "g"),
        pytest.raises(OutputError, match="ulimit -n"),
        files.using(tmp_path / "h"),
    ):
        pass
    files.close()


def test_how_many_stay_open_follows_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for allowed, kept in ((1024, 64), (64, 16), (2, 1), (resource.RLIM_INFINITY, 64)):
        monkeypatch.setattr(resource, "getrlimit", lambda what, soft=allowed: (soft, soft))
        assert descriptors.at_once() == kept
