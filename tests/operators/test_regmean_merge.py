"""RegMean from plan to checked checkpoint: paths, digests, verification, refusals."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from test_operator_merge import tensors_of
from test_regmean import direct

import safeswap
from gram_folder import Array, edit_manifest, edit_matrices, write_grams
from safeswap.cli import main
from safeswap.errors import PlanError
from safeswap.interchange import to_mergekit
from safeswap.plan import Plan
from tiny import digest_of, llama_shapes, make_trio, refused, rewrite, swap

SHAPES = llama_shapes()
MATRICES = [n for n, s in SHAPES.items() if ".layers." in n and len(s) == 2]
Q = "model.layers.0.self_attn.q_proj.weight"


def inner(role: str) -> dict[str, Array]:
    """A well-conditioned matrix for every weight matrix of the layers."""
    found = {}
    for number, name in enumerate(MATRICES):
        chance = np.random.default_rng([number, len(role)])
        seen = chance.standard_normal((99, SHAPES[name][1])) * chance.uniform(
            0.2, 2, SHAPES[name][1]
        )
        found[name] = seen.T @ seen / 99
    return found


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_trio(tmp_path_factory.mktemp("trio"))


@pytest.fixture(scope="module")
def profile(trio: dict[str, Path]) -> safeswap.Profile:
    languages = {"sw": trio["sw"], "te": trio["te"]}
    return safeswap.make_profile(trio["base"], safety=trio["safety"], languages=languages)


@pytest.fixture
def grams(tmp_path: Path, profile: safeswap.Profile) -> Path:
    roles = ("safety", "sw", "te")
    weights = {role: profile.inputs[role].digest for role in roles}
    return write_grams(tmp_path / "grams", {r: inner(r) for r in roles}, weights=weights)


def plan_of(profile: safeswap.Profile, grams: Path | str, **settings: Any) -> Plan:
    operator = {"name": "regmean", "grams": str(grams), **settings}
    return safeswap.make_plan(profile, "sw", method="uniform", alpha=0.25, operator=operator)


def merged(plan: Plan, out: Path, **how: Any) -> Path:
    safeswap.merge_plans([plan], out, figure=False, **how)
    return out


def test_the_merge_is_the_formula(
    trio: dict[str, Path], profile: safeswap.Profile, grams: Path, tmp_path: Path
) -> None:
    out = merged(plan_of(profile, grams, scale=0.5, ridge=0.01), tmp_path / "out", workers=1)
    again = merged(plan_of(profile, grams, scale=0.5, ridge=0.01), tmp_path / "again", workers=4)
    assert digest_of(out) == digest_of(again)
    base, *tuned = ({n: v.astype("f8") for n, v in tensors_of(trio[r]).items()}
                    for r in ("base", "safety", "sw"))  # fmt: skip
    for name, values in tensors_of(out).items():
        experts = [weights[name] for weights in tuned]
        wanted = 0.25 * experts[0] + 0.75 * experts[1]
        if name in MATRICES:
            both = [inner(role)[name] for role in ("safety", "sw")]
            regression = direct(base[name], experts, both, (0.25, 0.75), 0.5, 0.01)
            assert np.abs(regression - wanted).max() > 1e-3  # the mean would not do
            wanted = regression
        rounded = wanted.astype(ml_dtypes.bfloat16).astype("f8")
        np.testing.assert_allclose(values.astype("f8"), rounded, rtol=2**-7, atol=1e-6)
    manifest = json.loads((out / "safeswap.json").read_text())
    fate = manifest["tensors"][Q]["fate"]
    assert fate == "regmean(scale=0.5, ridge=0.01): 0.25 · safety + 0.75 · sw"
    assert safeswap.verify_merge(out, workers=2).from_inputs


def test_one_command_merges_several_languages(
    trio: dict[str, Path], grams: Path, tmp_path: Path
) -> None:
    operator = {"name": "regmean", "grams": str(grams)}
    out = swap(trio, tmp_path / "out", "sw", "te", operator=operator, method="uniform")
    for language in ("sw", "te"):
        assert safeswap.verify_merge(out / language).from_inputs
    written = Plan.load(out / "sw" / "safeswap-plan.yaml").operator.settings
    assert written["grams"] == str(grams)


def test_a_plan_by_hand_names_the_folder_from_where_it_lies(
    profile: safeswap.Profile, grams: Path, tmp_path: Path
) -> None:
    plan = plan_of(profile, grams)
    digest = plan.operator.settings["grams_digest"]
    (tmp_path / "plans").mkdir()
    text = plan.text().replace(f"grams: {grams}\n", "grams: ../grams\n")
    text = text.replace(f"  grams_digest: {digest}\n", "")
    (tmp_path / "plans" / "plan.yaml").write_text(text)
    read = Plan.load(tmp_path / "plans" / "plan.yaml")
    assert read.operator.settings == {"grams": str(grams)}
    out = merged(read, tmp_path / "out")
    written = Plan.load(out / "safeswap-plan.yaml")
    assert written.operator.settings == {"grams": str(grams), "grams_digest": digest}
    assert tensors_of(out).keys() == tensors_of(merged(plan, tmp_path / "other")).keys()
    assert digest_of(out) == digest_of(tmp_path / "other")


def test_the_verbs(profile: safeswap.Profile, grams: Path, tmp_path: Path) -> None:
    def run(*arguments: object) -> Any:
        return CliRunner().invoke(main, [*map(str, arguments)])

    profile.save(tmp_path / "profile.json")
    plan = tmp_path / "plan.yaml"
    said = run("plan", tmp_path / "profile.json", "--only", "sw", "--operator", "regmean",
               "--operator-set", f"grams={grams}", "--operator-set", "scale=0.1",
               "--method", "uniform", "-o", plan)  # fmt: skip
    assert said.exit_code == 0, said.output
    assert run("merge", "--plan", plan, "--out", tmp_path / "out", "--no-figure").exit_code == 0
    assert "all equal" in run("verify", tmp_path / "out").output
    export = run("convert", plan, "--to", "mergekit")
    assert export.exit_code == 1 and "operator 'regmean': safeswap convert writes" in export.stderr
    said = run("methods", "regmean").output
    assert "--operator-set grams" in said and "arXiv 2212.09849" in said
    with pytest.raises(PlanError, match="operator 'regmean': safeswap convert writes sums"):
        to_mergekit(Plan.load(plan))


def test_verify_notices_other_matrices(
    profile: safeswap.Profile, grams: Path, tmp_path: Path
) -> None:
    """A changed file, a folder made again, and one that is gone."""
    out = merged(plan_of(profile, grams), tmp_path / "out")
    kept = shutil.copytree(grams, tmp_path / "kept")

    def spoil(stored: dict[str, Array]) -> None:
        stored[Q][0, 0] *= 1.001

    edit_matrices(grams, "sw", spoil)
    refused(lambda: safeswap.verify_merge(out), str(grams / "sw.safetensors"), Q, "was changed")
    assert safeswap.verify_merge(out, without_inputs=True).tensors

    def another(content: dict[str, Any]) -> None:
        content["experts"]["sw"]["tensors"][Q]["digest"] = "0" * 64

    edit_manifest(grams, another)
    refused(lambda: safeswap.verify_merge(out), "not those that the plan was made with", "sw")
    shutil.rmtree(grams)
    refused(lambda: safeswap.verify_merge(out), str(grams), "has no grams.json")
    assert safeswap.verify_merge(out, grams=kept).from_inputs
    said = CliRunner().invoke(main, ["verify", str(out), "--grams", str(kept)])
    assert "all equal" in said.output
    shutil.move(kept, grams)
    assert safeswap.verify_merge(out).from_inputs


def test_the_card_says_whose_paths_are_in_the_files(
    trio: dict[str, Path], profile: safeswap.Profile, grams: Path, tmp_path: Path
) -> None:
    card = (merged(plan_of(profile, grams), tmp_path / "out") / "README.md").read_text()
    assert "(base, safety, sw, grams) by their paths" in card and str(tmp_path) not in card
    out = swap(trio, tmp_path / "linear")
    refused(lambda: safeswap.verify_merge(out, grams=grams), "no operator of its plan reads")


def test_another_expert_in_the_folder_changes_nothing(
    profile: safeswap.Profile, grams: Path, tmp_path: Path
) -> None:
    out = merged(plan_of(profile, grams), tmp_path / "out")
    edit_manifest(grams, lambda content: content["experts"].pop("te"))
    assert safeswap.verify_merge(out).from_inputs


def lacks_tensor(grams: Path) -> None:
    edit_manifest(grams, lambda content: content["experts"]["sw"]["tensors"].pop(Q))
    edit_matrices(grams, "sw", lambda stored: stored.pop(Q))


def wrong_shape(grams: Path) -> None:
    edit_matrices(grams, "sw", lambda stored: stored.update({Q: np.eye(15, dtype="f4")}))


def wrong_type(grams: Path) -> None:
    edit_matrices(grams, "sw", lambda stored: stored.update({Q: np.eye(16)}))


def strange_tensor(grams: Path) -> None:
    edit_matrices(grams, "sw", lambda stored: stored.update(more=np.eye(3, dtype="f4")))


def cut_off(grams: Path) -> None:
    raw = (grams / "sw.safetensors").read_bytes()
    (grams / "sw.safetensors").write_bytes(raw[:-9])


def no_file(grams: Path) -> None:
    (grams / "sw.safetensors").unlink()


def other_weights(grams: Path) -> None:
    edit_manifest(grams, lambda content: content["experts"]["sw"].update(weights="ab" * 32))


def no_expert(grams: Path) -> None:
    def rename(content: dict[str, Any]) -> None:
        content["experts"]["swa"] = content["experts"].pop("sw")

    edit_manifest(grams, rename)


def extra_key(grams: Path) -> None:
    edit_manifest(grams, lambda content: content["experts"]["sw"].update(weight="x"))


def lost_key(grams: Path) -> None:
    edit_manifest(grams, lambda content: content["experts"]["sw"].pop("texts"))


def other_format(grams: Path) -> None:
    edit_manifest(grams, lambda content: content.update(format="safeswap-grams/9"))


def no_json(grams: Path) -> None:
    (grams / "grams.json").write_text("{")


def bad_record(grams: Path) -> None:
    edit_manifest(grams, lambda c: c["experts"]["sw"]["tensors"][Q].update(inputs="left"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lacks_tensor, [f"sw has no Gram matrix for tensor {Q!r}"]),
        (wrong_shape, ["sw.safetensors", Q, "[15, 15]", "[16, 16]"]),
        (wrong_type, ["sw.safetensors", Q, "F64"]),
        (strange_tensor, ["sw.safetensors", "holds other matrices", "more"]),
        (cut_off, ["sw.safetensors", "cut off"]),
        (no_file, ["sw.safetensors", "cannot be read"]),
        (other_weights, ["matrices of sw are of other weights", "abababababab"]),
        (no_expert, ["holds matrices of safety, te, swa", "regmean reads safety, sw", "--texts"]),
        (extra_key, ["sw", "unknown key 'weight'", "'weights'"]),
        (lost_key, ["sw", "lacks texts"]),
        (other_format, ["is not a safeswap-grams/1 file"]),
        (no_json, ["grams.json", "cannot be read"]),
        (bad_record, ["sw", Q, "is damaged"]),
    ],
)
def test_what_does_not_fit_is_refused_before_work(
    damage: Callable[[Path], None],
    words: list[str],
    profile: safeswap.Profile,
    grams: Path,
    tmp_path: Path,
) -> None:
    damage(grams)
    out = tmp_path / "out"
    refused(lambda: merged(plan_of(profile, grams), out), *words, out=out)
    assert not list(tmp_path.glob(".out.*")), "nothing was begun"


def test_weights_that_changed_since_are_refused(tmp_path: Path) -> None:
    trio = make_trio(tmp_path / "trio")
    languages = {"sw": trio["sw"]}
    profile = safeswap.make_profile(trio["base"], safety=trio["safety"], languages=languages)
    weights = {role: profile.inputs[role].digest for role in ("safety", "sw")}
    roles = {role: inner(role) for role in ("safety", "sw")}
    folder = write_grams(tmp_path / "grams", roles, weights=weights)
    rewrite(trio["sw"], lambda w: w.update({Q: w[Q] * 2}))
    operator = {"name": "regmean", "grams": str(folder)}
    out = tmp_path / "out"
    refused(
        lambda: swap(trio, out, operator=operator, method="uniform"),
        "matrices of sw are of other weights",
        out=out,
    )


def test_no_folder_is_refused_where_the_plan_is_made(
    trio: dict[str, Path], profile: safeswap.Profile, tmp_path: Path
) -> None:
    refused(lambda: plan_of(profile, tmp_path / "none"), str(tmp_path / "none"), "no grams.json")
    operator = {"name": "regmean", "grams": str(tmp_path / "none")}
    refused(lambda: swap(trio, tmp_path / "out", operator=operator), "no grams.json")


def test_a_swap_needs_matrices_for_its_blends_alone(
    profile: safeswap.Profile, grams: Path, tmp_path: Path
) -> None:
    """Units of one expert are copies, and nothing is asked of the folder for them."""
    lacks_tensor(grams)
    plan = plan_of(profile, grams)
    row = dataclasses.replace(plan.units["0.attention"], weights={"safety": 1.0, "sw": 0.0})
    plan = dataclasses.replace(plan, units={**plan.units, "0.attention": row})
    out = merged(plan, tmp_path / "out")
    assert json.loads((out / "safeswap.json").read_text())["tensors"][Q]["fate"] == (
        "copied from safety"
    )
    assert safeswap.verify_merge(out).from_inputs
