"""What goes along with the weights: manifest, model card, the donor's files."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from safetensors.numpy import load_file

import safeswap
from safeswap.cli import main
from safeswap.plan import PlannedUnit
from tiny import digest_of, make_trio, rewrite, swap


def manifest_of(folder: Path) -> dict[str, dict[str, object]]:
    content: dict[str, dict[str, object]] = json.loads((folder / "safeswap.json").read_text())
    return content


def card_of(folder: Path) -> tuple[dict[str, object], str]:
    head, body = re.fullmatch(
        r"---\n(.*?)\n---\n(.*)", (folder / "README.md").read_text(), re.DOTALL
    ).groups()  # type: ignore[union-attr]
    return yaml.safe_load(head), body


def names_of(folder: Path) -> set[str]:
    return {name for file in folder.glob("*.safetensors") for name in load_file(file)}


def test_every_tensor_of_every_input_is_accounted_for(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    manifest = manifest_of(swap(trio, tmp_path / "out", tau=0.02))
    plan = safeswap.Plan.load(tmp_path / "out/safeswap-plan.yaml")
    for role in ("base", "safety", "sw"):
        unused = {text.partition(": ")[2] for text in manifest["not_used"] if text.startswith(role)}
        assert names_of(trio[role]) == manifest["tensors"].keys() | unused
    assert manifest["not_used"] == {}
    tensor_log = {"safety": "copied from safety", "sw": "copied from sw"}
    for name, entry in manifest["tensors"].items():
        decision = plan.units[entry["unit"]].decision  # type: ignore[index]
        assert entry["fate"] == tensor_log.get(decision, "0.5 · safety + 0.5 · sw"), name  # type: ignore[index]
    assert len({entry["fate"] for entry in manifest["tensors"].values()}) == 3  # type: ignore[index]


def test_a_tied_copy_that_one_input_stores_is_named_as_not_used(tmp_path: Path) -> None:
    trio = make_trio(tmp_path, tied=True)
    rewrite(trio["sw"], lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"]}))
    out = swap(trio, tmp_path / "out")
    manifest = manifest_of(out)
    (key,) = manifest["not_used"]
    assert key == "sw: lm_head.weight"
    assert "tied" in str(manifest["not_used"][key])
    assert "lm_head.weight" not in names_of(out)
    assert safeswap.verify_merge(out).from_inputs


def test_inputs_and_outputs_are_recorded_with_digests(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    out = swap(trio, tmp_path / "out")
    manifest = manifest_of(out)
    inputs = manifest["profile"]["inputs"]
    assert list(inputs) == ["base", "safety", "sw"]  # type: ignore[call-overload]
    found = {role: {file["name"] for file in inputs[role]["files"]} for role in inputs}  # type: ignore
    for role, files in found.items():
        assert files == {file.name for file in trio[role].glob("*.safetensors")}
    digests = [file["digest"] for role in inputs for file in inputs[role]["files"]]  # type: ignore
    assert len(set(digests)) == 6 and all(re.fullmatch("[0-9a-f]{64}", d) for d in digests)
    shards = {record["name"] for record in manifest["outputs"]}  # type: ignore[index]
    assert shards == {file.name for file in out.glob("*.safetensors")}
    versions = manifest["versions"]
    assert versions["safeswap"] == safeswap.__version__ and versions["numpy"] == np.__version__
    for role in ("base", "safety", "sw"):
        small = ("config.json", "tokenizer.json", "model.safetensors.index.json")
        wanted = {name: d for name, d in digest_of(trio[role]).items() if name in small[:2]}
        assert manifest["input_files"][role] == wanted


def test_two_runs_give_the_same_bytes_in_every_file(trio: dict[str, Path], tmp_path: Path) -> None:
    one = digest_of(swap(trio, tmp_path / "one", workers=1, figure=True))
    two = digest_of(swap(trio, tmp_path / "two", workers=3, figure=True))
    assert one == two
    assert {"README.md", "safeswap.json", "safeswap-plan.yaml", "safeswap.png"} <= one.keys()


def test_a_plan_carried_out_again_gives_the_same_weights(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    """The command of the card, run as it stands there."""
    out = swap(trio, tmp_path / "out", dtype="float16", shard_size="4KB", tau=0.02)
    _, body = card_of(out)
    (line,) = [line for line in body.splitlines() if line.startswith("safeswap merge")]
    words = shlex.split(line)
    words[words.index("OUT")] = str(tmp_path / "again")
    words[words.index("safeswap-plan.yaml")] = str(out / "safeswap-plan.yaml")
    result = CliRunner().invoke(main, [*words[1:], "--no-figure"])
    assert result.exit_code == 0, result.output
    assert len(list(out.glob("*.safetensors"))) == 3
    assert digest_of(tmp_path / "again") == digest_of(out)


def test_the_cards_header_is_what_the_hub_reads(trio: dict[str, Path], tmp_path: Path) -> None:
    head, body = card_of(swap(trio, tmp_path / "out", figure=True))
    assert head["base_model"] == ["base", "safety", "sw"]
    assert head["base_model_relation"] == "merge"
    assert head["language"] == ["sw"]
    assert head["library_name"] == "transformers"
    assert head["tags"] == ["merge", "safeswap"]
    assert "(safeswap.png)" in body
    assert "Before an upload: `safeswap.json` and `safeswap-plan.yaml` name the local" in body
    written = manifest_of(tmp_path / "out")["about"]
    assert written == {name: digest_of(tmp_path / "out")[name] for name in written}
    assert written.keys() == {"README.md", "safeswap.png"}
    assert str(tmp_path) not in (tmp_path / "out/README.md").read_text()
    plan = safeswap.Plan.load(tmp_path / "out/safeswap-plan.yaml")
    rows = [line for line in body.splitlines() if line.startswith("| ")][2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == list(plan.units)
    assert [row.split(" | ")[1] for row in rows] == [u.decision for u in plan.units.values()]


@pytest.mark.parametrize(("language", "tag"), [("no", ["no"]), ("my-lingo", None)])
def test_only_a_code_becomes_a_language_tag(
    trio: dict[str, Path], tmp_path: Path, language: str, tag: list[str] | None
) -> None:
    head, body = card_of(swap({**trio, language: trio["sw"]}, tmp_path / "out", language))
    assert head.get("language") == tag
    assert "safeswap.png" not in body
    assert safeswap.verify_merge(tmp_path / "out").edited == ()


@pytest.mark.parametrize("donor", [None, "safety", "base"])
def test_the_donors_files_go_along(
    trio: dict[str, Path], tmp_path: Path, donor: str | None
) -> None:
    for role, folder in trio.items():
        (folder / "generation_config.json").write_text(json.dumps({"of": role}))
        (folder / "chat_template.jinja").write_text(role)
        (folder / "code").mkdir()
        (folder / "code/modeling.py").write_text(f"# {role}")
        (folder / "chat_templates").mkdir()
        (folder / "chat_templates/tools.jinja").write_text(role)
        (folder / "README.md").write_text("the donor's own card")
        (folder / "trainer_state.json").write_text("{}")
        (folder / ".gitattributes").write_text("")
        (folder / "training_args.bin").write_bytes(b"")
    out = swap(trio, tmp_path / "out", donor=donor)
    wanted = donor or "sw"
    assert json.loads((out / "generation_config.json").read_text()) == {"of": wanted}
    assert (out / "chat_template.jinja").read_text() == wanted
    assert (out / "chat_templates/tools.jinja").read_text() == wanted
    assert (out / "config.json").read_bytes() == (trio[wanted] / "config.json").read_bytes()
    manifest = manifest_of(out)
    left = manifest["files_left_out"]
    assert {"README.md", "trainer_state.json", ".gitattributes", "training_args.bin"} <= left.keys()
    assert "code/modeling.py" in left and not (out / "code").exists()  # no auto_map names it
    assert not (out / "trainer_state.json").exists() and not (out / ".gitattributes").exists()
    everything = {str(p.relative_to(trio[wanted])) for p in trio[wanted].rglob("*") if p.is_file()}
    assert everything <= manifest["files"].keys() | left.keys()
    assert f"from `{wanted}`" in card_of(out)[1]
    assert safeswap.verify_merge(out).from_inputs


def test_a_link_that_leads_nowhere_is_left_out_and_named(
    trio: dict[str, Path], tmp_path: Path
) -> None:
    (trio["sw"] / "LICENSE").symlink_to(trio["sw"] / "nowhere")
    out = swap(trio, tmp_path / "out")
    assert "link" in str(manifest_of(out)["files_left_out"]["LICENSE"])
    assert safeswap.verify_merge(out).from_inputs


def test_the_card_names_what_was_edited_by_hand(trio: dict[str, Path], tmp_path: Path) -> None:
    languages = {"sw": trio["sw"]}
    profile = safeswap.make_profile(trio["base"], safety=trio["safety"], languages=languages)
    plan = safeswap.make_plan(profile)
    safeswap.merge_plans([plan], tmp_path / "as-is", profile=profile, figure=False)
    assert "edited by hand" not in card_of(tmp_path / "as-is")[1]
    units = {**plan.units, "0.mlp": PlannedUnit({"safety": 0.25, "sw": 0.25})}
    edited = replace(plan, units=units)
    safeswap.merge_plans([edited], tmp_path / "edited", profile=profile, figure=False)
    assert "but as edited by hand: 0.mlp\n" in card_of(tmp_path / "edited")[1]


def test_buffers_come_from_the_donor_bit_for_bit(trio: dict[str, Path], tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    for number, role in enumerate(("base", "safety", "sw", "te")):
        values = np.arange(4, dtype=np.float32) + number
        rewrite(trio[role], lambda w, values=values: w.update({name: values}))
    for number, donor in enumerate(("base", "safety", "sw")):
        out = swap(trio, tmp_path / donor, donor=donor, dtype="float16", tau=9.0)
        held = load_file(out / "model.safetensors")
        assert held[name].dtype == np.float32 and held[name][0] == number
        assert held["model.norm.weight"].dtype == np.float16
