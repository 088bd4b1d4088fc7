"""What several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tiny import make_trio

# How long an example takes is the machine's affair: benchmarks measure time, tests do not.
settings.register_profile("safeswap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("safeswap")

# How wide the terminal is that tests are started from is not theirs: pytest-xdist tells its workers.
os.environ.pop("COLUMNS", None)


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    """A tiny base, safety expert and two language experts (sw, te), each in two shards."""
    return make_trio(tmp_path / "trio")
