"""What several tests share."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from safeswap import api
from tiny import make_trio

# How long an example takes is the machine's affair: benchmarks measure time, tests do not.
settings.register_profile("safeswap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time, where one run judges a change: ``--hypothesis-profile=fixed``.
settings.register_profile("fixed", settings.get_profile("safeswap"), derandomize=True)
settings.load_profile("safeswap")

# How wide the screen is that tests are started from is not theirs; pytest-xdist tells workers.
os.environ.pop("COLUMNS", None)


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    """A tiny base, safety expert and two language experts (sw, te), each in two shards."""
    return make_trio(tmp_path / "trio")


@pytest.fixture
def merged(trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The trio's merges in two languages, ``OUT/sw`` and ``OUT/te``; without figures."""
    monkeypatch.setattr("safeswap.report.figure_process.find_spec", lambda name: None)
    languages = {code: trio[code] for code in ("sw", "te")}
    api.merge(trio["base"], safety=trio["safety"], languages=languages, out=tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(autouse=True, scope="module")
def collected_once() -> None:
    """What earlier modules imported (torch, lm_eval, datasets) is not looked through again and
    again by the garbage collector: it made a page take three times as long late in the suite.
    """
    gc.collect()
    gc.freeze()
