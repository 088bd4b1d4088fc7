"""docs/inputs.md names what is read of narrow weights, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeswap.checkpoint.precisions.found import FP8_METHODS
from safeswap.checkpoint.precisions.gguf_header import TYPES
from safeswap.checkpoint.precisions.gguf_names import ARCHITECTURES

PAGE = (Path(__file__).parents[2] / "docs/inputs.md").read_text(encoding="utf-8")
_, _, SECTION = PAGE.partition("## Weights that are stored narrow")
SECTION = SECTION.partition("\n## ")[0]


@pytest.mark.parametrize("method", [m for m in FP8_METHODS if m != "mxfp8"])
def test_methods_of_fp8(method: str) -> None:
    assert f"`{method}`" in SECTION or f"quant_method: {method}" in SECTION


def test_types_of_gguf() -> None:
    (row,) = (line for line in SECTION.splitlines() if line.startswith("| GGUF"))
    for kind in TYPES.values():
        between = kind.name in ("Q3_K", "Q4_K", "Q5_K")  # Q2_K to Q6_K
        assert kind.name in row or between, kind.name


def test_architectures_of_gguf() -> None:
    (sentence,) = (part for part in SECTION.split("Architectures: ")[1:])
    named = sentence.partition(". ")[0].replace("(Llama, Mistral, Mixtral)", "")
    assert {name.strip() for name in named.replace("\n", " ").split(",")} == set(ARCHITECTURES)
