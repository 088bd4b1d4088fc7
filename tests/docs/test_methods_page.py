"""docs/methods.md: a section per method, with its defaults; its commands run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from profiles import HAND, make_profile
from safeswap.cli import main
from safeswap.selectors import registered

PAGE = (Path(__file__).parents[2] / "docs/methods.md").read_text()
DEFAULTS = {
    name: str(p.default).lower() if isinstance(p.default, bool) else f"{p.default:g}"
    for method in registered().values()
    for name, p in ((f"{method.name}.{p.name}", p) for p in method.parameters)
    if isinstance(p.default, int | float)
}


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)[1:]
    return {
        name: text
        for names, text in zip(parts[::2], parts[1::2], strict=True)
        for name in names.split(", ")
    }


def test_every_method_has_a_section_with_its_source() -> None:
    found = sections()
    assert set(registered()) <= set(found)
    for name, method in registered().items():
        for paper in re.findall(r"\d{4}\.\d{5}", method.source):
            assert paper in PAGE, f"{name}: {paper}"
        for parameter in method.parameters:
            assert parameter.name.replace("_", "[_-]") and re.search(
                rf"\b{parameter.name}\b|--{parameter.name.replace('_', '-')}", PAGE
            ), f"{name}: {parameter.name}"


def test_the_defaults_on_the_page_are_the_methods() -> None:
    for name, text in sections().items():
        for parameter, value in re.findall(r"`(\w+)=([\d.]+)`", text):
            wanted = DEFAULTS.get(f"{name}.{parameter}")
            assert wanted in (None, value), f"{name}: {parameter}"


def test_the_commands_on_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    moves: Any = (HAND[0],) * 12
    make_profile(moves, base_norm=200.0).save(Path("profile.json"))
    lines = [line for line in PAGE.splitlines() if line.startswith("safeswap plan ")]
    assert lines
    for line in lines:
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        assert Path("plan.yaml").exists()
