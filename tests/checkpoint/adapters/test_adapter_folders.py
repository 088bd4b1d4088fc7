"""What an adapter's folder may hold and name: spellings that are read, all else refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from plain_adapter import numbers_of, write_adapter
from safeswap import api
from safeswap.checkpoint.adapted import open_member
from safeswap.checkpoint.model import open_checkpoint
from tiny import Tensors, edit_json, make_weights, refused, save_checkpoint

Trio = dict[str, Path]
Q = "model.layers.0.self_attn.q_proj.weight"
FILE = "adapter_model.safetensors"


def rename(folder: Path, change: Callable[[str], str]) -> None:
    tensors = load_file(folder / FILE)
    save_file({change(name): value for name, value in tensors.items()}, folder / FILE)


def numbers(trio: Trio, folder: Path, **given: Any) -> dict[str, Any]:
    base = open_checkpoint(trio["base"])
    found = open_member("sw", folder, base=base, **given)[0].tensors
    read = {}
    for name, tensor in found.items():
        read[name] = np.empty(tensor.elements)
        with tensor.reader() as reader:
            reader.read_numbers(0, tensor.elements, read[name])
    return read


SPELLINGS: dict[str, Callable[[str], str]] = {
    "unsloth, no prefix": lambda n: n.removeprefix("base_model.model."),
    "twice the prefix": lambda n: f"base_model.model.{n}",
    "no body": lambda n: n.replace("base_model.model.model.", "base_model.model."),
    "another body": lambda n: n.replace("model.model.layers", "model.model.language_model.layers"),
    "adapter's name": lambda n: n.replace(".weight", ".default.weight"),
    "fsdp": lambda n: n.replace("layers.0", "layers.0._fsdp_wrapped_module"),
    "compiled": lambda n: n.replace("base_model.model.", "base_model.model._orig_mod."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_names_of_other_tools(trio: Trio, tmp_path: Path, spelling: str) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    wanted = numbers(trio, tmp_path / "sw")
    rename(tmp_path / "sw", SPELLINGS[spelling])
    found = numbers(trio, tmp_path / "sw")
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_a_pickled_adapter_is_read_without_running_it(trio: Trio, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    write_adapter(tmp_path / "sw", trio["base"])
    wanted = numbers(trio, tmp_path / "sw")
    state = {n: torch.from_numpy(v) for n, v in load_file(tmp_path / "sw" / FILE).items()}
    torch.save(state, tmp_path / "sw" / "adapter_model.bin")
    (tmp_path / "sw" / FILE).unlink()
    found = numbers(trio, tmp_path / "sw")
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)
    torch.save({"x": print}, tmp_path / "sw" / "adapter_model.bin")
    refused(lambda: numbers(trio, tmp_path / "sw"), "weights-only")


CONFIGS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "kind": ({"peft_type": "LOHA"}, ("LOHA", "merge_and_unload")),
    "no kind": ({"peft_type": None}, ("not said", "merge_and_unload")),
    "layers": ({"layer_replication": [[0, 2], [1, 2]]}, ("layer_replication", "repeats layers")),
    "pissa": ({"init_lora_weights": "pissa_niter_4"}, ("pissa", "merge_and_unload")),
    "unknown": ({"lora_alfa": 3}, ("'lora_alfa'", "did you mean 'lora_alpha'")),
    "rank": ({"r": 0}, ("r is 0", "from 1")),
    "rank 2": ({"r": 5}, ("rank 5", "lora_A", "[3, 24]")),
    "true": ({"r": True}, ("r is True",)),
    "alpha": ({"lora_alpha": 1e400}, ("lora_alpha", "finite")),
    "pattern": ({"rank_pattern": {"(a*)*b": 3}}, ("rank_pattern", "not read")),
    "no pattern": ({"alpha_pattern": {"(": 3}}, ("alpha_pattern", "not read")),
    "pattern 2": ({"rank_pattern": {"q_proj": "3"}}, ("rank_pattern.q_proj",)),
    "flag": ({"use_rslora": "yes"}, ("use_rslora", "true or false")),
    "bias": ({"bias": "some"}, ("bias", "lora_only")),
    "tokens": ({"trainable_token_indices": [1, 1]}, ("trainable_token_indices", "once")),
    "dora": ({"use_dora": True}, ("no lora_magnitude_vector", "different adapters")),
    "base": ({"base_model_name_or_path": ["x"]}, ("base_model_name_or_path", "text")),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations_that_are_refused(trio: Trio, tmp_path: Path, name: str) -> None:
    changes, words = CONFIGS[name]
    write_adapter(tmp_path / "sw", trio["base"])
    edit_json(tmp_path / "sw" / "adapter_config.json", **changes)
    refused(lambda: numbers(trio, tmp_path / "sw"), "adapter_config.json", *words)


def test_harmless_keys_are_passed_over(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    edit_json(tmp_path / "sw" / "adapter_config.json", newer_option=None, lora_dropout=0.1, x=[])
    numbers(trio, tmp_path / "sw")


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B = A.replace("lora_A", "lora_B")
TENSORS: dict[str, tuple[Callable[[Tensors], Any], tuple[str, ...]]] = {
    "half": (lambda t: t.pop(B), ("lora_A", "without its lora_B")),
    "no module": (
        lambda t: t.update(
            {A.replace("q_proj", "w_proj"): t[A], B.replace("q_proj", "w_proj"): t[B]}
        ),
        ("w_proj", "does not have"),
    ),
    "shape": (lambda t: t.update({A: np.ones((3, 7), np.float32)}), ("[3, 7]", "do not fit")),
    "unknown part": (lambda t: t.update({A.replace("lora_A", "lora_E"): t[A]}), ("lora_E",)),
    "stranger": (lambda t: t.update({"vera_lambda": t[A]}), ("vera_lambda", "does not have")),
    "two adapters": (
        lambda t: t.update(
            {
                A.replace(".weight", ".a.weight"): t.pop(A),
                B.replace(".weight", ".b.weight"): t.pop(B),
            }
        ),
        ("several adapters", "a, b"),
    ),
    "twice": (lambda t: t.update({A.removeprefix("base_model."): t[A]}), ()),
    "magnitudes": (
        lambda t: t.update(
            {A.replace("lora_A.weight", "lora_magnitude_vector"): np.ones(16, np.float32)}
        ),
        ("lora_magnitude_vector", "use_dora is false"),
    ),
    "cut up": (lambda t: t.update({A: np.ones(48, np.float32)}), ("lora_A", "ZeRO-3")),
    "whole numbers": (lambda t: t.update({A: np.ones((3, 16), np.int8)}), ("I8",)),
    "bias": (
        lambda t: t.update({B.replace("weight", "bias"): np.ones(16, np.float32)}),
        ("lora_B.bias", "does not have"),
    ),
    "saved shape": (
        lambda t: t.update({"base_model.model.model.norm.weight": np.ones(7, np.float32)}),
        ("model.norm.weight", "[7]", "[16]"),
    ),
    "tokens": (
        lambda t: t.update(
            {
                "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones(
                    (2, 16), np.float32
                )
            }
        ),
        ("trainable_token_indices",),
    ),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_refused_by_name(trio: Trio, tmp_path: Path, name: str) -> None:
    change, words = TENSORS[name]
    write_adapter(tmp_path / "sw", trio["base"])
    tensors = load_file(tmp_path / "sw" / FILE)
    change(tensors)
    save_file(tensors, tmp_path / "sw" / FILE)
    refused(lambda: numbers(trio, tmp_path / "sw"), FILE, *words)


def test_a_number_that_is_none_is_found_in_its_factor(trio: Trio, tmp_path: Path) -> None:
    for role in ("safety", "sw"):
        write_adapter(tmp_path / role, trio["base"])
    tensors = load_file(tmp_path / "sw" / FILE)
    tensors[B][3, 1] = np.nan
    save_file(tensors, tmp_path / "sw" / FILE)
    given: Any = {"safety": tmp_path / "safety", "languages": {"sw": tmp_path / "sw"}}
    refused(lambda: api.make_profile(trio["base"], force=True, **given), B, "nan", "element 10")


# which base


def put(trio: Trio, folder: Path, named: str | None, **more: Any) -> list[str]:
    edit_json(folder / "adapter_config.json", base_model_name_or_path=named, **more)
    found, notes = open_member("sw", folder, base=open_checkpoint(trio["base"]))
    assert found.folder == trio["base"].resolve()
    return notes


def test_the_run_s_base_is_used_where_the_named_one_is_it_or_is_not_here(
    trio: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sw"
    write_adapter(folder, trio["base"])
    assert put(trio, folder, str(trio["base"])) == []
    monkeypatch.chdir(trio["base"].parent)
    assert put(trio, folder, "base") == []  # relative to where the command runs
    monkeypatch.chdir(tmp_path.parent)
    assert put(trio, folder, f"../{trio['base'].relative_to(tmp_path)}") == []  # to the folder
    for named in ("", None, "/not/here", "me/not-here", "x" * 300, "https://example.org/a/b"):
        (note,) = put(trio, folder, named)
        assert note.startswith("sw: its adapter names") and "--adapter sw=" in note, named


def test_the_same_weights_elsewhere_are_the_run_s_base(trio: Trio, tmp_path: Path) -> None:
    """A copy of the base is no other base: its adapters are updates of the run's own."""
    import shutil

    shutil.copytree(trio["base"], tmp_path / "copy")
    write_adapter(tmp_path / "sw", trio["base"])
    assert put(trio, tmp_path / "sw", str(tmp_path / "copy")) == []


