"""What is exported, read with mergekit's rule that a filter is a substring of a name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import safeswap
from safeswap.anatomy import anatomy_of
from safeswap.checkpoint.source import Source
from safeswap.cli import main
from safeswap.errors import PlanError
from safeswap.interchange import to_mergekit
from safeswap.interchange.export import _model
from safeswap.interchange.filters import unit_filters
from safeswap.operators import Operation
from safeswap.plan import Plan
from tiny import llama_shapes, make_trio, rewrite


@pytest.fixture
def plan(trio: dict[str, Path]) -> Plan:
    languages = {"sw": trio["sw"]}
    profile = safeswap.make_profile(trio["base"], safety=trio["safety"], languages=languages)
    return safeswap.make_plan(profile, method="gated", gamma=0.75, tau=0.0)


def met(entries: list[dict[str, Any]], name: str) -> list[float]:
    """All values whose filter is in the name; mergekit takes the first."""
    return [entry["value"] for entry in entries if entry["filter"] in name]


@pytest.mark.parametrize("layers", [1, 2, 12, 24, 111])
def test_a_filter_means_one_unit(layers: int) -> None:
    anatomy = anatomy_of(llama_shapes(layers))
    units = {name: placement.unit for name, placement in anatomy.placements.items()}
    filters = unit_filters(units)
    assert tuple(sorted(filters)) == tuple(sorted(anatomy.units))
    for name, unit in units.items():
        hits = [u for u, texts in filters.items() for text in texts if text in name]
        assert hits == [unit]
    assert all(text.endswith(".") for texts in filters.values() for text in texts)


words = st.text("ab1.", min_size=1, max_size=8)


@given(names=st.dictionaries(words, st.sampled_from("xyz"), min_size=1, max_size=12))
def test_filters_of_any_names_mean_one_unit_or_are_refused(names: dict[str, str]) -> None:
    within = any(
        one in two and names[one] != names[two] for one in names for two in names if one != two
    )
    try:
        filters = unit_filters(names)
    except PlanError as error:
        assert within and "stands within the name" in str(error)
        return
    for name, unit in names.items():
        assert {u for u, texts in filters.items() if any(t in name for t in texts)} == {unit}


def test_a_name_within_another_units_name_is_refused() -> None:
    with pytest.raises(PlanError, match=r"tensor 'a' stands within the name 'a\.b' of another"):
        unit_filters({"a": "x", "a.b": "y"})


def test_every_weight_is_listed_once_and_sums_with_the_base_to_one(
    plan: Plan, trio: dict[str, Path]
) -> None:
    content = yaml.safe_load(to_mergekit(plan))
    assert content["merge_method"] == "linear" and content["parameters"] == {"normalize": False}
    assert (content["dtype"], content["out_dtype"]) == ("float32", "bfloat16")
    assert content["base_model"] == str(trio["sw"])
    assert [entry["model"] for entry in content["models"]] == [
        str(trio[role]) for role in ("base", "safety", "sw")
    ]
    anatomy = anatomy_of(llama_shapes())
    lists = [entry["parameters"]["weight"] for entry in content["models"]]
    for name, placement in anatomy.placements.items():
        (base,), (safety,), (sw,) = (met(entries, name) for entries in lists)
        assert {"safety": safety, "sw": sw} == dict(plan.units[placement.unit].weights)
        assert base == pytest.approx(1 - safety - sw)
    assert {met(lists[0], n)[0] for n in anatomy.placements} == {0.0, -0.75}


def test_the_donor_and_the_dtype_are_the_plans(plan: Plan, trio: dict[str, Path]) -> None:
    content = yaml.safe_load(to_mergekit(replace(plan, donor="base"), dtype="float16"))
    assert content["base_model"] == str(trio["base"]) and content["out_dtype"] == "float16"


def test_32_bit_weights_are_summed_in_64(plan: Plan, trio: dict[str, Path]) -> None:
    for role in ("base", "safety", "sw"):
        rewrite(trio[role], lambda w: w.update({n: v.astype("float32") for n, v in w.items()}))
    content = yaml.safe_load(to_mergekit(plan))
    assert (content["dtype"], content["out_dtype"]) == ("float64", "float32")


def test_what_mergekit_cannot_say_is_refused(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"operator 'ties': safeswap convert writes sums"):
        to_mergekit(replace(plan, operator=Operation("ties")))
    sw = Path(plan.inputs["sw"].source)
    rewrite(sw, lambda w: w.update({"lm_head.weight": w["lm_head.weight"].astype("float32")}))
    with pytest.raises(PlanError, match=r"stores bfloat16 and float32, .* --save-dtype bfloat16"):
        to_mergekit(plan)
    moved = sw.rename(sw.parent / "sw+x")
    inputs = {**plan.inputs, "sw": replace(plan.inputs["sw"], source=str(moved))}
    with pytest.raises(PlanError, match=r"sw: .*sw\+x holds @ or \+"):
        to_mergekit(replace(plan, inputs=inputs), dtype="bfloat16")


@pytest.mark.parametrize("text", ["org/m", "org/m@main", "https://huggingface.co/org/m"])
def test_a_hub_id_is_written_at_its_commit(text: str) -> None:
    assert _model(Source(text, Path("/cache"), "org/m", "abc"), "base") == "org/m@abc"


def test_another_hub_is_refused() -> None:
    with pytest.raises(PlanError, match=r"is on another hub.* Give the folder .*/cache"):
        _model(Source("https://hub.example/org/m", Path("/cache"), "org/m", "abc"), "base")


def test_the_verb(plan: Plan, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.yaml")

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(main, ["convert", "--to", "mergekit", *map(str, arguments)])

    shown = run(tmp_path / "plan.yaml", "--to", "mergekit")
    assert shown.output == to_mergekit(plan)
    said = run(tmp_path / "plan.yaml", "-o", tmp_path / "mk.yml").output
    assert f"run mergekit-yaml {tmp_path / 'mk.yml'} OUT" in said
    assert (tmp_path / "mk.yml").read_text() == shown.output
    failed = run(tmp_path / "plan.yaml", "--to", "mergkit")
    assert failed.exit_code == 1 and "did you mean 'mergekit'?" in failed.stderr
    failed = run(tmp_path / "plan.yaml", "-o", tmp_path)
    assert failed.exit_code == 1 and "is a folder" in failed.stderr


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[dict[str, Path]]:
    yield make_trio(tmp_path / "deep", layers=12, width=8, inner=12)


def test_export_and_import_are_inverse(deep: dict[str, Path], tmp_path: Path) -> None:
    languages = {"sw": deep["sw"]}
    profile = safeswap.make_profile(deep["base"], safety=deep["safety"], languages=languages)
    methods: list[dict[str, Any]] = [{}, {"method": "gated", "gamma": 0.3}, {"method": "band"}]
    for options in methods:
        made = safeswap.make_plan(profile, **options)
        made.save(tmp_path / "plan.yaml")
        runner, config, back = CliRunner(), tmp_path / "mk.yml", tmp_path / "back.yaml"
        assert not runner.invoke(
            main, ["export", str(tmp_path / "plan.yaml"), "-o", str(config)]
        ).exit_code
        arguments = ["--safety", str(deep["safety"]), "--language", f"sw={deep['sw']}"]
        said = runner.invoke(
            main, ["convert", "--from", "mergekit", str(config), *arguments, "-o", str(back)]
        )
        assert said.exit_code == 0 and "note" not in said.output
        assert re.search(r"back\.yaml: 39 units \(", said.output)
        read = Plan.load(back)
        assert {u: dict(r.weights) for u, r in read.units.items()} == {
            u: dict(r.weights) for u, r in made.units.items()
        }
        assert read.donor == made.donor
        assert {r: i.source for r, i in read.inputs.items()} == {
            r: i.source for r, i in made.inputs.items()
        }
