"""The site: what its hooks make of pages, and that it has all of them. `make docs` builds it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import click
import pytest

from safeswap.cli import main

ROOT = Path(__file__).parents[2]
NAV = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
GENERATED = {"changelog.md", "recipes.md", "small-world-models.md"}


def hook(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"site_hooks/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation_once() -> None:
    docs = ROOT / "docs"
    there = {str(page.relative_to(docs)) for page in docs.rglob("*.md")}
    assert sorted(NAV) == sorted(there | GENERATED)


def test_the_reference_has_every_verb_and_option() -> None:
    text = "\n".join(hook("commands").reference())
    assert isinstance(main, click.Group)
    for name, verb in main.commands.items():
        (section,) = re.findall(rf"^### safeswap {name}\n(.*?)(?=^###? |\Z)", text, re.M | re.S)
        for option in verb.params:
            if isinstance(option, click.Option):
                assert f"{option.opts[-1].replace('_', '&#95;')}" in section, (name, option.opts)
    assert re.search(r"^#### safeswap label sample$", text, re.MULTILINE)


def test_help_is_shown_as_it_is() -> None:
    shown = hook("commands").plain("NAME[/LANG] a|b *c* <d>")
    assert not re.search(r"[\[\]|*<>]", shown)


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("so:\n- a\n- b", "so:\n\n- a\n- b"),
        ("- a\n  more\n- b", "- a\n  more\n- b"),
        ("so:\n| a |\n| - |", "so:\n\n| a |\n| - |"),
        ("```\nso:\n- a\n```", "```\nso:\n- a\n```"),
        ("a year\n2. May", "a year\n2. May"),
        ("so:\n\n- a", "so:\n\n- a"),
    ],
)
def test_lists_and_tables_get_their_blank_line(given: str, made: str) -> None:
    assert hook("github").on_page_markdown(given) == made + "\n"


@pytest.mark.parametrize(
    "tag",
    [
        '<img alt="a" src="https://host/a.png">',
        "<script src=https://host/a.js>",
        '<link rel="stylesheet" href="//host/a.css">',
        '<link href="https://host" rel="preconnect">',
    ],
)
def test_what_is_fetched_elsewhere_is_found(tag: str) -> None:
    here = '<a href="https://arxiv.org">paper</a><img src="a.png"><script src="../a.js"></script>'
    fetched = hook("offline").fetched
    assert fetched(here) == ""
    assert fetched(here + tag + here) == tag
