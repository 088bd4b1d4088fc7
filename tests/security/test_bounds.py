"""A stranger's checkpoint, results and option files: nothing in them leads out, runs, or bursts."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.remote_code import kernels_in
from safeswap.cli import main
from safeswap.errors import CheckpointError, ConfigError, EvaluationError, SafeswapError
from safeswap.evaluation.results.store import open_results, start_results
from safeswap.io.jsonfile import load_json
from stored import HARM, Stored
from tiny import edit_json, make_trio, safetensors_bytes

# ---- checkpoints that are evaluated --------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    pytest.importorskip("torch")
    from safeswap.demo import models_folder

    folder = tmp_path / "model"
    folder.mkdir()
    for path in (models_folder() / "safety").iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


class Runs:
    """What a pickle may do when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def tokenizer(**parts: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "tokenizer.json", **parts)


def config(**parts: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **parts)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Runs(folder / "ran")}))


def zipped_pickle(folder: Path) -> None:
    import torch

    (folder / "model.safetensors").unlink()
    torch.save({"a": Runs(folder / "ran")}, folder / "pytorch_model.bin")


def index_leads_out(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    table = {"model.embed_tokens.weight": "../model.safetensors"}
    index = {"metadata": {}, "weight_map": table}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def file_outside(folder: Path) -> None:
    (folder.parent / "secret").write_text("{}")
    edit_json(folder / "tokenizer_config.json", vocab_file=str(folder.parent / "secret"))


GROWS = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle": (pickled, "no code of a pickle is ever run"),
    "zipped pickle": (zipped_pickle, "no code of a pickle is ever run"),
    "index": (index_leads_out, "outside its own folder"),
    "vocabulary": (file_outside, "vocab_file names .*outside the checkpoint's folder"),
    "layers": (config(num_hidden_layers=10**7), "num_hidden_layers is 10000000, more than"),
    "inner layers": (config(text_config={"n_layer": 10**9}), "n_layer is 1000000000, more than"),
    "kernels": (config(attn_implementation={"": "evil/code"}), "kernels .*code from a hub"),
    "inner kernels": (
        config(text_config={"_attn_implementation": {"vision": "evil/code"}}),
        "kernels .*code from a hub",
    ),
    "normalizer": (
        tokenizer(normalizer={"type": "Sequence", "normalizers": [GROWS] * 4}),
        "replacements of its normalizer make up to 1000000000000 letters",
    ),
    "decoder": (
        tokenizer(
            decoder={"type": "Sequence", "decoders": [{"type": "Sequence", "decoders": [GROWS]}]}
        ),
        "replacements of its decoder",
    ),
    "post-processor": (
        tokenizer(
            post_processor={
                "type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
                "pair": [],
                "special_tokens": {},
            }
        ),
        "repeats a text in 1000 pieces",
    ),
    "expression": (
        tokenizer(
            pre_tokenizer={
                "type": "Split",
                "pattern": {"Regex": "(a+)+$"},
                "behavior": "Isolated",
                "invert": False,
            }
        ),
        "its tokenizer fails on a text",
    ),
    "length": (
        lambda folder: edit_json(folder / "tokenizer_config.json", model_max_length="x"),
        "its tokenizer fails on a text",
    ),
    "generation": (
        lambda folder: (folder / "generation_config.json").write_text("[]") and None,
        "does not load it",
    ),
    "rope": (config(rope_scaling={"rope_type": [1]}), "does not load it"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_checkpoint_that_bursts_or_leads_out_is_refused_in_words(model: Path, kind: str) -> None:
    from safeswap.evaluation.backends import BackendOptions, Chat
    from safeswap.evaluation.backends.hf import HFBackend

    spoil, said = BOMBS[kind]
    spoil(model)
    with pytest.raises(EvaluationError, match=said):
        backend = HFBackend(str(model), BackendOptions(dtype="float32", device="cpu"))
        chat = Chat(({"role": "user", "content": "a" * 60 + "!"},), 2)
        list(backend.respond([chat]))
    assert not (model / "ran").exists()


def test_a_sound_checkpoint_with_traces_of_another_machine_still_runs(model: Path) -> None:
    from safeswap.evaluation.backends import BackendOptions, Chat
    from safeswap.evaluation.backends.hf import HFBackend

    there = {"tokenizer_file": "/home/somebody/tokenizer.json", "vocab_file": None}
    edit_json(model / "tokenizer_config.json", **there, name_or_path="/home/somebody/model")
    backend = HFBackend(str(model), BackendOptions(dtype="float32", device="cpu"))
    assert list(backend.respond([Chat(({"role": "user", "content": "qa"},), 2)]))


def test_kernels_are_known_in_whatever_form(tmp_path: Path) -> None:
    for value in ("evil/code", {"": "evil/code"}, ["evil/code"], {"a": {"b": "evil/code"}}):
        (tmp_path / "config.json").write_text(json.dumps({"_attn_implementation_internal": value}))
        assert "evil/code" in str(kernels_in(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"attn_implementation": {"": "sdpa"}}))
    assert kernels_in(tmp_path) is None


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["one/responses.jsonl", "one/verdicts/guard.jsonl", "settings.json", "one/model.json"]
)
@pytest.mark.parametrize("how", ["link", "pipe", "device"])
def test_results_of_others_write_and_read_nothing_outside(
    tmp_path: Path, name: str, how: str
) -> None:
    made = Stored(tmp_path / "results", {"harm/sw": HARM}).arm("one")
    made.judged("one", "harm/sw", "us")
    path, outside = tmp_path / "results" / name, tmp_path / "outside"
    path.rename(outside)
    if how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside if how == "link" else "/dev/zero")
    before = outside.read_bytes()
    (tmp_path / "rules.yaml").write_text("default: safe\nrules: []\n")
    results, rules = str(tmp_path / "results"), f"rule:{tmp_path / 'rules.yaml'}"
    for words in (
        ["compare", results],
        ["judge", results, "--judge", rules],
        ["label", "sample", results, "--sample", "1", "--out", str(tmp_path / "sheet.csv")],
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 1 and "Error: " in done.output, done.output
    with pytest.raises(SafeswapError):
        start_results(tmp_path / "results", {}, ["one"])  # type: ignore[typeddict-item]
    assert outside.read_bytes() == before


def test_a_folder_of_a_model_that_is_a_link_leads_nowhere_either(tmp_path: Path) -> None:
    Stored(tmp_path / "results", {"harm/sw": HARM}).arm("one").judged("one", "harm/sw", "us")
    (tmp_path / "results" / "one").rename(tmp_path / "elsewhere")
    (tmp_path / "results" / "one").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EvaluationError, match="leads out of the folder"):
        open_results(tmp_path / "results")
    (tmp_path / "results" / "one").unlink()
    (tmp_path / "elsewhere").rename(tmp_path / "results" / "one")
    (tmp_path / "link").symlink_to(tmp_path / "results")  # the user's own link to the whole
    assert open_results(tmp_path / "link").models == ["one"]


