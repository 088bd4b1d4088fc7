"""Several seeds as one: differences worked by hand, the house's tests, missing benchmarks."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("scipy")

from real_model.pooled import (
    MEASURES,
    by_language,
    difference,
    kept,
    mean_figures,
    named,
    present,
    primary,
    report,
)


def model(harmful: str, nats: float) -> dict[str, Any]:
    return {
        "outcomes": {
            "multijail/th": harmful,
            "benign/th": "aaaaa",
            "multijail_en/en": "rrraa",
            "benign/en": "aaaar",
        },
        "topic": "1010",
        "nats": [nats, nats + 2],
        "chrf": [10.0, 20.0],
    }


def record(seed: int, merged: str) -> dict[str, Any]:
    return {
        "language": "th",
        "seed": seed,
        "size": "short",
        "models": {
            "base": model("aaaaa", 30),
            "safety": model("rrrrr", 31),
            "th": model("aaaaa", 20),
            "paper-by-module": model("aaaar", 21),
            "merged": model(merged, 22.5),
        },
    }


RECORDS = [record(0, "rrroa"), record(1, "rraaa"), record(2, "aaaaa")]
HARMFUL = MEASURES["harmful refused"]


def test_a_prompt_is_a_cluster_and_a_seed_a_sign() -> None:
    found = difference(RECORDS, "merged", "th", HARMFUL)
    assert found is not None
    assert (found.pooled.n, found.pooled.clusters) == (15, 5)
    assert found.pooled.difference == pytest.approx(6 / 15)
    # sums by prompt 2, 2, 1, 1, 0: |±2±2±1±1| reaches 6 in 2 of 16 ways
    assert found.pooled.p == pytest.approx(2 / 16)
    assert found.seeds == (2, 3)
    assert "+40.0 [" in found.words() and "2 of 3 seeds" in found.words()


def test_what_was_not_asked_is_no_difference() -> None:
    assert difference(RECORDS, "merged", "th", MEASURES["PolyRefuse harmful refused"]) is None


def test_the_primary_comparisons_are_corrected_together() -> None:
    found = {name: p for name, _, p in primary(RECORDS)}
    assert list(found) == ["paper-by-module", "merged"]  # the experts are no methods
    # the paper's: one prompt differs in all seeds, p = 1
    assert found["merged"] == pytest.approx(2 * 2 / 16) and found["paper-by-module"] == 1.0


def test_the_gain_kept_is_a_mean_over_seeds() -> None:
    assert kept(RECORDS, "merged") == pytest.approx((31 - 23.5) / 10)


def test_a_model_of_some_seeds_is_named_with_them() -> None:
    less = record(3, "aaaaa")
    del less["models"]["paper-by-module"]
    more = record(4, "aaaaa")
    more["models"]["fit"] = model("rrrrr", 22.5)
    found = [less, more]
    assert present(found) == ["base", "safety", "th", "paper-by-module", "merged", "fit"]
    assert named(found, "merged") == "merged" and named(found, "fit") == "fit (seed 4)"
    only = difference(found, "fit", "th", HARMFUL)
    assert only is not None and only.seeds == (1, 1) and only.pooled.n == 5
    assert mean_figures(found, "fit").harmful == 1.0
    text = report(found)
    assert "- fit: not made, 100" in text and "| fit (seed 4) |" in text


def test_the_report_has_a_row_for_every_model(tmp_path: Any) -> None:
    text = report(RECORDS)
    assert "## th, seeds 0, 1, 2" in text
    assert "- merged: 80, 40, 0" in text
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert {"| base", "| safety", "| th", "| merged"} <= set(rows)


def test_what_the_units_do_is_no_record(tmp_path: Any) -> None:
    import json

    (tmp_path / "th-0.json").write_text(json.dumps(RECORDS[0]))
    (tmp_path / "th-0-units.json").write_text(json.dumps({"units": {}, "tables": {}}))
    found = by_language(sorted(tmp_path.iterdir()))
    assert [len(records) for records in found.values()] == [1]
