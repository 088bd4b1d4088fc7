"""Methods on the command line: chosen, described, and refused before any weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import safeswap
from profiles import HAND, make_profile
from safeswap.cli import main
from safeswap.operators import OPERATORS
from safeswap.selectors import registered


def run(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_profile(HAND * 4, base_norm=200.0).save(tmp_path / "profile.json")
    return tmp_path


def test_methods_lists_all_with_line_and_source() -> None:
    said = run("methods").output
    for entry in (*registered().values(), *OPERATORS.values()):
        assert f"\n  {entry.name:<18}" in said and entry.source in said
    assert max(map(len, said.splitlines())) <= 130


@pytest.mark.parametrize("name", [*registered(), *OPERATORS])
def test_methods_describes_each_with_its_parameters(name: str) -> None:
    said = run("methods", name).output
    entry: Any = registered().get(name) or OPERATORS[name]
    assert said.startswith(f"{name}: ") and f"source: {entry.source}" in said
    for parameter in entry.parameters:
        assert parameter.name in said.replace("-", "_")
    if not entry.parameters:
        assert "no parameters" in said


def test_methods_of_an_unknown_name() -> None:
    result = run("methods", "bnad")
    assert result.exit_code == 1 and "no method 'bnad'; did you mean 'band'?" in result.stderr


def test_a_method_with_its_parameters_reaches_the_plan(place: Path) -> None:
    result = run("plan", "profile.json", "--method", "band", "--set", "bottom=5", "--set", "top=2",
                 "--alpha", "0.25", "--donor", "base")  # fmt: skip
    assert result.exit_code == 0, result.output
    plan = safeswap.Plan.load(place / "plan.yaml")
    assert plan.selector == {
        "name": "band", "bottom": 5, "top": 2, "alpha": 0.25, "outside": "blend",
    }  # fmt: skip
    assert [plan.units[f"{n}.mlp"].decision for n in (4, 5, 9, 10)] == [
        "sw", "safety", "safety", "sw",
    ]  # fmt: skip
    assert plan.donor == "base" and plan.units["embeddings"].weights["safety"] == 0.25


def test_an_operator_with_its_settings_reaches_the_plan(place: Path) -> None:
    result = run("plan", "profile.json", "--operator", "ties", "--operator-set", "density=5e-1",
                 "--operator-set", "normalize=false")  # fmt: skip
    assert result.exit_code == 0, result.output
    plain = safeswap.Plan.load(place / "plan.yaml").operator.plain
    assert plain == {"name": "ties", "density": 0.5, "normalize": False}


REFUSED = [
    (["--method", "bnad"], "--method 'bnad' is unknown; did you mean 'band'?"),
    (["--method", "band", "--set", "botom=1"], "no parameter 'botom'; did you mean 'bottom'?"),
    (["--method", "band", "--tau", "0.1"], "has no parameter 'tau': it is one of share-difference"),
    (["--method", "band", "--tau-relative", "0.1"], "has no parameter 'tau"),
    (["--method", "uniform", "--by", "layer"], "--method uniform has no parameter 'by'"),
    (["--set", "bottom=1"], "--method share-difference has no parameter 'bottom': it is one of"),
    (["--method", "band", "--set", "bottom"], "--set 'bottom' must be NAME=VALUE"),
    (
        ["--method", "band", "--set", "bottom=x"],
        "--set bottom x is not valid: it must be 0 or more",
    ),
    (["--method", "band", "--set", "top=1", "--set", "top=2"], "top is given twice"),
    (["--alpha", "0.1", "--set", "alpha=0.2"], "alpha is given twice"),
    (["--operator", "tise"], "unknown operator 'tise'; did you mean 'ties'?"),
    (["--operator", "ties", "--operator-set", "density=0"], "density 0 is not valid"),
    (["--operator", "ties", "--operator-set", "p=0.5"], "operator ties has no parameter 'p'"),
    (["--operator-set", "density=0.5"], "--operator-set needs --operator NAME"),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_makes_no_sense_is_refused(place: Path, options: list[str], message: str) -> None:
    result = run("plan", "profile.json", *options)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit), result.output
    assert message in result.stderr and not (place / "plan.yaml").exists()


TOO_DEEP = [  # the trio has two layers
    (["--method", "band"], "leave none of the 2 layers to safety"),
    (["--method", "band", "--set", "windows=1-2"], "the model has layers 0 to 1"),
    (["--method", "safe-lora", "--set", "number=5"], "more than the 4 that can be projected"),
]


@pytest.mark.parametrize(("options", "message"), [*REFUSED[:4], *TOO_DEEP])
def test_merge_refuses_before_weights_are_read(
    trio: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(
        "safeswap.merge.run.measure_family", lambda *_, **__: pytest.fail("weights were read")
    )
    experts = ["--safety", trio["safety"], "--language", f"sw={trio['sw']}"]
    result = run("merge", trio["base"], *experts, "--out", tmp_path / "out", *options)
    assert result.exit_code == 1 and message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [["--method", "band"], ["--set", "top=1"], ["--operator", "ties"]]
)
def test_with_a_plan_the_method_is_the_plans(place: Path, options: list[str]) -> None:
    assert run("plan", "profile.json").exit_code == 0
    result = run("merge", "--plan", "plan.yaml", "--out", "out", *options)
    assert result.exit_code == 1 and f"{options[0]} come from the plan" in result.stderr


@pytest.mark.parametrize("method", sorted({*registered()} - {"attribution"}))  # needs a file
def test_a_merge_by_any_method_is_computed_again_by_verify(
    trio: dict[str, Path], tmp_path: Path, method: str
) -> None:
    experts = ["--safety", trio["safety"], "--language", f"sw={trio['sw']}"]
    options = ["--method", method, "--no-figure", "--quiet"]
    options += ["--set", "top=0"] if method == "band" else []  # two layers only
    result = run("merge", trio["base"], *experts, "--out", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    checked = safeswap.verify_merge(tmp_path / "out")
    assert checked.from_inputs and checked.edited == ()
    card = (tmp_path / "out/README.md").read_text()
    assert f"by the method `{method}` ({registered()[method].source})" in card
