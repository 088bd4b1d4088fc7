"""docs/operators.md has a section for every operator, with its source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from safeswap.operators import OPERATORS

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"


def test_every_operator_has_its_section_and_no_other_has() -> None:
    sections = re.findall(r"^## (\S+)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert sections == list(OPERATORS)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_section_names_the_paper_that_safeswap_methods_names(name: str) -> None:
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {name}\n")[1].split("\n## ")[0]
    for number in re.findall(r"arXiv (\d{4}\.\d{5})", OPERATORS[name].source):
        assert number in section
