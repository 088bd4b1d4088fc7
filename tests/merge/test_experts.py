"""Plans by expert: policies, rows edited by hand, operators, narrow formats, memory, tampering."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import mixtures
from adapted import make_adapter, merged_by_peft
from narrow import from_mxfp4, gpt_oss, gpt_oss_config, make_mxfp4, stored_in, to_mxfp4
from operators import direct
from safeswap import api
from safeswap.errors import PlanError, SafeswapError, VerificationError
from safeswap.merge.run import Merged
from safeswap.operators import Operation
from safeswap.plan import Plan, PlannedUnit
from safeswap.profile import Profile
from tiny import make_trio, make_weights, refused, save_checkpoint

Trio = dict[str, Path]


def experts(trio: Trio) -> dict[str, Any]:
    return {"safety": trio["safety"], "languages": {"sw": trio["sw"]}}


def run(trio: Trio, out: Path, **options: Any) -> Merged:
    (merged,) = api.merge(trio["base"], **experts(trio), out=out, **{"figure": False, **options})
    return merged


def states(trio: Trio) -> list[mixtures.State]:
    return [mixtures.loaded(trio[role]) for role in mixtures.ROLES]


def same(out: Path, wanted: mixtures.State, step: float = 2.0**-23) -> None:
    found = mixtures.loaded(out)
    for name, weight in wanted.items():
        assert torch.allclose(found[name], weight, rtol=step, atol=1e-12), name


@pytest.fixture(scope="module")
def deepseek(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return mixtures.save_trio(tmp_path_factory.mktemp("deepseek"), "deepseek-v3")


@pytest.fixture(scope="module")
def oss(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    return mixtures.save_trio(tmp_path_factory.mktemp("oss"), "gpt-oss")


@pytest.mark.parametrize(
    ("by", "router", "shared"),
    [
        ("expert", "follow", "own"),
        ("expert", "safety", "language"),
        ("expert", "blend", "base"),
        ("expert", "base", "safety"),
        ("module", "language", "blend"),
        ("module", "follow", "safety"),
        ("module", "safety", "follow"),
    ],
)
def test_policies(deepseek: Trio, tmp_path: Path, by: str, router: str, shared: str) -> None:
    """Routers with their correction biases, and shared experts with their gates."""
    merged = run(deepseek, tmp_path / "out", by=by, router=router, shared_experts=shared)
    rules = {"by": by, "router": router, "shared": shared}
    same(tmp_path / "out", mixtures.merge(*states(deepseek), halves=True, **rules).state)
    kinds = {unit.split(".")[1] for unit in merged.plan.units if unit[0].isdigit()}
    assert ("router" in kinds) == (router != "follow")
    assert ("shared_experts" in kinds) == (shared not in ("follow",))
    assert api.verify_merge(tmp_path / "out").edited == ()


def test_by_layer_a_policy_stands_beside_the_mlp(deepseek: Trio, tmp_path: Path) -> None:
    plan = run(deepseek, tmp_path / "out", by="layer", router="base").plan
    assert plan.units["1.router"].decision == "base" and "1.mlp" in plan.units
    base, out = mixtures.loaded(deepseek["base"]), mixtures.loaded(tmp_path / "out")
    assert torch.equal(
        out["model.layers.1.mlp.gate.weight"], base["model.layers.1.mlp.gate.weight"]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "expert", "shared_experts": "follow"}, ("--shared-experts follow", "own")),
        ({"by": "module", "shared_experts": "own"}, ("--shared-experts own", "--by expert")),
        ({"by": "expert", "router": "languages"}, ("--router", "did you mean 'language'")),
        ({"by": "experts"}, ("--by", "did you mean 'expert'")),
        ({"method": "uniform", "by": "expert"}, ("no parameter 'by'", "share-difference")),
    ],
)
def test_what_says_nothing_is_refused(
    deepseek: Trio, tmp_path: Path, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(PlanError) as caught:
        run(deepseek, tmp_path / "out", **options)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (tmp_path / "out").exists()


def test_a_model_without_experts_is_refused_by_expert(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)
    words = ("--by expert", "no experts", "--by module")
    refused(lambda: run(trio, tmp_path / "out", by="expert"), *words, out=tmp_path / "out")
    profile = api.make_profile(trio["base"], **experts(trio))
    refused(lambda: api.make_plan(profile, by="expert"), *words)


def test_a_profile_keeps_numbers_of_each_expert(oss: Trio, tmp_path: Path) -> None:
    profile = api.make_profile(oss["base"], **experts(oss))
    profile.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == profile
    base, safety, spoken = states(oss)
    for tensor in profile.tensors:
        if tensor.experts is None:
            assert ".experts." not in tensor.name
            continue
        one, two, three = (state[tensor.name] for state in (base, safety, spoken))
        for e in range(len(one)):
            assert tensor.experts.base_norm[e] == pytest.approx(one[e].norm().item(), rel=1e-6)
            for role, other in (("safety", two), ("sw", three)):
                wanted = (other[e] - one[e]).norm().item()
                assert tensor.experts.update_norm[role][e] == pytest.approx(wanted, rel=1e-5)
            inner = ((two[e] - one[e]) * (three[e] - one[e])).sum().item()
            assert tensor.experts.inner["sw"][e] == pytest.approx(inner, rel=1e-4, abs=1e-7)
    # as an earlier version wrote it
    content = json.loads((tmp_path / "p.json").read_text())
    for record in content["tensors"]:
        record.pop("part", None), record.pop("experts", None)
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = Profile.load(tmp_path / "old.json")
    refused(lambda: api.make_plan(old, by="expert"), "--by expert", "safeswap profile again")
    assert api.make_plan(old).units == api.make_plan(profile).units


def test_a_sample_does_not_know_experts_in_one_tensor(oss: Trio) -> None:
    from safeswap.plan.sampled import Wish

    profile = api.make_profile(oss["base"], **experts(oss), sample=Wish(budget=0.9))
    refused(lambda: api.make_plan(profile, by="expert"), "from a sample", "--by module")
    refused(lambda: Wish(budget=0.1, by="expert"), "--by expert", "by module or layer")


def edited(plan: Plan, **rows: PlannedUnit | None) -> Plan:
    units = {unit: row for unit, row in plan.units.items() if rows.get(unit, row) is not None}
    more = {unit: row for unit, row in rows.items() if row is not None}
    return replace(plan, units={**units, **more})


def test_rows_of_parts_beside_an_mlp(oss: Trio, tmp_path: Path) -> None:
    """A plan by module, with one expert and a router given otherwise by hand."""
    profile = api.make_profile(oss["base"], **experts(oss))
    plan = api.make_plan(profile, method="uniform")
    mine = {"1.experts.2": PlannedUnit({"safety": 1.0, "sw": 0.0})}
    mine["0.router"] = PlannedUnit({"safety": 0.0, "sw": 0.0})
    changed = edited(plan, **mine)
    changed.save(tmp_path / "plan.yaml")
    api.merge_plans(
        [Plan.load(tmp_path / "plan.yaml")], tmp_path / "out", profile=profile, figure=False
    )
    base, safety, spoken = states(oss)
    wanted = {name: (safety[name] + spoken[name]) / 2 for name in base}
    for name in base:
        if name.startswith("model.layers.0.mlp.router"):
            wanted[name] = base[name]
        if name.startswith("model.layers.1.mlp"):  # the router's row goes with the expert
            wanted[name][2] = safety[name][2]
    same(tmp_path / "out", wanted)
    checked = api.verify_merge(tmp_path / "out")
    assert set(checked.edited) == {"1.experts.2", "0.router"}
    log = json.loads((tmp_path / "out" / "safeswap.json").read_text())["tensors"]
    assert log["model.layers.1.mlp.experts.down_proj"]["fate"] == (
        "by expert: 3 × 0.5 · safety + 0.5 · sw; 1 × copied from safety"
    )


def test_rows_that_are_missing_unknown_or_idle_are_refused(oss: Trio, tmp_path: Path) -> None:
    profile = api.make_profile(oss["base"], **experts(oss))
    plan, out = api.make_plan(profile, by="expert"), tmp_path / "out"
    row = PlannedUnit({"safety": 1.0, "sw": 0.0})
    for changed, words in (
        (edited(plan, **{"0.experts.3": None}), ("'0.experts.3' is missing",)),
        (edited(plan, **{"0.router": row, "0.experts.4": row}), ("no unit '0.experts.4'",)),
        (edited(plan, **{"0.mlp": row}), ("'0.mlp' decides nothing", "0.router")),
    ):
        with pytest.raises(PlanError) as caught:
            api.merge_plans([changed], out)
        assert all(word in str(caught.value) for word in words), caught.value
    api.merge_plans(
        [edited(plan, **{"0.router": None})], out, figure=False
    )  # then row by row with the experts


@pytest.mark.parametrize("operator", ["ties", "slerp", "tsv"])
def test_operators_see_the_matrix_of_one_expert(oss: Trio, tmp_path: Path, operator: str) -> None:
    plan = run(oss, tmp_path / "out", by="expert", tau=1.0, operator=operator).plan
    assert set(plan.counts()["experts"]) == {"blend"}
    base, safety, spoken = states(oss)
    found = mixtures.loaded(tmp_path / "out")
    for name in (n for n in base if ".1.mlp.experts.down_proj" in n and "bias" not in n):
        for e in range(len(base[name])):
            one, two, three = (s[name][e].numpy() for s in (base, safety, spoken))
            wanted = getattr(direct, operator)(one, [two, three], [0.5, 0.5])
            assert np.allclose(found[name][e].numpy(), wanted, rtol=1e-5, atol=1e-7), (name, e)
    assert api.verify_merge(tmp_path / "out").from_inputs


def weights_file(out: Path) -> bytes:
    return (out / "model.safetensors").read_bytes()


def test_workers_and_chunks_do_not_change_a_byte(
    oss: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(oss, tmp_path / "a", by="expert", workers=1)
    assert weights_file(run(oss, tmp_path / "b", by="expert", workers=3).folder) == weights_file(
        whole.folder
    )


def test_an_interrupted_run_goes_on(
    oss: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(28, os.strerror(28), "somewhere")

    wanted = weights_file(run(oss, tmp_path / "whole", by="expert").folder)
    with monkeypatch.context() as patch:
        patch.setattr("safeswap.merge.run.companions.copy_rest", fail)
        with pytest.raises(SafeswapError):
            run(oss, tmp_path / "out", by="expert")
    again = run(oss, tmp_path / "out", by="expert")
    assert again.resumed_bytes == again.nbytes - len(wanted) + sum(
        t.numel() * t.element_size() for t in load_file(again.folder / "model.safetensors").values()
    )
    assert weights_file(again.folder) == wanted


def test_tampering_is_found(oss: Trio, tmp_path: Path) -> None:
    out = run(oss, tmp_path / "out", by="expert").folder
    manifest = (out / "safeswap.json").read_text()
    content = json.loads(manifest)
    name = "model.layers.1.mlp.experts.gate_up_proj"
    tensor = next(t for t in content["profile"]["tensors"] if t["name"] == name)
    tensor["experts"]["update_norm"]["sw"][2] *= 1.5
    content.pop("digest")
    (out / "safeswap.json").write_text(json.dumps(content))
    with pytest.raises(VerificationError, match="gate_up_proj → experts → update_norm → sw → 2"):
        api.verify_merge(out)
    (out / "safeswap.json").write_text(manifest)
    api.verify_merge(out)
    file = out / "model.safetensors"
    weights = load_file(file)
    weights[name][3, 0, 0] += 1
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(VerificationError, match=r"was changed|header"):
        api.verify_merge(out)


def test_a_manifest_of_an_earlier_version_is_verified(oss: Trio, tmp_path: Path) -> None:
    out = run(oss, tmp_path / "out").folder
    content = json.loads((out / "safeswap.json").read_text())
    for tensor in content["profile"]["tensors"]:
        tensor.pop("part", None), tensor.pop("experts", None)
    content.pop("digest")
    (out / "safeswap.json").write_text(json.dumps(content))
    assert api.verify_merge(out).from_inputs


def test_mxfp4_is_written_again_expert_by_expert(tmp_path: Path) -> None:
    """Copied codes of one expert beside another's, and blends quantized again."""
    shapes = gpt_oss()
    base = make_weights(shapes)
    trio, numbers = {}, {}
    for seed, role in enumerate(mixtures.ROLES):
        weights = make_weights(shapes, base, seed) if seed else base
        trio[role] = save_checkpoint(tmp_path / role, weights, gpt_oss_config(shapes), 2)
        numbers[role] = make_mxfp4(trio[role])
    plan = run(trio, tmp_path / "out", by="expert", tau=0.1, tau_relative=True, dtype="same").plan
    written, stored = stored_in(tmp_path / "out"), {r: stored_in(trio[r]) for r in trio}
    met = set()
    for name in (n for n in numbers["sw"] if n + "_blocks" in written):
        layer = name.split(".")[2]
        parts = [written[name + end] for end in ("_blocks", "_scales")]
        for e in range(3):
            decision = plan.units[f"{layer}.experts.{e}"].decision
            met.add(decision)
            if decision == "blend":
                mean = (numbers["safety"][name][e] + numbers["sw"][name][e]) / 2
                wanted = to_mxfp4(mean[None].astype(np.float32))
                found = from_mxfp4(*(part[e : e + 1] for part in parts))
                assert (found != from_mxfp4(*wanted)).mean() < 0.003
            else:
                own = [stored[decision][name + end][e] for end in ("_blocks", "_scales")]
                assert all(np.array_equal(p[e], o) for p, o in zip(parts, own, strict=True))
    assert met == {"blend", "safety", "sw"}
    assert api.verify_merge(tmp_path / "out").from_inputs


