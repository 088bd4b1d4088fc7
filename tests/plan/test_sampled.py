"""Samples that are read on until decisions are certain, and what is said of the rest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from safeswap import api
from safeswap.checkpoint.family import Family, open_family
from safeswap.errors import ConfigError
from safeswap.plan.sampled import Wish, sample_family, uncertain
from safeswap.profile import Profile, measure_family
from safeswap.profile import sample as sampling
from safeswap.selectors.share_difference import decide
from tiny import make_trio

SIZES = {"layers": 3, "width": 48, "inner": 64}


@pytest.fixture
def trio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(sampling, "SMALLEST_BLOCK", 4)
    return make_trio(tmp_path / "trio", **SIZES)


@pytest.fixture
def family(trio: dict[str, Path]) -> Family:
    return open_family(trio["base"], trio["safety"], {"sw": trio["sw"], "te": trio["te"]})


@pytest.mark.parametrize("by", ["module", "layer"])
@pytest.mark.parametrize("tau", [0.0, 0.003, 0.3])
def test_certain_decisions_are_those_of_all_weights(family: Family, by: str, tau: float) -> None:
    exact = measure_family(family)
    found = sample_family(family, Wish(until_certain=True, by=by, tau=tau))
    for language in ("sw", "te"):
        assert not uncertain(found, language, by, tau)
        one, two = (
            {
                k: c.decision
                for k, c in decide(p, language, by=by, tau=tau, tau_relative=False).items()
            }
            for p in (found, exact)
        )
        assert one == two


def test_what_is_clear_takes_less_than_what_is_close(family: Family) -> None:
    exact = measure_family(family)
    close = min(
        abs(c.difference or 0)
        for language in ("sw", "te")
        for c in decide(exact, language, by="module", tau=0, tau_relative=False).values()
    )
    clear, near = (
        sample_family(family, Wish(until_certain=True, tau=tau)).sample for tau in (0.9, close)
    )
    assert clear is not None and near is not None
    assert clear.bytes_read < near.bytes_read <= near.bytes_all
    assert max(near.read.values()) == 1.0


def test_a_budget_is_kept_where_it_can_be(family: Family) -> None:
    for budget in (0.5, 0.9):
        sample = sample_family(family, Wish(budget=budget)).sample
        assert sample is not None and sample.bytes_read <= budget * sample.bytes_all
    few = sample_family(family, Wish(budget=0.001)).sample
    assert few is not None  # sixteen blocks of each, and what fills none
    for name, part in few.read.items():
        one = family.base.tensors[name]
        block = sampling._block_of(one.elements)
        assert part * one.elements == pytest.approx(
            min(16, one.elements // block) * block + one.elements % block
        )


def test_the_result_does_not_depend_on_workers(family: Family) -> None:
    wish = Wish(until_certain=True, tau=0.003)
    assert sample_family(family, wish, workers=1) == sample_family(family, wish, workers=3)


def test_a_frozen_layer_is_certain_at_once(trio: dict[str, Path]) -> None:
    from safetensors.numpy import load_file

    from tiny import rewrite

    base = {}
    for file in trio["base"].glob("*.safetensors"):
        base |= load_file(file)

    def freeze(weights: dict) -> None:
        weights |= {n: base[n] for n in weights if ".layers.0." in n}

    for role in ("safety", "sw"):
        rewrite(trio[role], freeze)
    family = open_family(trio["base"], trio["safety"], {"sw": trio["sw"]})
    sample = sample_family(family, Wish(until_certain=True)).sample
    assert sample is not None
    found = sample.intervals["sw"]["module"]["0.mlp"]
    assert (found.difference, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_plan_says_what_a_sample_leaves_open(
    trio: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    profile = api.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}, sample=Wish(budget=0.001)
    )
    with caplog.at_level(logging.WARNING, "safeswap"):
        plan = api.make_plan(profile, tau=0.003)
        left = uncertain(profile, "sw", "module", 0.003)
        assert left and f"{len(left)} decisions are not certain at 99 %" in caplog.text
        assert "--until-certain" in caplog.text
        caplog.clear()
        api.make_plan(profile, method="cosine")
        assert "how certain these decisions are is not known" in caplog.text
    assert all(not given.digest for given in plan.inputs.values())


def test_a_merge_measures_all_weights_itself(trio: dict[str, Path], tmp_path: Path) -> None:
    languages = {"sw": trio["sw"]}
    wish = Wish(until_certain=True)
    sampled = api.make_profile(
        trio["base"], safety=trio["safety"], languages=languages, sample=wish
    )
    sampled.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == sampled
    (merged,) = api.merge_plans([api.make_plan(sampled)], tmp_path / "out", profile=sampled)
    assert merged.profile.sample is None
    assert all(record.digest for record in merged.profile.inputs.values())
    assert api.verify_merge(tmp_path / "out").from_inputs


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"budget": 0.0}, "--budget 0"),
        ({"budget": 1.5}, "--budget 1.5"),
        ({"budget": float("nan")}, "--budget nan"),
        ({"confidence": 1.0}, "--until-certain 1"),
        ({"confidence": 0.2}, "--until-certain 0.2"),
        ({"by": "modul"}, "did you mean 'module'"),
        ({"tau": -1.0}, "--tau -1"),
        ({"tau": float("inf")}, "--tau inf"),
    ],
)
def test_wishes_that_cannot_be_are_refused(wrong: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Wish(**wrong)
