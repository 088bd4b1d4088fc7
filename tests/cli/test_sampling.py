"""`safeswap profile --budget` and `--until-certain`, as they are typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from safeswap.cli import main
from safeswap.errors import ConfigError
from safeswap.profile import sample as sampling
from tiny import make_trio


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sampling, "SMALLEST_BLOCK", 4)
    trio = make_trio(tmp_path / "trio", layers=3, width=48, inner=64)
    words = [trio["base"], "--safety", trio["safety"], "--language", f"sw={trio['sw']}"]
    return ["profile", *map(str, words), "-o", str(tmp_path / "p.json")]


def typed(line: list[str], *more: str) -> Any:
    return CliRunner().invoke(main, [*line, *more])


def test_it_says_what_was_read_and_what_is_certain(line: list[str]) -> None:
    found = typed(line, "--until-certain", "99%", "--tau", "0.3%", "--by", "layer")
    assert found.exit_code == 0, found.output
    assert "sw: 3 of 3 decisions are certain at 99 % by layer" in found.stdout
    assert found.stdout.count("read ") == 1 and " %)" in found.stdout


def test_it_says_what_is_not_certain(line: list[str]) -> None:
    found = typed(line, "--budget", "1%", "--tau-relative", "0.01")
    assert "more than the budget of 1 %" in found.stdout
    assert "not certain: " in found.stdout


def test_scripts_get_the_same(line: list[str]) -> None:
    record = json.loads(typed(line, "--budget", "0.5", "--json").stdout)
    assert record["kind"] == "profiled" and 0 < record["bytes_read"] <= record["bytes_all"] / 2
    assert record["confidence"] == 0.99 and set(record["uncertain"]) == {"sw"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--by", "layer"], "--by: is for a sample; add --budget 2%"),
        (["--tau-relative", "0.1"], "--tau-relative: is for a sample"),
        (["--budget", "x"], "--budget 'x': is no number"),
        (["--budget", "true"], "--budget 'true': is no number"),
        (["--budget", "200%"], "up to 100%"),
        (["--until-certain", "100%"], "below 100%"),
        (["--budget", "2%", "--tau", "1", "--tau-relative", "1"], "exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(line: list[str], more: list[str], said: str) -> None:
    found = typed(line, *more)
    assert found.exit_code != 0
    text = found.output + (str(found.exception) if isinstance(found.exception, ConfigError) else "")
    assert said in text
