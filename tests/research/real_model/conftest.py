"""The study's public files, made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from real_files import made_up
from real_model.corpora import Corpora


@pytest.fixture
def corpora(tmp_path: Path) -> Corpora:
    return made_up(tmp_path / "data")
