"""What help texts name is what is registered."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from safeswap.cli import main, registered
from safeswap.evaluation.backends import BACKENDS
from safeswap.evaluation.judges import KINDS


def shipped(registry: object) -> list[str]:
    """Names registered by safeswap itself, and not by a test's module."""
    origins: dict[str, str] = registry._origins  # type: ignore[attr-defined]
    return [name for name, origin in origins.items() if origin.startswith("safeswap.")]


def test_the_names_are_those_of_the_registries() -> None:
    assert list(registered.BACKENDS) == shipped(BACKENDS)
    assert list(registered.JUDGE_KINDS) == shipped(KINDS)


@pytest.mark.parametrize(
    ("verb", "option", "names"),
    [
        ("evaluate", "--backend", registered.BACKENDS),
        ("evaluate", "--judge-backend", registered.BACKENDS),
        ("evaluate", "--judge-kind", registered.JUDGE_KINDS),
        ("judge", "--kind", registered.JUDGE_KINDS),
        ("sweep", "--judge-backend", registered.BACKENDS),
        ("search", "--backend", registered.BACKENDS),
    ],
)
def test_help_names_them_all(verb: str, option: str, names: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [verb, "--help"]).output
    text = re.split(r"\n\s*--", shown[shown.index(f"{option} ") + 2 :])[0]
    assert registered.either(names) in " ".join(text.split())
