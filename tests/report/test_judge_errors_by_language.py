"""Corrected rates: each language by its own labels, and no number where labels carry none."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from safeswap.evaluation.human import Annotation, Annotations
from safeswap.evaluation.results.outcomes import gather
from safeswap.evaluation.stats import (
    Rate,
    clustered_interval,
    paired_difference,
    rate_by_clusters,
    rogan_gladen,
)
from safeswap.report.answer_quality import corrected_table
from safeswap.report.comparison import rates_table
from safeswap.tables import Table
from stored import HARM, Stored


def labels(code: str, arm: str, counts: tuple[int, int, int, int]) -> list[Annotation]:
    """Unsafe called so and not, safe called so and not."""
    kinds = (("unsafe", "unsafe"), ("unsafe", "safe"), ("safe", "safe"), ("safe", "unsafe"))
    return [
        Annotation(f"{code}{arm}{k}{n}", arm, "harm", code, human, verdict, code + arm)
        for k, ((human, verdict), count) in enumerate(zip(kinds, counts, strict=True))
        for n in range(count)
    ]


def sheet(*parts: list[Annotation]) -> Annotations:
    every = [one for part in parts for one in part]
    strata = {one.stratum: sum(o.stratum == one.stratum for o in every) for one in every}
    return Annotations(tuple(every), {**strata, "a / harm / sw / unsafe": 40}, 0, 0, 0)


def rows(table: Table) -> dict[tuple[str, str], str]:
    return {(r.cells[0].text, r.cells[1].text): r.cells[3].text for r in table.rows}


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    stored = Stored(tmp_path, {f"harm/{code}": HARM for code in ("sw", "te", "jv")})
    for arm in ("a", "b"):
        stored.arm(arm)
        for code in ("sw", "te", "jv"):
            stored.judged(arm, f"harm/{code}", "u" * 40 + "s" * 60)
    return tmp_path


def test_each_language_has_its_own_error_rates(evidence: Path) -> None:
    good, poor = labels("sw", "a", (95, 5, 97, 3)), labels("te", "a", (60, 40, 95, 5))
    table = corrected_table(gather([evidence]), sheet(good, poor))
    found = rows(table)
    assert found["a", "sw"].startswith(f"{100 * (0.4 + 0.97 - 1) / (0.95 + 0.97 - 1):.1f} [")
    assert found["b", "te"].startswith(f"{100 * (0.4 + 0.95 - 1) / (0.60 + 0.95 - 1):.1f} [")
    assert found["a", "jv"] == "n/a"
    notes = " ".join(table.notes)
    assert "sw: 200 hand labels" in notes and "40 responses are in strata without" in notes
    assert "jv: 0 hand labels" in notes and "one language each, over its models" in notes


def test_a_judge_that_errs_otherwise_on_one_model_is_said(evidence: Path) -> None:
    one, other = labels("sw", "a", (40, 10, 95, 5)), labels("sw", "b", (40, 10, 75, 25))
    notes = " ".join(corrected_table(gather([evidence]), sheet(one, other)).notes)
    assert "the judge's specificity differs between models (p < 0.001)" in notes
    alike = corrected_table(gather([evidence]), sheet(one, labels("sw", "b", (41, 9, 94, 6))))
    assert "differs between models" not in " ".join(alike.notes)


@pytest.mark.parametrize(
    "counts", [((5, 315), (45, 50), (80, 100)), ((0, 315), (45, 50), (90, 100))]
)
def test_labels_that_do_not_fit_give_no_number(counts: tuple[tuple[int, int], ...]) -> None:
    found = rogan_gladen(*counts)
    assert found.value is None and found.interval is None
    assert found.reason is not None and "labels do not fit" in found.reason


def test_the_first_discordant_pair_does_not_narrow_an_interval() -> None:
    """315 prompts in 10 languages: widths change evenly with what is seen to differ."""
    clusters = [n % 315 for n in range(3150)]
    widths = []
    for apart in range(12):
        candidate = np.zeros(3150)
        candidate[:apart] = 1
        widths.append(paired_difference(candidate, np.zeros(3150), clusters).interval.width)
    assert widths[0] == pytest.approx(2 * 1.96**2 / (315 + 1.96**2), rel=1e-3)
    assert widths[1] > 0.95 * widths[0]
    assert all(after > 0.4 * before for before, after in itertools.pairwise(widths))


def test_intervals_by_clusters_cover() -> None:
    """488 passages of about two questions, answers that go with the passage in part."""
    generator, held = np.random.default_rng(1), 0
    names = [n // 2 for n in range(600)]
    for _ in range(150):
        passage = generator.beta(0.7 * 2, 0.3 * 2, size=300)  # intra-passage correlation 1/3
        values = (generator.random(600) < np.repeat(passage, 2)).astype(float)
        held += 0.7 in clustered_interval(values, names)
    assert held >= 136  # 0.95 of 150, less three standard errors: 134.5


def test_a_rate_knows_its_clusters(tmp_path: Path) -> None:
    alone = Rate.of([1, 0] * 50)
    shared = rate_by_clusters([1] * 50 + [0] * 50, [n // 10 for n in range(100)])
    assert shared.value == alone.value and shared.interval.width > 1.5 * alone.interval.width
    assert rate_by_clusters([1, 0], ["a", "b"]) == Rate.of([1, 0])


def test_models_of_two_engines_in_one_table_are_said(evidence: Path) -> None:
    import json

    def note() -> str:
        return " ".join(rates_table(gather([evidence])).notes)

    assert "ran differently" not in note()
    for arm, backend in (("a", "hf"), ("b", "vllm")):
        path = evidence / arm / "model.json"
        about = json.loads(path.read_text()) | {"backend": backend, "dtype": "float32"}
        path.write_text(json.dumps(about))
    assert "Warning: models ran differently (a: backend hf; b: backend vllm)" in note()
