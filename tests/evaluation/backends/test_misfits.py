"""A package compiled for another torch is named with its remedy by verbs that load a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("lm_eval")

from evaluation.standin import MODEL, OTHER, RULES, write_suite
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends.misfits import misfit, misfits_in_words
from stored import HARM, Stored

SAID = "torchvision 0.99.0 does not fit torch"
REMEDY = "pip uninstall torchvision"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder of packages with a torchvision that fails as PyPI's does beside a torch of a
    processor.
    """
    site = tmp_path / "site"
    (site / "torchvision").mkdir(parents=True)
    (site / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')\n"
    )
    about = site / "torchvision-0.99.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.99.0\n")
    (about / "top_level.txt").write_text("torchvision\n")
    return site


def typed(site: Path, folder: Path, *words: str | Path) -> tuple[int, str]:
    """What a command in a process of its own ends with and says."""
    path = os.pathsep.join([str(site), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", "from safeswap.cli import run; run()", *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stderr


def test_every_verb_that_loads_a_model_says_it(broken: Path, tmp_path: Path) -> None:
    language = OTHER.parent / "qab"
    suite = write_suite(tmp_path / "suite", 4)
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "texts.txt").write_text("a b\n")
    asked = {"base": str(OTHER), "safety": str(MODEL), "languages": {"qab": str(language)}}
    asked |= {"suite": str(suite), "judge": f"rule:{tmp_path / 'rules.yaml'}"}
    sweep = asked | {"grid": [{"method": "soup"}]}
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    (tmp_path / "search.yaml").write_text(json.dumps(asked))
    Stored(tmp_path / "judged", {"harm/sw": HARM}).arm("one").judged("one", "harm/sw", "us")
    verbs: list[list[str | Path]] = [
        ["evaluate", MODEL, "--suite", suite, "--only", "qab", "-o", "results"],
        ["judge", "judged", "--judge", MODEL, "--kind", "qwen3guard"],
        ["calibrate", OTHER, "--safety", MODEL, "--language", f"qab={language}", "--texts",
         "texts.txt", "-o", "grams"],
        ["sweep", "sweep.yaml", "-o", "swept"],
        ["search", "search.yaml", "--trials", "1", "-o", "searched"],
    ]  # fmt: skip
    for words in verbs:
        status, said = typed(broken, tmp_path, *words)
        assert status == 1 and SAID in said and REMEDY in said, (words[0], said)
        assert "Traceback" not in said


def test_only_what_is_broken_is_accused(broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nested = RuntimeError("Failed to import transformers.models.x")
    nested.__cause__ = RuntimeError("operator torchvision::nms does not exist")
    assert misfit(nested) is None  # none is installed here
    monkeypatch.syspath_prepend(str(broken))
    assert SAID in str(misfit(nested)) and "nms" in str(misfit(nested))
    assert misfit(ValueError("a model that is wrong by itself")) is None


def test_an_error_raised_below_its_files_is_known_without_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of torchcodec: ``OSError: libnvrtc.so.13: cannot open shared object file``."""
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text("raise OSError('libnvrtc.so.13: no file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = r"torchcodec .* does not fit.*uninstall torchcodec"
    with pytest.raises(EvaluationError, match=said), misfits_in_words():
        import torchcodec  # noqa: F401
