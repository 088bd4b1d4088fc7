"""The API's examples run as they stand in its docstrings."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import safeswap
from safeswap import api


def test_every_public_function_has_examples_that_run(
    trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trio["sw"].rename(trio["sw"].with_name("swahili"))
    monkeypatch.chdir(tmp_path / "trio")
    result = doctest.testmod(api, verbose=False)
    assert result.failed == 0 and result.attempted >= 15
    public = [name for name in safeswap.__all__ if inspect.isfunction(getattr(safeswap, name))]
    assert public == ["make_plan", "make_profile", "merge_plans", "swap", "verify_merge"]
    for name in public:
        function = getattr(safeswap, name)
        assert ">>> " in function.__doc__ and "Raises:" in function.__doc__, name
        hints = inspect.signature(function)
        assert hints.return_annotation is not inspect.Signature.empty
        assert all(p.annotation is not p.empty for p in hints.parameters.values()), name