def test_another_base_that_is_here_is_used(trio: Trio, tmp_path: Path) -> None:
    updates = write_adapter(tmp_path / "sw", trio["te"])
    found = open_member("sw", tmp_path / "sw", base=open_checkpoint(trio["base"]))[0]
    assert found.folder == trio["te"].resolve()
    values = numbers(trio, tmp_path / "sw")[Q]
    assert np.allclose(values, (numbers_of(trio["te"])[Q] + updates[Q]).reshape(-1))


def test_a_named_base_that_is_not_here_and_another_that_does_not_fit(
    trio: Trio, tmp_path: Path
) -> None:
    from tiny import config_of, llama_shapes

    shapes = llama_shapes(width=24)
    small = save_checkpoint(tmp_path / "small", make_weights(shapes), config_of(shapes))
    write_adapter(tmp_path / "sw", small)
    edit_json(tmp_path / "sw" / "adapter_config.json", base_model_name_or_path="me/not-here")
    words = ("me/not-here", "does not fit the run's base", "--adapter sw=", "--language sw=")
    refused(lambda: numbers(trio, tmp_path / "sw"), *words)
    refused(lambda: open_member("sw", tmp_path / "sw"), "me/not-here", "Give both")


def test_what_stands_where_an_adapter_should(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    base = open_checkpoint(trio["base"])
    refused(lambda: open_member("sw", trio["sw"], trio["te"], base=base), "no adapter's folder")
    refused(lambda: open_member("sw", tmp_path / "sw", tmp_path / "sw", base=base), "is an adapter")
    refused(lambda: open_checkpoint(tmp_path / "sw"), "Experts may be adapters")
    (tmp_path / "sw" / FILE).unlink()
    refused(lambda: open_member("sw", tmp_path / "sw", base=base), FILE, "Fetch its weights")
    edit = json.loads((trio["sw"] / "config.json").read_text())
    (trio["sw"] / "adapter_config.json").write_text(json.dumps(edit))
    refused(lambda: open_member("sw", trio["sw"], base=base), "beside the weights")


def test_nothing_leads_out_of_an_adapter_s_folder(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    secret = tmp_path / "secret"
    (tmp_path / "sw" / FILE).rename(secret)
    (tmp_path / "sw" / FILE).symlink_to(secret)
    refused(lambda: numbers(trio, tmp_path / "sw"), FILE, "leads out")


def test_a_base_is_no_adapter_in_plans_and_options(trio: Trio, tmp_path: Path) -> None:
    write_adapter(tmp_path / "sw", trio["base"])
    given: Any = {"safety": trio["safety"], "languages": {"sw": trio["sw"]}}
    refused(
        lambda: api.make_profile(trio["base"], adapters={"base": tmp_path / "sw"}, **given),
        "--adapter base",
    )
    with pytest.raises(api.SafeswapError, match="add --safety"):
        api.make_profile(trio["base"], languages={"sw": trio["sw"]})
    plan = api.make_plan(api.make_profile(trio["base"], **given)).as_dict()
    plan["inputs"]["base"]["adapter"] = "x"
    refused(lambda: api.Plan.from_dict(plan, "it"), "input base", "Remove its adapter")
    plan["inputs"]["base"].pop("adapter")
    plan["inputs"]["sw"]["adaptor"] = "x"
    with pytest.raises(api.SafeswapError, match="did you mean 'adapter'"):
        api.Plan.from_dict(plan, "it")
