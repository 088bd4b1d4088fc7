"""A `safeswap …` line of a page against the real parser: verbs, options and values."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from safeswap.cli import main
from safeswap.cli.merging import selection
from safeswap.evaluation.benchmarks.registry import BENCHMARKS, named_suites
from safeswap.operators import OPERATORS
from safeswap.plan import check_options

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
FOREIGN = {
    "kubectl": "Kubernetes' own",
    "ray": "Ray's own",
    "mergekit-yaml": "mergekit's own",
    "jq": "reads JSON",
    "eval": "the shell's completion",
    "_SAFESWAP_COMPLETE=fish_source": "the shell's completion",
    "export": "a variable",
    "for": "a loop of the shell",
    "done": "a loop of the shell",
    "cd": "the shell's",
}
"""Programs of others in blocks that are only parsed."""


def check(line: list[str]) -> None:
    """One command. `…` stands for what is left out, `[…]` for what may be."""
    program, *rest = line
    if program == "safeswap":
        parse(rest)
    elif program == "make":
        assert rest[0] in TARGETS, f"make {rest[0]}: no such target"
    elif program in ("python", "python3"):
        check_python(rest)
    elif program == "pip":
        check_pip(rest)
    else:
        assert program in FOREIGN, f"{program}: run it, or say in FOREIGN whose it is"


def parse(given: list[str]) -> None:
    """Through click, as the command line does it, but for files that are not there."""
    if "|" in given:
        parse(given[: given.index("|")])
        assert given[given.index("|") + 1] in FOREIGN
        return
    left_out = "…" in given
    rest = [word.strip("[]") for word in given if word != "…"]
    command, context = main, click.Context(main, info_name="safeswap")
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None and name is not None
        command, context = found, click.Context(found, parent=context, info_name=name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Path, "convert", _as_given)
        for parameter in command.params:
            patch.setattr(parameter, "callback", None)  # they read files and switch things on
            patch.setattr(parameter, "required", parameter.required and not left_out)
        made = command.make_context(context.info_name, list(rest), parent=context.parent)
    check_values(made.params)


def _as_given(self: click.Path, value: Any, *_: Any) -> Path:
    return Path(value)


def check_values(given: dict[str, Any]) -> None:
    """What verbs look up after parsing: methods, operators, suites and benchmarks."""
    if "operator_settings" in given:
        chosen = selection(dict(given))
        if isinstance(chosen.get("operator"), dict) and "grams" in chosen["operator"]:
            assert chosen.pop("operator")["name"] in OPERATORS  # its folder would be opened
        check_options("sw", **chosen)
    known = {*named_suites(), *BENCHMARKS}
    if given.get("suite") and not given["suite"].endswith(".yaml"):
        assert set(given["suite"].split(",")) <= known, given["suite"]
    for asked in given.get("prompts") or ():
        assert re.split("[/=]", asked)[0] in known, asked


def check_python(given: list[str]) -> None:
    """A script or module of ours is there."""
    if given[0] == "-m":
        home = ROOT / "research" / given[1].replace(".", "/")
        assert home.with_suffix(".py").is_file() or (home / "__main__.py").is_file(), given[1]
    elif given[0] != "-c":
        assert (ROOT / given[0]).is_file(), given[0]


def check_pip(given: list[str]) -> None:
    """The extras are ours."""
    assert given[0] == "install"
    for package in given[1:]:
        found = re.fullmatch(r"(safeswap)(?:\[([\w,-]+)\])?", package)
        assert found, package
        for extra in (found[2] or "").split(","):
            assert not extra or extra in EXTRAS, f"no extra {extra!r}"
