"""Candidates in memory are the merges that would be written, bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import safeswap  # noqa: E402
from families import save_tiny  # noqa: E402
from safeswap.checkpoint.family import open_family  # noqa: E402
from safeswap.demo import models_folder  # noqa: E402
from safeswap.errors import CheckpointError, EvaluationError  # noqa: E402
from safeswap.evaluation.backends import BackendOptions, Chat  # noqa: E402
from safeswap.plan import Plan  # noqa: E402
from safeswap.search import hotswap  # noqa: E402
from safeswap.search.hotswap import HotSwapModel, ReloadedModel  # noqa: E402

WORLD = models_folder()
CPU = BackendOptions(dtype="float32", device="cpu")
PLANS: tuple[dict[str, Any], ...] = (
    {},
    {"by": "layer", "outside": "safety"},
    {"operator": "ties"},
    {"method": "uniform", "operator": {"name": "dare", "drop": 0.5, "seed": 3}},
    {"method": "uniform", "form": "task-arithmetic", "scale": 0.7},
    {"method": "gated", "gamma": 0.4},
    {"method": "uniform", "operator": "tsv"},
    {},
)


def world() -> tuple[HotSwapModel, safeswap.Profile]:
    sources = {"safety": WORLD / "safety", "languages": {"qab": WORLD / "qab"}}
    family = open_family(WORLD / "base", **sources)  # type: ignore[arg-type]
    profile = safeswap.make_profile(WORLD / "base", **sources)  # type: ignore[arg-type]
    return HotSwapModel(family, "qab", CPU), profile


def weights_of(model: Any) -> dict[str, Any]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def test_every_operator_s_candidate_is_the_written_merge() -> None:
    inside, profile = world()
    written = ReloadedModel("hf", CPU)
    chats = [Chat(({"role": "user", "content": "qa qi"},), 4)]
    for options in PLANS:
        plan = safeswap.make_plan(profile, **options)
        with inside.answering(plan) as mine:
            found, said = weights_of(mine.model), dict(mine.respond(chats))
        with written.answering(plan) as other:
            assert differing(found, weights_of(other.model)) == [], options
            assert said == dict(other.respond(chats))


def test_only_what_changed_is_touched() -> None:
    inside, profile = world()
    plan = safeswap.make_plan(profile)
    whole = sum(t.nbytes for t in inside._parameters.values())
    assert 0 < inside.apply(plan) < whole
    assert inside.apply(plan) == 0
    units = dict(plan.units)
    other = next(row for row in units.values() if row.weights != units["2.mlp"].weights)
    units["2.mlp"] = other
    changed = Plan(plan.inputs, units, plan.donor)
    mlp = sum(t.nbytes for name, t in inside._parameters.items() if ".2.mlp." in name)
    assert inside.apply(changed) == mlp


def test_a_change_that_broke_off_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, profile = world()
    plan = safeswap.make_plan(profile)
    inside.apply(plan)
    expected = weights_of(inside.loaded.model)
    inside.apply(safeswap.make_plan(profile, method="inverted"))

    def broken(*arguments: Any) -> Any:
        yield from ()
        raise CheckpointError("the disk went away")

    with monkeypatch.context() as patched, pytest.raises(CheckpointError, match="the disk"):
        patched.setattr(hotswap, "chunk_bytes", broken)
        inside.apply(plan)
    inside.apply(plan)
    assert differing(weights_of(inside.loaded.model), expected) == []


def trio(family: str, folder: Path) -> tuple[dict[str, Path], Any]:
    """A base and two experts of a family, with a tokenizer that loads."""
    found = {}
    for seed, role in enumerate(("base", "safety", "sw")):
        found[role] = folder / role
        save_tiny(family, found[role], seed, of=0)
        for file in WORLD.joinpath("base").glob("token*"):
            shutil.copy(file, found[role])
    return found, {"safety": found["safety"], "languages": {"sw": found["sw"]}}


@pytest.mark.parametrize(
    "name", ["llama-biases", "qwen2", "phi3", "gpt2", "gpt-neox", "gemma3-text"]
)
def test_families(name: str, tmp_path: Path) -> None:
    places, experts = trio(name, tmp_path)
    inside = HotSwapModel(open_family(places["base"], **experts), "sw", CPU)
    plan = safeswap.make_plan(safeswap.make_profile(places["base"], **experts), tau=0.03)
    inside.apply(plan)
    with ReloadedModel("hf", CPU).answering(plan) as other:
        assert differing(weights_of(inside.loaded.model), weights_of(other.model)) == []


def test_a_model_that_holds_other_numbers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    load = hotswap.HFBackend

    class Scaled(load):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            with torch.no_grad():
                self.model.get_parameter("model.layers.3.mlp.up_proj.weight").mul_(2)

    monkeypatch.setattr(hotswap, "HFBackend", Scaled)
    with pytest.raises(EvaluationError, match=r"model\.layers\.3\.mlp\.up_proj.*--reload"):
        world()


def test_another_donor_is_refused() -> None:
    inside, profile = world()
    with pytest.raises(EvaluationError, match="donor safety"):
        inside.apply(safeswap.make_plan(profile, donor="safety"))


@pytest.mark.parametrize("tied", [False, True])
def test_rows_that_are_matched_by_token(tmp_path: Path, tied: bool) -> None:
    """A grown vocabulary and another order: exchanged in memory as they would be written."""
    from grown import bpe, grown, member, moved

    tokenizer = bpe()
    base = member(tmp_path / "base", tokenizer)
    experts: dict[str, Any] = {
        "safety": member(tmp_path / "safety", moved(tokenizer), base, seed=1),
        "languages": {"sw": member(tmp_path / "sw", grown(tokenizer, 30), base, seed=2, tied=tied)},
    }
    inside = HotSwapModel(open_family(base, **experts), "sw", CPU)
    profile = safeswap.make_profile(base, **experts)
    written = ReloadedModel("hf", CPU)
    for options in PLANS[:4]:
        plan = safeswap.make_plan(profile, **options)
        with inside.answering(plan) as mine:
            found = weights_of(mine.model)
        with written.answering(plan) as other:
            assert differing(found, weights_of(other.model)) == [], options
