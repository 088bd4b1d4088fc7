"""Links, names and commands in README and docs lead to something that is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest

from safeswap.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's titles."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = page.parent / path if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_dotted_names(page: Path) -> None:
    pytest.importorskip("torch")
    found = re.findall(r"\bsafeswap(?:\.[A-Za-z_]\w*)+", page.read_text(encoding="utf-8"))
    files = (".json", ".png", ".py", ".yaml")
    for name in {name for name in found if not name.endswith(files)}:
        assert resolves(name), name


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_scripts_and_modules(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"python3? ((?:benchmarks|research)/[\w/]+\.py)", text):
        assert (ROOT / path).is_file(), path
    modules = re.findall(r"python3? -m (small_world[\w.]*)", text)
    for module in modules:
        place = ROOT / "research" / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    assert not modules or "PYTHONPATH=research" in text


def options_of(command: click.Command) -> set[str]:
    return {name for one in command.params for name in one.opts if name.startswith("-")}


def commands(text: str) -> list[list[str]]:
    """The command lines of a page's inline code; blocks are test_commands.py's."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [line.split() for line in re.findall(r"`(safeswap [^`\n]+)`", prose)]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in ("cli.md", "formats.md")], ids=lambda p: p.name
)
def test_commands_have_the_verbs_and_options_of_today(page: Path) -> None:
    """But docs/cli.md, which lists old spellings (with its own test), and docs/formats.md."""
    for _, verb, *words in commands(page.read_text(encoding="utf-8")):
        if not re.fullmatch(r"[a-z]+", verb):
            continue
        assert isinstance(main, click.Group)
        command = main.commands.get(verb)
        assert command is not None, verb
        if isinstance(command, click.Group):
            inner = [word for word in words if word in command.commands]
            if not inner:
                continue
            command = command.commands[inner[0]]
        known = options_of(command) | {"-h", "--help"}
        for word in words:
            name = word.partition("=")[0].strip("[]")
            if re.fullmatch(r"--?[a-z][a-z-]*", name):
                assert name in known, f"{verb} {name}"