def adapters_of_all_experts(folder: Path) -> tuple[Trio, Trio]:
    """gpt-oss with two adapters of its fused experts; the trio of whole checkpoints by peft."""
    trio = mixtures.save_trio(folder / "whole", "gpt-oss")
    named = ["experts.gate_up_proj", "experts.down_proj"]
    put = {"base": trio["base"]}
    for seed, role in enumerate(("safety", "sw"), 1):
        where = folder / role
        put[role] = make_adapter(
            trio["base"],
            where,
            seed=seed,
            size=0.03,
            target_modules=["q_proj"],
            target_parameters=named,
        )
        weights = merged_by_peft(trio["base"], put[role], folder / f"m-{role}", torch.float32)
        whole = {name: weight.contiguous() for name, weight in weights.items()}
        save_file(whole, trio[role] / "model.safetensors", metadata={"format": "pt"})
    return trio, put


def test_adapters_of_fused_experts_are_measured_by_their_factors(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    trio, put = adapters_of_all_experts(tmp_path)
    by_factors = api.make_profile(put["base"], **experts(put))
    by_weights = api.make_profile(trio["base"], **experts(trio))
    for one, two in zip(by_factors.tensors, by_weights.tensors, strict=True):
        assert one.name == two.name and (one.experts is None) == (two.experts is None)
        if one.experts is not None and two.experts is not None:
            for role in ("safety", "sw"):
                found, wanted = one.experts.update_norm[role], two.experts.update_norm[role]
                assert found == pytest.approx(wanted, rel=1e-3, abs=1e-7)
            wanted = two.experts.inner["sw"]
            assert one.experts.inner["sw"] == pytest.approx(wanted, rel=1e-2, abs=1e-6)
    plan = api.make_plan(by_factors, by="expert")
    refused(
        lambda: api.merge_plans([plan], tmp_path / "a", as_adapter=True),
        *("--as adapter", "4 experts", "--by module"),
        out=tmp_path / "a",
    )
    (merged,) = api.merge_plans([plan], tmp_path / "out", figure=False)
    found = mixtures.loaded(merged.folder)
    base, safety, spoken = states(trio)
    for name in (n for n in base if ".experts." in n and "bias" not in n):
        for e in range(len(base[name])):
            row = plan.units[f"{name.split('.')[2]}.experts.{e}"].weights
            wanted_weight = base[name][e] + sum(
                row[role] * (state[name][e] - base[name][e])
                for role, state in (("safety", safety), ("sw", spoken))
            )
            assert torch.allclose(found[name][e], wanted_weight, rtol=1e-5, atol=1e-6), name
    assert api.verify_merge(merged.folder).from_inputs


def test_mergekit_is_refused_what_it_cannot_say(oss: Trio) -> None:
    plan = api.make_plan(api.make_profile(oss["base"], **experts(oss)), by="expert")
    with pytest.raises(PlanError, match="one weight to a whole tensor"):
        api.to_mergekit(plan)


def test_candidates_in_memory_are_the_written_merges(oss: Trio, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from safeswap.checkpoint.family import open_family
    from safeswap.demo import models_folder
    from safeswap.evaluation.backends import BackendOptions
    from safeswap.search.hotswap import HotSwapModel

    for role in oss:
        for file in models_folder().joinpath("base").glob("token*"):
            shutil.copy(file, oss[role])
    family = open_family(oss["base"], **experts(oss))
    inside = HotSwapModel(family, "sw", BackendOptions(dtype="float32", device="cpu"))
    profile = api.make_profile(oss["base"], **experts(oss))
    for number, options in enumerate(
        ({"by": "expert"}, {"by": "module"}, {"by": "expert", "router": "follow", "tau": 0.01})
    ):
        plan = api.make_plan(profile, **options)
        (merged,) = api.merge_plans([plan], tmp_path / str(number), figure=False)
        inside.apply(plan)
        held = inside.loaded.model.state_dict()
        for name, weight in mixtures.loaded(merged.folder).items():
            assert torch.equal(held[name].double(), weight), (options, name)
        assert inside.apply(plan) == 0
    inside.close()


def test_experts_in_a_tensor_of_several_chunks(tmp_path: Path) -> None:
    """Borders of experts lie inside chunks, and those of chunks inside experts."""
    shapes = {
        "model.embed_tokens.weight": (8, 16),
        "model.layers.0.self_attn.q_proj.weight": (16, 16),
        "model.layers.0.input_layernorm.weight": (16,),
        "model.layers.0.mlp.gate.weight": (5, 16),
        "model.layers.0.mlp.experts.gate_up_proj": (5, 123457, 16),
        "model.layers.0.mlp.experts.down_proj": (5, 16, 300),
        "model.norm.weight": (16,),
        "lm_head.weight": (8, 16),
    }
    base = make_weights(shapes)
    trio, weights = {}, {}
    for seed, role in enumerate(mixtures.ROLES):
        weights[role] = make_weights(shapes, base, seed) if seed else base
        config = {"model_type": "qwen3_moe", "vocab_size": 8, "num_experts": 5, "hidden_size": 16}
        trio[role] = save_checkpoint(tmp_path / role, weights[role], config, 1)
    profile = api.make_profile(trio["base"], **experts(trio))
    plan = api.make_plan(profile, by="expert")
    given = ((1.0, 0.0), (0.0, 1.0), (0.25, 0.75), (0.25, 0.75), (0.0, 0.0))
    rows = {
        f"0.experts.{e}": PlannedUnit({"safety": one, "sw": two})
        for e, (one, two) in enumerate(given)
    }
    (merged,) = api.merge_plans([edited(plan, **rows)], tmp_path / "out", figure=False)
    name = "model.layers.0.mlp.experts.gate_up_proj"
    found = stored_in(merged.folder)[name]
    wide = {role: own[name].astype(np.float32) for role, own in weights.items()}
    for e, (one, two) in enumerate(given):
        rest = np.float32(1 - one - two)
        wanted = rest * wide["base"][e] + np.float32(one) * wide["safety"][e]
        wanted += np.float32(two) * wide["sw"][e]
        assert np.array_equal(found[e], wanted.astype(found.dtype)), e
    checked = api.verify_merge(merged.folder)
    assert checked.from_inputs and api.verify_merge(merged.folder, without_inputs=True)
    ties = replace(edited(plan, **rows), operator=Operation("ties"))
    (again,) = api.merge_plans([ties], tmp_path / "ties", figure=False)
    assert api.verify_merge(again.folder).from_inputs
    for e in (0, 1, 4):  # what one expert alone gives is no operator's
        assert np.array_equal(stored_in(again.folder)[name][e], found[e])
