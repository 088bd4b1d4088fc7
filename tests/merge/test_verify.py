"""verify finds every change, and says whether the output or an input is to blame."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import safeswap
from safeswap.checkpoint.header import read_header
from safeswap.cli import main
from safeswap.errors import SafeswapError
from safeswap.plan import Plan, PlannedUnit
from tiny import digest_of, edit_json, make_trio, rewrite, swap

NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def out(trio: dict[str, Path], tmp_path: Path) -> Path:
    return swap(trio, tmp_path / "out")


def poke(folder: Path, content: bytes, name: str = NAME) -> Path:
    """Write over the last bytes of a tensor."""
    for file in sorted(folder.glob("*.safetensors")):
        for tensor in read_header(file).tensors:
            if tensor.name == name:
                with file.open("r+b") as stream:
                    stream.seek(tensor.start + tensor.nbytes - len(content))
                    stream.write(content)
                return file
    raise AssertionError(name)


def last_byte(folder: Path, name: str = NAME) -> int:
    held = {n: w for file in folder.glob("*.safetensors") for n, w in load_file(file).items()}
    return int(held[name].view(np.uint8).ravel()[-1])


def change_header(folder: Path) -> None:
    file = min(folder.glob("*.safetensors"))
    content = file.read_bytes()
    assert content.count(b'"format":"pt"') == 1
    file.write_bytes(content.replace(b'"format":"pt"', b'"format":"np"'))


def change_plan_file(folder: Path) -> None:
    plan = Plan.load(folder / "safeswap-plan.yaml")
    units = {**plan.units, "0.mlp": PlannedUnit({"safety": 0.125, "sw": 0.875})}
    Plan(plan.inputs, units, plan.donor, plan.selector).save(folder / "safeswap-plan.yaml")


def drop_from_manifest(folder: Path) -> None:
    content = json.loads((folder / "safeswap.json").read_text())
    del content["tensors"][NAME]
    (folder / "safeswap.json").write_text(json.dumps(content))


def break_manifest(folder: Path) -> None:
    content = json.loads((folder / "safeswap.json").read_text())
    del content["outputs"]
    (folder / "safeswap.json").write_text(json.dumps(content))


def remove_shard(folder: Path) -> None:
    max(folder.glob("*.safetensors")).unlink()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (
        lambda out: poke(out, bytes([last_byte(out) ^ 1])),
        f"tensor '{NAME}' was changed after the merge was made",
    ),
    "nan": (lambda out: poke(out, b"\xc0\x7f"), f"'{NAME}' has NaN or infinite weights"),
    "infinity": (lambda out: poke(out, b"\x80\x7f"), f"'{NAME}' has NaN or infinite weights"),
    "header": (change_header, "its header was changed"),
    "config": (
        lambda out: edit_json(out / "config.json", vocab_size=9),
        "config.json: was changed",
    ),
    "tokenizer": (lambda out: (out / "tokenizer.json").unlink(), "tokenizer.json: is missing"),
    "index": (
        lambda out: edit_json(out / "model.safetensors.index.json", metadata={}),
        "index.json: was changed",
    ),
    "shard": (remove_shard, "00002-of-00002.safetensors: the shard is missing"),
    "plan": (change_plan_file, "safeswap-plan.yaml: was changed after the merge"),
    "no plan": (lambda out: (out / "safeswap-plan.yaml").unlink(), "plan.yaml: is missing"),
    "manifest's tensor": (drop_from_manifest, f"holds {NAME}, which the manifest does not"),
    "manifest's outputs": (break_manifest, "is damaged (no outputs)"),
    "manifest's text": (lambda out: (out / "safeswap.json").write_text("{"), "safeswap.json"),
    "format": (
        lambda out: edit_json(out / "safeswap.json", format="safeswap-merge/0"),
        "is of format 'safeswap-merge/0'",
    ),
    "no manifest": (lambda out: (out / "safeswap.json").unlink(), "safeswap did not make it"),
}


@pytest.mark.parametrize("without_inputs", [False, True], ids=["inputs", "digests"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_changed_output_is_found(out: Path, how: str, without_inputs: bool) -> None:
    damage, message = DAMAGE[how]
    assert safeswap.verify_merge(out, without_inputs=without_inputs).nbytes > 0
    damage(out)
    with pytest.raises(SafeswapError, match=re.escape(message)):
        safeswap.verify_merge(out, without_inputs=without_inputs)


def test_what_was_checked_is_said(out: Path) -> None:
    tensors = [t for file in out.glob("*.safetensors") for t in read_header(file).tensors]
    for without in (False, True):
        checked = safeswap.verify_merge(out, without_inputs=without, workers=3)
        assert checked.from_inputs is not without
        assert checked.tensors == len(tensors)
        assert checked.nbytes == sum(tensor.nbytes for tensor in tensors)
        assert checked.edited == ()


@pytest.mark.parametrize("role", ["safety", "sw"])
def test_a_changed_input_is_named_as_the_cause(
    trio: dict[str, Path], tmp_path: Path, role: str
) -> None:
    out = swap(trio, tmp_path / "out", tau=9.0)  # all units blended: both experts count
    poke(trio[role], bytes([last_byte(trio[role]) ^ 0x40]))
    with pytest.raises(SafeswapError, match=f"'{NAME}' is as it was written.*An input changed"):
        safeswap.verify_merge(out)
    assert not safeswap.verify_merge(out, without_inputs=True).from_inputs


def test_missing_inputs_need_a_word(trio: dict[str, Path], out: Path) -> None:
    shutil.rmtree(trio["safety"])
    with pytest.raises(SafeswapError, match="there is no such folder"):
        safeswap.verify_merge(out)
    assert safeswap.verify_merge(out, without_inputs=True).tensors > 0


def test_moved_inputs_are_found_where_they_are_said_to_be(
    trio: dict[str, Path], out: Path, tmp_path: Path
) -> None:
    moved = {
        role: trio[role].rename(tmp_path / f"moved-{role}") for role in ("base", "safety", "sw")
    }
    with pytest.raises(SafeswapError):
        safeswap.verify_merge(out)
    assert safeswap.verify_merge(out, inputs=moved).from_inputs
    with pytest.raises(SafeswapError, match="An input changed"):
        safeswap.verify_merge(out, inputs={**moved, "sw": trio["te"]})
    with pytest.raises(SafeswapError, match="has no input 'te'"):
        safeswap.verify_merge(out, inputs={**moved, "te": trio["te"]})


def test_inputs_of_another_model_are_told_apart(out: Path, tmp_path: Path) -> None:
    wider = make_trio(tmp_path / "wider", inner=32)
    inputs = {role: wider[role] for role in ("base", "safety", "sw")}
    with pytest.raises(SafeswapError, match="they are of another model"):
        safeswap.verify_merge(out, inputs=inputs)


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"dtype": "float32"}, {"by": "layer"}])
def test_options_of_the_merge_are_known_again(
    trio: dict[str, Path], tmp_path: Path, options: dict[str, str]
) -> None:
    out = swap(trio, tmp_path / "out", shard_size="4KB", **options)
    assert safeswap.verify_merge(out).from_inputs


@pytest.mark.parametrize(
    ("edit", "edited"),
    [
        (lambda text: text, ()),
        (lambda t: re.sub(r"(0\.mlp: .*?safety: )[0-9.]+", r"\g<1>0.25", t), ("0.mlp",)),
        (lambda t: t.replace("tau: 0.001", "tau: 9.0"), None),
        (lambda t: t.replace("tau: 0.001", "tau: often"), None),
    ],
)
def test_a_plan_edited_by_hand_is_reported(
    trio: dict[str, Path],
    tmp_path: Path,
    edit: Callable[[str], str],
    edited: tuple[str, ...] | None,
) -> None:
    languages = {"sw": trio["sw"]}
    profile = safeswap.make_profile(trio["base"], safety=trio["safety"], languages=languages)
    safeswap.make_plan(profile).save(tmp_path / "plan.yaml")
    text = (tmp_path / "plan.yaml").read_text()
    (tmp_path / "plan.yaml").write_text(edit(text))
    assert (edit(text) == text) == (edited == ())
    plan = Plan.load(tmp_path / "plan.yaml")
    safeswap.merge_plans([plan], tmp_path / "out", profile=profile, figure=False)
    checked = safeswap.verify_merge(tmp_path / "out")
    assert checked.from_inputs
    if edited is None:  # the settings no longer say what the table does
        assert checked.edited
    else:
        assert checked.edited == edited


def test_an_output_of_several_languages_points_to_its_folders(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    swap(trio, tmp_path / "out", "sw", "te")
    assert safeswap.verify_merge(tmp_path / "out/te").from_inputs
    with pytest.raises(SafeswapError, match="are the folders in it: sw, te"):
        safeswap.verify_merge(tmp_path / "out")


@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "old.safetensors", "pytorch_model.bin", "x.safetensors.index.json"],
)
@pytest.mark.parametrize("without_inputs", [False, True], ids=["inputs", "digests"])
def test_weights_that_the_merge_did_not_write_are_found(
    out: Path, name: str, without_inputs: bool
) -> None:
    """transformers would load a stray model.safetensors in place of the shards."""
    (out / name).write_bytes(b"")
    with pytest.raises(SafeswapError, match=f"holds {name}, which the merge did not write"):
        safeswap.verify_merge(out, without_inputs=without_inputs)
    (out / name).unlink()
    (out / "onnx").mkdir()
    (out / "onnx" / name).write_bytes(b"")  # no loader looks there, but whose weights are they?
    with pytest.raises(SafeswapError, match=f"holds onnx/{name}.*an expert's"):
        safeswap.verify_merge(out, without_inputs=without_inputs)


@pytest.mark.parametrize(
    "name",
    ["adapter_config.json", "chat_template.jinja", "generation_config.json", "tokenizer.model",
     "added_tokens.json", "modeling_x.py", "consolidated.00.pth", "vocab.txt"],
)  # fmt: skip
def test_files_that_a_loader_would_take_are_found(out: Path, name: str) -> None:
    (out / name).write_bytes(b"{}")
    with pytest.raises(SafeswapError, match=f"holds {re.escape(name)}, which the merge did not"):
        safeswap.verify_merge(out)


def test_other_files_are_noted_and_no_fault(out: Path, trio: dict[str, Path]) -> None:
    (out / "notes.txt").write_text("mine")
    (out / "results").mkdir()
    (out / "results/model.json").write_text("{}")
    (out / ".cache").write_text("")
    edit_json(trio["safety"] / "config.json", comment="later")
    notes = safeswap.verify_merge(out).notes
    assert notes == (
        ".cache was not written by the merge",
        "notes.txt was not written by the merge",
        "results/model.json was not written by the merge",
        f"{trio['safety'] / 'config.json'} is not as it was when the merge was made",
    )
    said = CliRunner().invoke(main, ["verify", str(out)]).output
    assert "note: notes.txt was not written by the merge" in said


Change = Callable[[dict[str, Any]], object]
EDITS: dict[str, tuple[Change, str]] = {
    "fate": (
        lambda m: m["tensors"][NAME].update(fate="copied from heaven"),
        f"entry tensors → {NAME} → fate is not",
    ),
    "unit": (lambda m: m["tensors"][NAME].update(unit="0.mlp"), f"tensors → {NAME} → unit"),
    "norm": (
        lambda m: tensor_of(m).update(base_norm=1.0001 * tensor_of(m)["base_norm"]),
        f"profile → tensors → {NAME} → base_norm",
    ),
    "update": (
        lambda m: tensor_of(m)["update_norm"].update(sw=7.0),
        f"{NAME} → update_norm → sw",
    ),
    "inner": (lambda m: tensor_of(m)["inner"].update(sw=0.1), f"{NAME} → inner → sw"),
    "digest of a tensor": (
        lambda m: tensor_of(m)["digests"].update(base="00"),
        f"{NAME} → digests → base",
    ),
    "digest of an input": (
        lambda m: m["profile"]["inputs"]["safety"].update(digest="00"),
        "another digest for the safety checkpoint",
    ),
    "digest of a shard": (
        lambda m: m["profile"]["inputs"]["sw"]["files"][1].update(digest="00"),
        "digest for model-00002-of-00002.safetensors of the sw checkpoint",
    ),
    "a tensor said to be left out": (
        lambda m: m["not_used"].update({"sw: x": "because"}),
        "entry not_used → sw: x is not",
    ),
    "units": (lambda m: m["profile"]["units"].reverse(), "entry profile → units is not"),
}


def tensor_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (found,) = [t for t in manifest["profile"]["tensors"] if t["name"] == NAME]
    assert isinstance(found, dict)
    return found


def edit_manifest(out: Path, change: Change) -> None:
    content = json.loads((out / "safeswap.json").read_text())
    change(content)
    (out / "safeswap.json").write_text(json.dumps(content))


@pytest.mark.parametrize("how", EDITS)
def test_an_edited_manifest_is_found(out: Path, how: str) -> None:
    change, message = EDITS[how]
    edit_manifest(out, change)
    with pytest.raises(SafeswapError, match=re.escape(message)):
        safeswap.verify_merge(out)


DAMAGED: tuple[Change, ...] = (
    lambda m: m.update(outputs=[{"nme": 1}]),
    lambda m: m.update(outputs=[]),
    lambda m: m["outputs"][0].update(name="../x"),
    lambda m: m["tensors"].update({NAME: 3}),
    lambda m: m["tensors"][NAME].update(dtype="F99"),
    lambda m: m.update(files={"config.json": 1}),
    lambda m: m.pop("versions"),
)


@pytest.mark.parametrize("number", range(len(DAMAGED)))
def test_a_damaged_manifest_is_called_so(out: Path, number: int) -> None:
    edit_manifest(out, DAMAGED[number])
    with pytest.raises(SafeswapError, match=r"safeswap\.json: is damaged.*Merge again"):
        safeswap.verify_merge(out)


def test_a_manifests_unknown_key_is_refused(out: Path) -> None:
    edit_manifest(out, lambda m: m.update(fils={}))
    with pytest.raises(SafeswapError, match=r"unknown key 'fils'; did you mean 'files'\?"):
        safeswap.verify_merge(out)


def test_a_changed_input_that_the_merge_did_not_read_is_found(
    out: Path, trio: dict[str, Path]
) -> None:
    poke(trio["base"], bytes([last_byte(trio["base"]) ^ 1]))  # swaps and blends need no base
    with pytest.raises(SafeswapError, match=r"the base checkpoint.*The input changed since"):
        safeswap.verify_merge(out)


def test_inputs_in_other_shards_are_the_same_inputs(out: Path, trio: dict[str, Path]) -> None:
    rewrite(trio["sw"], lambda weights: None)
    assert safeswap.verify_merge(out).from_inputs


def test_each_of_several_languages_is_as_if_it_were_alone(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    swap(trio, tmp_path / "both", "sw", "te", figure=True)
    for role in ("sw", "te"):
        alone = digest_of(swap(trio, tmp_path / f"alone-{role}", role, figure=True))
        assert digest_of(tmp_path / "both" / role) == alone


def test_an_edited_card_is_noted_and_no_fault(trio: dict[str, Path], tmp_path: Path) -> None:
    out = swap(trio, tmp_path / "out")
    assert safeswap.verify_merge(out).rewritten == ()
    (out / "README.md").write_text("mine")
    assert safeswap.verify_merge(out).rewritten == ("README.md",)
    said = CliRunner().invoke(main, ["verify", str(out)]).output
    assert "all equal" in said and "note: README.md is not as the merge wrote it" in said


SMALL_EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a shard's size": lambda m: m["outputs"][0].update(size=1),
    "a version": lambda m: m["versions"].update(numpy="0.1"),
    "an input's name": lambda m: m["profile"]["inputs"]["safety"].update(name="another"),
    "a revision": lambda m: m["profile"]["inputs"]["base"].update(revision="0" * 40),
    "an input file's size": lambda m: m["profile"]["inputs"]["sw"]["files"][0].update(size=1),
    "an input file's time": lambda m: m["profile"]["inputs"]["sw"]["files"][0].update(mtime_ns=1),
    "a reason": lambda m: m["files_left_out"].update({"x.bin": "no reason"}),
    "a note": lambda m: m["profile"].update(notes=["all is well"]),
}


@pytest.mark.parametrize("how", SMALL_EDITS)
@pytest.mark.parametrize("without", [True, False])
def test_any_edit_of_the_manifest_is_found(out: Path, how: str, without: bool) -> None:
    edit_manifest(out, SMALL_EDITS[how])
    with pytest.raises(SafeswapError, match=r"safeswap\.json"):
        safeswap.verify_merge(out, without_inputs=without)


def test_places_of_local_inputs_may_be_edited_and_old_manifests_have_no_digest(out: Path) -> None:
    def without(manifest: dict[str, Any]) -> None:
        del manifest["digest"]

    def moved(manifest: dict[str, Any]) -> None:
        manifest["profile"]["inputs"]["sw"].update(path="/elsewhere", source="/elsewhere")

    edit_manifest(out, moved)
    safeswap.verify_merge(out, without_inputs=True)
    edit_manifest(out, without)
    safeswap.verify_merge(out, without_inputs=True)


def test_a_run_is_verified_in_all_its_languages(trio: dict[str, Path], tmp_path: Path) -> None:
    out = swap(trio, tmp_path / "both", "sw", "te")
    said = CliRunner().invoke(main, ["verify", str(out), "--language", f"te={trio['te']}"])
    assert said.exit_code == 0, said.output
    assert [line.partition(":")[0] for line in said.output.splitlines() if "all equal" in line] == [
        str(out / "sw"),
        str(out / "te"),
    ]
    poke(out / "te", b"\x01\x02")
    said = CliRunner().invoke(main, ["verify", str(out)])
    assert said.exit_code == 1 and f"{out / 'te'}" in said.output
