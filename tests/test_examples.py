"""The API's examples run as they stand in its docstrings."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

pytest.importorskip("transformers")

import safeswap
from safeswap import api
from safeswap.api import merging, publishing
from safeswap.calibration import run as calibration


def test_every_public_function_has_examples_that_run(
    trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio["sw"].rename(trio["sw"].with_name("swahili"))
    monkeypatch.chdir(tmp_path / "trio")
    # figures have tests of their own, and each is a process
    monkeypatch.setattr("safeswap.report.figure_process.find_spec", lambda name: None)
    modules = (api, merging, calibration, publishing)
    found = [doctest.testmod(module, verbose=False) for module in modules]
    assert sum(result.failed for result in found) == 0
    assert found[0].attempted + found[1].attempted >= 15 and found[2].attempted >= 6
    assert found[3].attempted >= 4
    public = [name for name in safeswap.__all__ if inspect.isfunction(getattr(safeswap, name))]
    names = ["calibrate", "make_plan", "make_profile", "merge_plans", "swap", "verify_merge"]
    assert public == names
    for name in public:
        function = getattr(safeswap, name)
        assert ">>> " in function.__doc__ and "Raises:" in function.__doc__, name
        hints = inspect.signature(function)
        assert hints.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not p.empty for p in hints.parameters.values()), name
