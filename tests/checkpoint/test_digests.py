"""Digests of files: what sha256sum prints, in little memory."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

from safeswap.checkpoint import digests


def test_a_large_stranger_is_not_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "stranger.tar"
    with file.open("wb") as stream:
        stream.truncate(64 << 20)
    tracemalloc.start()
    found = digests.of_small_file(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == hashlib.sha256(bytes(64 << 20)).hexdigest()
    assert peak < 4 << 20
