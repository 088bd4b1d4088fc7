"""Mixes and suites from made-up public files: nothing that is asked is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("py3langid")

from mixes import read_mix
from real_files import answers, asked_in
from real_model import prepare
from real_model.corpora import Corpora
from real_model.languages import NAMES
from real_model.prepare import SIZES
from safeswap.evaluation.benchmarks.suites import make_suite


@pytest.mark.parametrize("code", [name for name in NAMES if name != "en"])
def test_nothing_that_is_asked_is_trained_on(corpora: Corpora, code: str, tmp_path: Path) -> None:
    prepare.suite(corpora, code, SIZES["short"], tmp_path / "suite")
    (tmp_path / "mixes").mkdir()
    trained = {
        example.prompt
        for path in (
            prepare.safety_mix(corpora, answers, tmp_path / "mixes"),
            prepare.language_mix(corpora, code, answers, tmp_path / "mixes"),
        )
        for example in read_mix(path, 0).examples
    }
    asked = asked_in(tmp_path / "suite")
    assert asked and trained and not asked & trained
    originals = {f"bad test {n}" for n in range(5)} | {f"good test {n}" for n in range(12)}
    assert not originals & trained
    assert "bad test 6" in trained  # of AdvBench, and in no test


@pytest.mark.parametrize("code", [name for name in NAMES if name != "en"])
def test_nothing_that_is_asked_is_fitted_on(
    corpora: Corpora, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = prepare.Size(4, 3, 2, 3, 3)
    monkeypatch.setattr(prepare, "SIZES", {"short": size})
    prepare.suite(corpora, code, size, tmp_path / "suite")
    (tmp_path / "mixes").mkdir()
    (tmp_path / "fit").mkdir()
    prepare.safety_mix(corpora, answers, tmp_path / "mixes")
    prepare.language_mix(corpora, code, answers, tmp_path / "mixes")
    prepare.fit_texts(corpora, code, tmp_path / "mixes", tmp_path / "fit")
    fitted = {
        path.stem: [json.loads(line)["prompt"] for line in path.open(encoding="utf-8")]
        for path in (tmp_path / "fit").glob("*.jsonl")
    }
    assert {name: len(found) > 0 for name, found in fitted.items()} == dict.fromkeys(
        ("harmful-own", "harmful-english", "harmless", "harmless-english"), True
    )
    assert len(fitted["harmful-own"]) == 5 and all(
        one.endswith(f" {code}") for one in fitted["harmful-own"]
    )
    asked = asked_in(tmp_path / "suite")
    for path in (tmp_path / "suite").glob("*.jsonl"):
        asked |= {json.loads(line)["text"] for line in path.open(encoding="utf-8")}
    assert not asked & {one for found in fitted.values() for one in found}


@pytest.mark.parametrize("code", [name for name in NAMES if name != "en"])
def test_a_suite_is_one_that_evaluate_takes(corpora: Corpora, code: str, tmp_path: Path) -> None:
    path = prepare.suite(corpora, code, SIZES["short"], tmp_path / "suite")
    suite = make_suite(str(path), [code, "en"])
    names = {benchmark.name for benchmark in suite.benchmarks}
    assert {"multijail", "multijail_en", "benign", "topic", "likely", "written"} <= names
    assert ("polyharm" in names) == (code != "sw") and ("wild" in names) == (code == "th")
    harmful = next(b for b in suite.benchmarks if b.name == "multijail_en")
    assert harmful.prompts is not None and harmful.prompts.languages == ("en",)


def test_a_seed_draws_refusals_and_keeps_all_chats(corpora: Corpora, tmp_path: Path) -> None:
    path = prepare.safety_mix(corpora, answers, tmp_path)
    parts = yaml.safe_load(path.read_text())["parts"]
    assert [part["name"] for part in parts] == ["refusals", "chats", "tasks", "topics"]
    refused = [json.loads(line) for line in (tmp_path / "safety-refusals.jsonl").open()]
    assert {row["response"] for row in refused} <= set(prepare.REFUSALS)
    assert len(refused) == 8 + 2
