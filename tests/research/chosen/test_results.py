"""The tables on the page are those of the counts that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from safeswap.demo.documents import exam
from safeswap.demo.world import SMALL_LANGUAGES, default_world
from small_world.chosen.__main__ import report
from small_world.chosen.families import all_options
from small_world.chosen.records import Records
from small_world.masks.verdicts import dev_half

ROOT = Path(__file__).parents[3]
RECORDS = Records.load(ROOT / "research" / "small_world" / "chosen" / "seeds.json")


def test_every_seed_has_all_languages_and_models() -> None:
    seeds = {case.cell["seed"] for case in RECORDS.cases}
    found = sorted((case.cell["seed"], case.language) for case in RECORDS.cases)
    assert found == sorted((seed, code) for seed in seeds for code in SMALL_LANGUAGES)
    for case in RECORDS.cases:
        assert case.names == tuple(option.name for option in all_options())
        questions = exam(default_world(), case.language)
        dev = dev_half(questions)
        for half, taken in (("dev", dev), ("test", ~dev)):
            counted = case.halves[half]
            harmful = sum(q.kind == "harmful" for q, t in zip(questions, taken, strict=True) if t)
            assert (counted.harmful, counted.harmless) == (harmful, int(taken.sum()) - harmful)
            assert (counted.counts >= 0).all()
            assert (counted.counts[:, 1] <= counted.counts[:, 0]).all()
            assert (counted.counts[:, 2] + counted.counts[:, 3] <= counted.harmless).all()


def test_the_page_shows_these_tables() -> None:
    page = (ROOT / "docs" / "small-world.md").read_text(encoding="utf-8")
    tables = [part for part in report(RECORDS.cases).split("\n\n") if part.startswith("|")]
    for table in tables[:2]:
        assert table in page
