"""docs/architecture.md says what the import contract and the files say."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/safeswap"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def contract() -> list[list[str]]:
    """The layers as import-linter holds them, highest first."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (layers,) = (c["layers"] for c in tool["importlinter"]["contracts"] if c["type"] == "layers")
    return [[name.strip() for name in layer.split("|")] for layer in layers]


def drawn() -> list[list[str]]:
    """The layers of the page's drawing."""
    (drawing,) = re.findall(r"^```\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    names = [re.split(r"\s{2,}", line.strip())[0] for line in drawing.splitlines()]
    return [[name.strip() for name in layer.split("|")] for layer in names]


def table(head: str) -> list[list[str]]:
    """The rows of the table whose first column is called so."""
    _, _, rest = PAGE.partition(f"| {head} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def parts() -> dict[str, Path]:
    """What the package is made of."""
    found = {p.name: p for p in PACKAGE.iterdir() if (p / "__init__.py").is_file()}
    found |= {p.stem: p for p in PACKAGE.glob("*.py") if not p.stem.startswith("__")}
    return found


def libraries(part: Path) -> set[str]:
    """What a folder or module imports that is neither ours nor Python's."""
    found: set[str] = set()
    for file in part.rglob("*.py") if part.is_dir() else [part]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module or "")
    roots = {name.partition(".")[0] for name in found}
    return roots - sys.stdlib_module_names - {"safeswap"}


def test_the_drawing_is_the_contract() -> None:
    assert drawn() == contract()


def test_every_part_has_its_line_in_the_contracts_order() -> None:
    names = [row[0].strip("`").rstrip("/") for row in table("name")]
    assert names == [name for layer in contract() for name in layer]
    assert set(names) == set(parts())
    for row in table("name"):
        assert row[0].endswith("/`") == parts()[row[0].strip("`/")].is_dir(), row[0]
        assert all(row[:3]), row


def test_what_each_may_import_is_the_next_line_down() -> None:
    layers = contract()
    below = {
        name: set(layers[place + 1]) if place + 1 < len(layers) else set()
        for place, layer in enumerate(layers)
        for name in layer
    }
    for name, _, allowed, _ in table("name"):
        said = set(re.findall(r"`(\w+)`", allowed))
        wanted = below[name.strip("`/")]
        assert said == wanted or said == wanted - {"parameters", "registry"}, name


@pytest.mark.parametrize("row", table("name"), ids=lambda row: row[0].strip("`/"))
def test_the_libraries_are_those_that_it_imports(row: list[str]) -> None:
    said = {name.strip() for name in row[3].split(",") if name.strip()}
    assert said == libraries(parts()[row[0].strip("`/")])


def test_a_new_thing_has_a_place_that_exists() -> None:
    rows = table("new")
    kinds = " ".join(row[0] for row in rows)
    for kind in ("reader", "selector", "operator", "benchmark", "judge", "backend", "page", "file"):
        assert kind in kinds
    for row in rows:
        for place in re.findall(r"`([\w/]+/)(?:[A-Z]+\.py)?`|`([a-z_/]+\.py)`", row[1]):
            assert (
                any((base / "".join(place)).exists() for base in (PACKAGE, ROOT))
                or (PACKAGE / "checkpoint" / "".join(place)).exists()
            ), row
        for place in re.findall(r"`(tests/[\w/.]*)`", row[3]):
            assert (ROOT / place).exists(), place
        for page in re.findall(r"\]\((\S+?)\)", row[3]):
            assert (ROOT / "docs" / page).exists(), page


def test_it_is_one_page() -> None:
    assert len(PAGE.splitlines()) <= 85
