"""A profile from a sample: that of all weights where all is read, and near it elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from safeswap.checkpoint.family import Family, open_family
from safeswap.errors import CheckpointError, ProfileError
from safeswap.profile import Interval, Profile, Sample, measure_family
from safeswap.profile import sample as sampling
from safeswap.profile.sample import FamilySample
from tiny import BF16, make_trio, rewrite

QUERY = "model.layers.1.self_attn.q_proj.weight"
SMALL = {"SMALLEST_BLOCK": 8, "BLOCKS": 32}


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
    for name, value in SMALL.items():
        monkeypatch.setattr(sampling, name, value)
    return opened(make_trio(tmp_path))


def opened(trio: dict[str, Path]) -> Family:
    return open_family(trio["base"], trio["safety"], {"sw": trio["sw"], "te": trio["te"]})


def record(sample: FamilySample) -> Sample:
    read = {name: one.read / one.elements for name, one in sample.tensors.items()}
    intervals = {code: {"module": {"0.mlp": Interval(0.1, 0.0, 0.2)}} for code in ("sw", "te")}
    return Sample(0, sample.nbytes, sample.all_bytes, 0.99, read, intervals)


def test_all_blocks_make_the_exact_profile(family: Family) -> None:
    sample = FamilySample(family)
    sample.read_rests()
    sample.grow(dict.fromkeys(sample.tensors, 10**9))
    assert sample.nbytes == sample.all_bytes == family.bytes_to_read()
    estimated, exact = sample.profile(record(sample)), measure_family(family)
    for ours, theirs in zip(estimated.tensors, exact.tensors, strict=True):
        assert replace(ours, base_norm=0, update_norm={}, inner={}, digests={}) == replace(
            theirs, base_norm=0, update_norm={}, inner={}, digests={}
        )
        assert ours.base_norm == pytest.approx(theirs.base_norm, rel=1e-6)
        assert ours.update_norm == pytest.approx(theirs.update_norm, rel=1e-6)
        assert ours.inner == pytest.approx(theirs.inner, rel=1e-5, abs=1e-9)


def test_an_estimate_is_blocks_times_the_mean_of_those_read(family: Family) -> None:
    sample = FamilySample(family, seed=3)
    sample.grow({QUERY: 5})
    one = sample.tensors[QUERY]
    weights = {}
    for role in ("base", "safety"):
        tensor = family.members[role].tensors[QUERY]
        weights[role] = np.empty(tensor.elements)
        with tensor.reader() as reader:
            reader.read_numbers(0, tensor.elements, weights[role])
    blocks = [
        (
            np.square(weights["base"][at : at + one.block]).sum(),
            np.square((weights["safety"] - weights["base"])[at : at + one.block]).sum(),
        )
        for at in range(0, one.elements, one.block)
    ]
    drawn = [tuple(map(float, row[:2])) for row in one.values]
    assert one.pairs[:2] == (("base", "base"), ("safety", "safety"))
    assert len(set(drawn)) == 5
    for row in drawn:
        assert any(row == pytest.approx(block, rel=1e-6) for block in blocks)
    assert one.totals()[:2] == pytest.approx(np.mean(drawn, axis=0) * len(blocks))
    assert one.read == 5 * one.block


def test_what_was_drawn_does_not_depend_on_workers_or_steps(family: Family) -> None:
    at_once, in_steps = FamilySample(family), FamilySample(family)
    wanted = dict.fromkeys(at_once.tensors, 20)
    at_once.grow(wanted, workers=1)
    for count in (3, 7, 20):
        in_steps.grow(dict.fromkeys(wanted, count), workers=3)
    for name in wanted:
        assert np.array_equal(at_once.tensors[name].values, in_steps.tensors[name].values)
    other = FamilySample(family, seed=1)
    other.grow(wanted)
    assert not np.array_equal(other.tensors[QUERY].values, at_once.tensors[QUERY].values)


def test_no_block_is_drawn_twice(family: Family) -> None:
    sample = FamilySample(family)
    assert sorted(sample._order(QUERY)) == list(range(sample.tensors[QUERY].blocks))


def test_a_weight_that_is_none_is_named(tmp_path: Path) -> None:
    trio = make_trio(tmp_path)

    def spoil(weights: dict[str, np.ndarray]) -> None:
        weights[QUERY][0, 0] = BF16(np.nan)

    rewrite(trio["safety"], spoil)
    sample = FamilySample(opened(trio))
    with pytest.raises(CheckpointError, match=r"q_proj.*safety.*nan at element 0"):
        sample.read_rests()


def test_a_sampled_profile_makes_the_round_trip(family: Family, tmp_path: Path) -> None:
    sample = FamilySample(family)
    sample.read_rests()
    sample.grow(dict.fromkeys(sample.tensors, 4))
    made = sample.profile(record(sample))
    made.save(tmp_path / "p.json")
    again = Profile.load(tmp_path / "p.json")
    assert again == made
    assert again.sample is not None and again.sample.bytes_read < again.sample.bytes_all
    only = again.only("sw").sample
    assert only is not None and set(only.intervals) == {"sw"}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "x"},
        {"bytes_read": float("nan")},
        {"intervals": {}},
        {"intervals": {"sw": {"module": {"0.mlp": {"difference": 1}}}, "te": {}}},
        {"read": [1]},
        {"more": 1},
    ],
)
def test_a_damaged_sample_is_refused(family: Family, change: dict[str, object]) -> None:
    sample = FamilySample(family)
    sample.grow(dict.fromkeys(sample.tensors, 2))
    content = sample.profile(record(sample)).as_dict()
    content["sample"] |= change
    with pytest.raises(ProfileError, match=r"p\.json"):
        Profile.from_dict(content, "p.json")


def test_an_exact_profile_says_nothing_of_samples(family: Family) -> None:
    assert "sample" not in measure_family(family).as_dict()
