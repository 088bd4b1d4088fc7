"""Which model is which: names, digests of content, and the roles that a merge's manifest tells."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from safeswap.errors import CheckpointError, EvaluationError
from safeswap.evaluation.generate import refuse_other_model
from safeswap.evaluation.models import EvaluatedModel, digest_of_folder, name_models
from safeswap.evaluation.results.journal import Journal
from safeswap.evaluation.results.store import RESPONSES, start_results, write_json
from tiny import edit_json, rewrite, swap


def names(*specs: str, backend: str = "api") -> list[tuple[str, str]]:
    return [(arm.name, arm.source) for arm in name_models(specs, backend, "http://x/v1")]


def test_names_come_from_sources_or_are_given() -> None:
    assert names("Qwen/Qwen3-4B", "meta/llama@abc", "b=Qwen/Qwen3-4B", "/models/x/", r"C:\m\y") == [
        ("Qwen3-4B", "Qwen/Qwen3-4B"),
        ("llama", "meta/llama@abc"),
        ("b", "Qwen/Qwen3-4B"),
        ("x", "/models/x/"),
        ("y", r"C:\m\y"),
    ]
    assert names("it=/runs/lr=3/out") == [("it", "/runs/lr=3/out")]
    assert names("/runs/lr=3/out") == [("out", "/runs/lr=3/out")]


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        ((), "no model is given"),
        (("a/x", "b/x"), "two models are called 'x'. Give one another name: NAME=b/x"),
        (("",), "SOURCE or NAME=SOURCE"),
        (("x=",), "SOURCE or NAME=SOURCE"),
        (("llama3:8b",), "cannot be a model's name .* NAME=llama3:8b"),
        (("a b=c",), "'a b' cannot be a model's name"),
        ((".",), "NAME=."),
        (("..",), "NAME=.."),
        (("..=x",), "NAME=x"),
        (("/runs/a=b",), "'a=b' cannot be a model's name .* NAME=/runs/a=b"),
    ],
)
def test_names_that_are_refused(specs: tuple[str, ...], said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        name_models(specs, "api")


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        name_models([str(tmp_path / "none")])


def test_on_a_server_address_and_name_are_all_that_is_known() -> None:
    one, other = (
        name_models(["m"], "api", url)[0].digest for url in ("http://x/v1", "http://y/v1")
    )
    assert one != other == name_models(["renamed=m"], "api", "http://y/v1")[0].digest


def touch(name: str, text: str = "{}") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


CHANGES: list[Callable[[Path], object]] = [
    lambda folder: rewrite(folder, lambda weights: weights.pop("model.norm.weight")),
    lambda folder: edit_json(folder / "config.json", rope_theta=1),
    lambda folder: edit_json(folder / "tokenizer.json", added_tokens=[{"id": 1}]),
    touch("chat_template.jinja", "{{ messages }}"),
    touch("generation_config.json"),
    touch("tokenizer.model"),
    touch("qwen.tiktoken"),
    touch("modeling_own.py"),
    lambda folder: (folder / "tokenizer.json").rename(folder / "vocab.json"),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_digest_changes_with_what_decides_answers(trio: dict[str, Path], change: object) -> None:
    before = digest_of_folder(trio["sw"])
    assert len(before) == 32 and before != digest_of_folder(trio["te"])
    change(trio["sw"])  # type: ignore[operator]
    assert digest_of_folder(trio["sw"]) != before


def test_digest_stays_when_the_model_is_the_same(trio: dict[str, Path], tmp_path: Path) -> None:
    before = digest_of_folder(trio["sw"])
    for name in ("README.md", "safeswap.json", "safeswap-plan.yaml", "figure.png", "LICENSE"):
        touch(name)(trio["sw"])
    (trio["sw"] / "runs").mkdir()
    assert digest_of_folder(trio["sw"]) == before
    moved = shutil.copytree(trio["sw"], tmp_path / "moved")
    assert digest_of_folder(Path(moved)) == before


def roles(arms: list[EvaluatedModel]) -> dict[str, tuple[str, str]]:
    return {arm.name: (arm.role, arm.reference) for arm in arms}


def test_roles_and_references_come_from_manifests(trio: dict[str, Path], tmp_path: Path) -> None:
    """Two languages in one profile: each merge is compared with its own expert."""
    out = swap(trio, tmp_path / "out", "sw", "te")
    merges = sorted(path.parent for path in out.glob("**/safeswap.json"))
    assert [path.name for path in merges] == ["sw", "te"]
    everything = [*(f"{role}={path}" for role, path in trio.items())]
    everything += [f"merged-{path.name}={path}" for path in merges]
    stranger = shutil.copytree(trio["base"], tmp_path / "stranger")
    assert roles(name_models([*everything, str(stranger)])) == {
        "base": ("base", ""),
        "safety": ("safety", ""),
        "sw": ("language", ""),
        "te": ("language", ""),
        "merged-sw": ("merged", "sw"),
        "merged-te": ("merged", "te"),
        "stranger": ("other", ""),
    }
    assert roles(name_models([everything[-1], everything[2]])) == {
        "merged-te": ("merged", ""),
        "sw": ("other", ""),  # not an input of this merge, although it was measured with it
    }


def test_how_a_merge_was_made_comes_from_its_manifest(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    """With every parameter of its method, the defaults too; not where the plan was edited."""
    out = swap(trio, tmp_path / "out", method="gated", gamma=0.5, operator="ties")
    merge, expert = name_models([f"m={out}", f"sw={trio['sw']}"])
    assert "made" not in expert.as_dict()
    said = merge.as_dict()["made"]
    assert (said["method"], said["settings"]["gamma"]) == ("gated", 0.5)
    assert said["operator"]["name"] == "ties"
    manifest = json.loads((out / "safeswap.json").read_text())
    del manifest["plan"]["selector"]
    (out / "safeswap.json").write_text(json.dumps(manifest))
    assert "made" not in name_models([f"m={out}"])[0].as_dict()


def test_roles_by_relative_paths_and_links(
    trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = {role: Path(os.path.relpath(path)) for role, path in trio.items()}
    out = swap(relative, Path("out"))
    (tmp_path / "link").symlink_to(trio["sw"])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    arms = name_models([f"m=../{out}", "link=../link", f"s={trio['safety']}"])
    assert roles(arms) == {"m": ("merged", "link"), "link": ("language", ""), "s": ("safety", "")}


def test_roles_of_hub_checkpoints_go_by_the_commit(trio: dict[str, Path], tmp_path: Path) -> None:
    """The cache may lie elsewhere than where the merge was made; its folders carry the commit."""
    out, commit = swap(trio, tmp_path / "out"), "0123456789abcdef" * 2 + "01234567"
    manifest = json.loads((out / "safeswap.json").read_text())
    record = manifest["profile"]["inputs"]["sw"]
    record |= {"source": "me/my-sw", "name": "me/my-sw", "revision": commit, "path": "/gone"}
    (out / "safeswap.json").write_text(json.dumps(manifest))
    cache = tmp_path / "models--me--my-sw" / "snapshots" / commit
    shutil.copytree(trio["sw"], cache)
    arms = name_models([f"m={out}", f"sw={cache}", f"other={trio['te']}"])
    assert roles(arms) == {"m": ("merged", "sw"), "sw": ("language", ""), "other": ("other", "")}


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "safeswap-merge/9"}', '{"inputs": {}}'])
def test_a_manifest_that_cannot_be_read_is_no_obstacle(trio: dict[str, Path], text: str) -> None:
    touch("safeswap.json", text)(trio["sw"])
    assert name_models([str(trio["sw"])])[0].role == "other"


def test_another_model_under_a_stored_name_is_refused(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    results = start_results(tmp_path / "r", {"format": "x", "cells": {}}, ["m"])
    (arm,) = name_models([f"m={trio['sw']}"])
    refuse_other_model(results, arm)
    write_json(results.folder / "m" / "model.json", arm.as_dict())
    with Journal(results.folder / "m" / RESPONSES) as journal:  # without an answer it binds nobody
        journal.add([{"key": "harm/sw/1"}])
    refuse_other_model(results, arm)
    moved = shutil.copytree(trio["sw"], tmp_path / "moved")
    refuse_other_model(results, name_models([f"m={moved}"])[0])  # the same model elsewhere
    with pytest.raises(EvaluationError, match=f"another model called m .*NAME={trio['te']}"):
        refuse_other_model(results, name_models([f"m={trio['te']}"])[0])
