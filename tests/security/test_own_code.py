"""Code that a checkpoint brings along runs only where the user said so, and nobody is asked."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from click.testing import CliRunner

from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import BackendOptions, open_backend
from tiny import edit_json

OPTIONS = {"dtype": "float32", "device": "cpu"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(models_folder() / "base", tmp_path / "model"))


def bring_code(model: Path) -> Path:
    """A configuration class of the folder's own; importing it leaves a mark."""
    mark = model.parent / "mark"
    (model / "configuration_x.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import LlamaConfig\n"
        "class XConfig(LlamaConfig):\n    model_type = 'unheard-of'\n"
    )
    edit_json(
        model / "config.json",
        model_type="unheard-of",
        auto_map={"AutoConfig": "configuration_x.XConfig"},
    )
    return mark


def test_a_yes_from_a_pipe_runs_nothing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = bring_code(model)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\ny\ny\n"))
    with pytest.raises(EvaluationError, match=r"config\.json.*XConfig.*--trust-remote-code"):
        open_backend(str(model), "hf", BackendOptions(**OPTIONS))  # type: ignore[arg-type]
    assert not mark.exists()


def test_the_users_own_word_is_enough(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = bring_code(model)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "c"))
    options = BackendOptions(**OPTIONS, trust_remote_code=True)  # type: ignore[arg-type]
    with pytest.raises(EvaluationError):  # the class is loaded, and is no model that answers
        open_backend(str(model), "hf", options)
    assert mark.exists()


def test_a_model_that_transformers_knows_runs_without_its_code(model: Path) -> None:
    edit_json(model / "config.json", auto_map={"AutoConfig": "configuration_x.XConfig"})
    edit_json(
        model / "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization_x.X", None]}
    )
    open_backend(str(model), "hf", BackendOptions(**OPTIONS)).close()  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_kernels_of_another_repository_are_code(model: Path, key: str) -> None:
    edit_json(model / "config.json", **{key: "evil/kernels"})
    with pytest.raises(EvaluationError, match="asks for the kernels 'evil/kernels'"):
        open_backend(str(model), "hf", BackendOptions(**OPTIONS))  # type: ignore[arg-type]


def test_every_verb_that_loads_a_model_has_the_option() -> None:
    for verb in ("evaluate", "judge", "calibrate", "sweep", "search"):
        shown = CliRunner().invoke(main, [verb, "--help"]).output
        assert "--trust-remote-code" in shown, verb


def test_a_tokenizer_of_its_own_is_refused_too(model: Path) -> None:
    edit_json(model / "config.json", model_type="unheard-of")
    edit_json(
        model / "tokenizer_config.json",
        tokenizer_class="XTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_x.XTokenizer", None]},
    )
    assert json.loads((model / "tokenizer_config.json").read_text())["auto_map"]
    with pytest.raises(EvaluationError, match=r"tokenizer_config\.json: names Python code"):
        open_backend(str(model), "hf", BackendOptions(**OPTIONS))  # type: ignore[arg-type]


@pytest.mark.parametrize("trusted", [False, True])
def test_vllm_is_told_the_users_word(trusted: bool) -> None:
    """The one engine, for chats and for lm-eval, is started with these arguments."""
    import types

    told: dict[str, Any] = {}
    stand_in = types.SimpleNamespace(
        LLM=lambda **given: told.update(given) or types.SimpleNamespace(),
        TokensPrompt=None,
        SamplingParams=None,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "vllm", stand_in)
        patch.delitem(sys.modules, "safeswap.evaluation.backends.vllm", raising=False)
        from safeswap.evaluation.backends.vllm import VLLMBackend

        options = BackendOptions(trust_remote_code=trusted, engine={"max_model_len": 8})
        VLLMBackend(str(models_folder() / "base"), options)
        assert told["trust_remote_code"] is trusted and told["max_model_len"] == 8
        patch.delitem(sys.modules, "safeswap.evaluation.backends.vllm")