# ---- files of options ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "trust-remote-code: true",
        "trust_remote_code: true",
        "allow-remote: true",
        "base-url: http://evil.example/v1",
        "judge-url: http://evil.example/v1",
        "api-key-variable: HF_TOKEN",
        "engine: {worker_cls: evil.Worker}",
        "models: [https://evil.example/org/name]",
        "models: [x=https://evil.example/org/name]",
        "judge: https://u:p@evil.example/org/name",
    ],
)
def test_a_file_of_options_runs_nothing_and_names_no_host(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"{line}\n")
    verb = "merge" if "allow" in line else "evaluate"
    done = CliRunner().invoke(main, [verb, "--config", str(path)])
    assert done.exit_code == 1, done.output
    assert "on the command line" in done.output and "u:p" not in done.output


# ---- files of many values ------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["[],", "{},", "0,", '"",'])
def test_a_file_of_more_values_than_any_has_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    path = tmp_path / "bomb.json"
    path.write_text(f"[{unit * 1000}0]")
    assert len(load_json(path)) == 1001
    monkeypatch.setattr("safeswap.io.jsonfile.MOST", 1000)
    monkeypatch.setattr("safeswap.io.jsonfile.json.loads", None)
    with pytest.raises(ConfigError, match="more than 1000 values"):
        load_json(path)


def test_a_header_of_more_values_than_any_has(tmp_path: Path) -> None:
    body = b'{"a":[' + b"[]," * (17 << 20) + b"0]}"
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(body))
    with pytest.raises(CheckpointError, match="more than 33554432 values"):
        read_header(tmp_path / "x.safetensors")


def test_an_index_of_a_merge_that_leads_out_is_refused(tmp_path: Path) -> None:
    trio = make_trio(tmp_path, layers=1, width=8, inner=8, words=16)
    index = trio["sw"] / "model.safetensors.index.json"
    text = index.read_text().replace("model-00001", "../base/model-00001")
    index.write_text(text)
    words = ["merge", str(trio["base"]), "--safety", str(trio["safety"])]
    words += ["--language", f"sw={trio['sw']}", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1 and "outside its own folder" in done.output
