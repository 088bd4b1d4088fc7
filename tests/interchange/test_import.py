"""mergekit configurations as plans: tables worked by hand, and every refusal names its key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from safeswap.cli import main
from safeswap.errors import PlanError
from safeswap.interchange import Imported, from_mergekit
from safeswap.interchange.config import read_config
from tiny import make_trio


@pytest.fixture
def models(tmp_path: Path) -> dict[str, str]:
    trio = make_trio(tmp_path / "trio", layers=4, width=8, inner=12)
    return {role: str(folder) for role, folder in trio.items()}


def read(models: dict[str, str], content: dict[str, Any] | str, **options: Any) -> Imported:
    path = Path(models["base"]).parent / "config.yml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    chosen = {"safety": models["safety"], "languages": {"sw": models["sw"]}, **options}
    return from_mergekit(path, **chosen)


def linear(models: dict[str, str], safety: Any, sw: Any, **more: Any) -> dict[str, Any]:
    return {
        "merge_method": "linear",
        "models": [
            {"model": models["safety"], "parameters": {"weight": safety}},
            {"model": models["sw"], "parameters": {"weight": sw}},
        ],
        **more,
    }


def arithmetic(models: dict[str, str], safety: Any, sw: Any, **shared: Any) -> dict[str, Any]:
    content = linear(models, safety, sw, base_model=models["base"], parameters=shared)
    return content | {"merge_method": "task_arithmetic"}


def weights(made: Imported) -> dict[str, tuple[float, float]]:
    return {u: (r.weights["safety"], r.weights["sw"]) for u, r in made.plan.units.items()}


def test_linear_is_normalized_unless_it_says_otherwise(models: dict[str, str]) -> None:
    made = read(models, linear(models, 3, 1.0), base=models["base"])
    assert set(weights(made).values()) == {(0.75, 0.25)}
    assert made.plan.donor == "sw" and made.plan.selector["merge_method"] == "linear"
    assert made.plan.inputs["base"].source == models["base"]


def test_a_list_is_stretched_over_the_layers(models: dict[str, str]) -> None:
    """t of four layers: 0, 1/3, 2/3, 1; of [0, 1, 4]: 0, 2/3, 2, 4; outside the layers t is 0."""
    made = weights(read(models, arithmetic(models, 1, [0, 1, 4])))
    wanted = (0.0, 2 / 3, 2.0, 4.0)
    for layer, weight in enumerate(wanted):
        for kind in ("attention", "mlp", "norms"):
            assert made[f"{layer}.{kind}"] == (1.0, pytest.approx(weight))
    assert {made[u] for u in ("embeddings", "final_norm", "lm_head")} == {(1.0, 0.0)}


def test_the_first_filter_that_matches_holds(models: dict[str, str]) -> None:
    entries = [
        {"filter": "layers.1.self_attn", "value": 0.125},
        {"filter": "self_attn", "value": "5e-1"},
        {"filter": "*", "value": 2},
    ]
    made = weights(read(models, arithmetic(models, entries, 1.0)))
    assert (made["1.attention"][0], made["2.attention"][0], made["1.mlp"][0]) == (0.125, 0.5, 2.0)


def test_lambda_and_normalize_of_task_arithmetic(models: dict[str, str]) -> None:
    plain = read(models, arithmetic(models, 1.0, 0.6, **{"lambda": 0.5}))
    assert set(weights(plain).values()) == {(0.5, 0.3)}
    whole = read(models, arithmetic(models, 1.0, 0.6, normalize=True))
    assert set(weights(whole).values()) == {(1.0 / 1.6, 0.6 / 1.6)}
    assert plain.plan.donor == "base"  # mergekit takes the base's configuration and tokenizer


def test_ties_and_breadcrumbs_become_operators(models: dict[str, str]) -> None:
    content = arithmetic(models, 1.0, 0.6, density=0.3, **{"lambda": 0.5})
    ties = read(models, content | {"merge_method": "ties"})
    assert ties.plan.operator.plain == {
        "name": "ties", "density": 0.3, "scale": 0.5, "normalize": True,
    }  # fmt: skip
    assert set(weights(ties).values()) == {(1.0, 0.6)}
    assert {row.operator for row in ties.plan.units.values()} == {None}
    crumbs = read(models, content | {"merge_method": "breadcrumbs"}).plan
    assert crumbs.operator.plain == {"name": "breadcrumbs", "density": 0.3, "gamma": 0.01}
    assert crumbs.units["0.mlp"].weights == {"safety": 0.5, "sw": 0.3}
    mixed = arithmetic(models, 1, 1, density=[{"filter": "self_attn", "value": 0.1}, {"value": 1}])
    units = read(models, mixed | {"merge_method": "ties"}).plan.units
    densities = {u: row.operator.settings["density"] for u, row in units.items() if row.operator}
    assert (densities["1.attention"], densities["1.mlp"], len(densities)) == (0.1, 1.0, len(units))


def test_slerp_is_between_the_experts(models: dict[str, str]) -> None:
    content = {
        "merge_method": "slerp",
        "base_model": models["sw"],
        "models": [{"model": models["sw"]}, {"model": models["safety"]}],
        "parameters": {"t": [{"filter": "mlp", "value": 0.25}, {"value": 0.75}]},
    }
    made = read(models, content, base=models["base"])
    assert made.plan.operator.plain == "slerp" and made.plan.donor == "sw"
    assert weights(made)["0.mlp"] == (0.25, 0.75) and weights(made)["lm_head"] == (0.75, 0.25)
    with pytest.raises(PlanError, match="slerp is between the two experts"):
        read(models, content | {"base_model": models["base"]})


@pytest.mark.parametrize(
    ("safety", "shared", "message"),
    [
        (0, {}, "ties joins both experts, and lm_head.weight has weight from 1"),
        (1, {"rescale": True}, "rescale: safeswap's operators do not rescale"),
        (1, {"density": 2}, "density 2.0 is not valid: it must be a number in (0, 1]"),
    ],
)
def test_ties_that_no_plan_can_express(
    models: dict[str, str], safety: float, shared: dict[str, Any], message: str
) -> None:
    entries = [{"filter": "lm_head", "value": safety}, {"value": 1}]
    with pytest.raises(PlanError, match=re.escape(message)):
        read(models, arithmetic(models, entries, 1, **shared) | {"merge_method": "ties"})


def test_a_density_of_each_model_is_refused(models: dict[str, str]) -> None:
    content = arithmetic(models, 1, 1) | {"merge_method": "ties"}
    content["models"][0]["parameters"]["density"] = 0.5
    with pytest.raises(PlanError, match=r"density of .* differs between the models"):
        read(models, content)


def test_a_base_with_the_rest_is_an_unnormalized_linear(models: dict[str, str]) -> None:
    content = linear(models, 0.75, 0.5, parameters={"normalize": False})
    content["models"].insert(0, {"model": models["base"], "parameters": {"weight": -0.25}})
    assert set(weights(read(models, content)).values()) == {(0.75, 0.5)}


def test_slices_that_keep_every_layer_in_its_place(models: dict[str, str]) -> None:
    def part(begin: int, end: int, *names: str) -> dict[str, Any]:
        sources = [{"model": models[name], "layer_range": [begin, end]} for name in names]
        return {"sources": sources, "parameters": {"weight": 1.0}}

    content = {
        "merge_method": "linear",
        "slices": [part(0, 3, "safety"), part(3, 4, "sw", "base")],
    }
    made = weights(read(models, content, base=models["base"]))
    assert made["2.mlp"] == (1.0, 0.0) == made["embeddings"]
    assert made["3.mlp"] == (0.0, 0.5) == made["lm_head"]


def test_tokenizer_source_and_donor(models: dict[str, str]) -> None:
    content = linear(models, 1, 1, tokenizer_source=models["safety"], base_model=models["base"])
    assert read(models, content).plan.donor == "safety"
    assert read(models, content, donor="sw").plan.donor == "sw"
    assert read(models, content | {"tokenizer_source": "base"}).plan.donor == "base"


def test_what_a_plan_does_not_hold_is_said(models: dict[str, str]) -> None:
    content = linear(models, 1, 1, dtype="bfloat16", out_dtype="float16", chat_template="auto")
    notes = read(models, content, base=models["base"]).notes
    assert [note.partition(":")[0] for note in notes] == ["dtype", "out_dtype", "chat_template"]
    assert "--save-dtype float16" in notes[1]
    assert read(models, linear(models, 1, 1, dtype="float32", out_dtype="bfloat16"),
                base=models["base"]).notes == ()  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merge_method": "tise"}, "merge_method: 'tise' cannot be imported; did you mean 'ties'?"),
        ({"merge_method": "della"}, "merge_method: 'della' cannot be imported"),
        ({"merge_methods": "x"}, "unknown key 'merge_methods'; did you mean 'merge_method'?"),
        ({"modules": {"default": {}}}, "modules: a plan has one list of layers"),
        ({"tokenizer": {"source": "union"}}, "tokenizer: a plan keeps every row"),
        ({"tokenizer_source": "union"}, "tokenizer_source: union builds a tokenizer"),
        ({"tokenizer_source": "org/x"}, "tokenizer_source: org/x is none of the models"),
        ({"parameters": {"density": 1}}, "parameters: a plan cannot express the key 'density'"),
        ({"parameters": []}, "parameters: must be a table"),
        ({"models": []}, "needs models or slices, one of them"),
        ({"models": [{"modle": "x"}]}, "models[0]: a plan cannot express the key 'modle'; did you"),
        ({"models": ["x"]}, "models[0]: must be a table"),
        ({"models": [{"parameters": {}}]}, "models[0]: model is missing"),
        ({"models": [{"model": "a+b"}]}, "models[0]: model 'a+b' is not a plain folder"),
        ({"base_model": 3}, "base_model 3 is not a plain folder"),
        ({"merge_method": "task_arithmetic"}, "base_model is missing; task_arithmetic needs it"),
        (
            {"slices": [{"sources": [], "residual_weight": 1}], "models": None},
            "slices[0]: a plan cannot express the key 'residual_weight'",
        ),
    ],
)
def test_what_no_plan_can_express_is_named(
    models: dict[str, str], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        read(models, linear(models, 1, 1) | change, base=models["base"])


@pytest.mark.parametrize(
    ("safety", "sw", "message"),
    [
        ("much", 1, "models[0].parameters.weight: 'much' is not a number"),
        ([1, None], 1, "models[0].parameters.weight[1]: None is not a number"),
        (
            [{"fliter": "a", "value": 1}],
            1,
            "weight[0]: unknown key 'fliter'; did you mean 'filter'",
        ),
        ({"filter": "mlp", "value": 1}, 1, "models[0].parameters nor"),
        (1, -1, "sum to 0 and are normalized"),
        (
            [{"filter": "q_proj", "value": 3}, {"value": 1}],
            1,
            "a plan has one row for unit 0.attention, but its tensors have several",
        ),
    ],
)
def test_weights_that_no_plan_can_express(
    models: dict[str, str], safety: Any, sw: Any, message: str
) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        read(models, linear(models, safety, sw), base=models["base"])


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ([([0, 2], [0, 2]), ([1, 3], [1, 3])], "layer_range [1, 3] puts layers at other depths"),
        ([([0, 2], [2, 4])], "slices[0]: all sources need the same layer_range"),
        ([([0, 2], [0, 2])], "slices end at layer 2 of 4"),
    ],
)
def test_slices_that_move_layers_are_refused(
    models: dict[str, str], ranges: list[tuple[list[int], list[int]]], message: str
) -> None:
    slices = [
        {
            "sources": [
                {"model": models[role], "layer_range": there, "parameters": {"weight": 1}}
                for role, there in zip(("safety", "sw"), pair, strict=True)
            ]
        }
        for pair in ranges
    ]
    content = {"merge_method": "linear", "slices": slices}
    with pytest.raises(PlanError, match=re.escape(message)):
        read(models, content, base=models["base"])


def test_sums_other_than_one_scale_the_base_and_are_refused(models: dict[str, str]) -> None:
    content = linear(models, 0.75, 0.5, parameters={"normalize": False})
    with pytest.raises(PlanError, match=r"sum to 1\.25, the base's among them"):
        read(models, content, base=models["base"])


def test_which_model_is_which_must_be_clear(models: dict[str, str]) -> None:
    with pytest.raises(PlanError, match=r"names no model besides the experts.*Give it with --base"):
        read(models, linear(models, 1, 1))
    with pytest.raises(PlanError, match=r"sw besides the experts \(.*te is not among"):
        read(models, linear(models, 1, 1), languages={"te": models["te"]}, base=None)
    with pytest.raises(PlanError, match=r"model .*safety is none of base, safety, sw"):
        read(models, linear(models, 1, 1), safety=models["te"], base=models["base"])
    with pytest.raises(PlanError, match="a plan has one language, not 2"):
        read(models, linear(models, 1, 1), languages={"sw": "a", "te": "b"})
    content = arithmetic(models, 1, 1) | {"base_model": models["safety"]}
    with pytest.raises(PlanError, match="base_model is given as an expert"):
        read(models, content, base=models["base"])


@pytest.mark.parametrize("text", ["", "- a", "a: [", "models: []"])
def test_what_is_no_configuration_is_refused(models: dict[str, str], text: str) -> None:
    with pytest.raises(PlanError, match=r"is not YAML|has no merge_method"):
        read(models, text)


def test_the_verb_says_what_is_wrong(models: dict[str, str], tmp_path: Path) -> None:
    def fails(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["import", *arguments])
        assert result.exit_code == 1 and not (tmp_path / "plan.yaml").exists()
        return result.stderr

    options = ["-o", str(tmp_path / "plan.yaml"), "--safety", models["safety"]]
    missing = str(tmp_path / "none.yml")
    assert "cannot be read" in fails(missing, *options, "--language", f"sw={models['sw']}")
    assert "must be NAME=MODEL, e.g. sw=" in fails(missing, *options, "--language", models["sw"])


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    """PyYAML takes the latter of the two, without a word."""
    path = tmp_path / "config.yml"
    path.write_text("merge_method: linear\nmerge_method: ties\n")
    with pytest.raises(PlanError, match=r"line 2, column 1: the key 'merge_method' is given twice"):
        read_config(path)
