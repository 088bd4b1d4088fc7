"""What cannot be fetched is known before a model is loaded, and both ways out are named."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("lm_eval")

import datasets
import huggingface_hub

from safeswap.demo import models_folder
from safeswap.errors import EvaluationError
from safeswap.evaluation import pipeline
from safeswap.evaluation.harness import at_hand


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What the hub was asked for; it is out of reach, and no model may be loaded."""
    seen: list[str] = []

    class Dead:
        def dataset_info(self, path: str, timeout: float) -> None:
            seen.append(path)
            raise OSError("no route to host")

    def loaded(*arguments: object, **named: object) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(huggingface_hub, "HfApi", Dead)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(pipeline.generate, "loaded", loaded)
    return seen


def evaluate(tmp_path: Path, suite: str = "belebele,mgsm") -> None:
    made = pipeline.make_suite(suite, ["sw"])
    pipeline.evaluate([f"a={models_folder() / 'base'}"], made, tmp_path / "r")


@pytest.mark.parametrize("offline", [True, False])
def test_datasets_that_cannot_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], offline: bool
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    with pytest.raises(EvaluationError) as caught:
        evaluate(tmp_path)
    message = str(caught.value)
    for words in ("belebele/sw, mgsm/sw", "facebook/belebele", "--data belebele/sw=FILE"):
        assert words in message
    assert "--suite safety" in message
    assert ("HF_HUB_OFFLINE is set" in message) == offline
    assert asked == [] if offline else len(asked) == 1  # a dead network is not asked twice


def test_what_is_in_the_cache_is_not_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "cache" / "facebook___belebele").mkdir(parents=True)
    with pytest.raises(AssertionError, match="a model is loaded"):
        evaluate(tmp_path, "belebele")
    assert at_hand._plain("juletxara/mgsm") == at_hand._plain("juletxara___mgsm")
