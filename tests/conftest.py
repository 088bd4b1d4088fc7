"""What several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiny import make_trio


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    """A tiny base, safety expert and two language experts (sw, te), each in two shards."""
    return make_trio(tmp_path / "trio")
