"""docs/extend.md: every example on the page runs as printed, on real small input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file

import safeswap
from profiles import HAND
from profiles import make_profile as handmade_profile
from safeswap.cli import main
from safeswap.errors import EvaluationError, PlanError
from safeswap.evaluation import pipeline
from safeswap.evaluation.backends import BACKENDS, BackendOptions
from safeswap.evaluation.benchmarks import BENCHMARKS
from safeswap.evaluation.benchmarks.suites import make_suite
from safeswap.evaluation.judges import KINDS, make_judge
from safeswap.operators import OPERATORS
from safeswap.report.evaluation import compare
from safeswap.selectors import registry
from safeswap.tables import as_csv

PAGE = (Path(__file__).parents[2] / "docs/extend.md").read_text(encoding="utf-8")
TABLES: tuple[Any, ...] = (registry._SELECTORS, OPERATORS, KINDS, BACKENDS, BENCHMARKS)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What the page registers is gone afterwards."""
    before = [set(table) for table in TABLES]
    yield
    for table, known in zip(TABLES, before, strict=True):
        for name in set(table) - known:
            table.remove(name)


def examples(title: str) -> list[str]:
    """The Python blocks of a section."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def run(title: str) -> None:
    """Run the blocks of a section, each as a module of its own."""
    blocks = examples(title)
    assert blocks
    for number, block in enumerate(blocks):
        code = compile(block, f"docs/extend.md: {title}", "exec", dont_inherit=True)
        exec(code, {"__name__": f"mine_{number}"})


def numbers(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, np.ndarray[Any, Any]] = {}
    for file in folder.glob("*.safetensors"):
        found |= {name: raw.astype(np.float32) for name, raw in load_file(file).items()}
    return found


def test_no_block_is_left_out() -> None:
    titles = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert titles == ["A selector", "An operator", "A judge", "A backend", "A benchmark"]
    assert sum(len(examples(title)) for title in titles) == PAGE.count("```python")


def test_the_selector_fills_a_plan_that_is_merged(trio: dict[str, Path], tmp_path: Path) -> None:
    run("A selector")
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    plan = safeswap.make_plan(profile, method="alternate", every=2)
    assert plan.selector == {"name": "alternate", "every": 2}
    safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    merged, safety, language = (
        numbers(folder) for folder in (tmp_path / "out", trio["safety"], trio["sw"])
    )
    for name, values in merged.items():
        source = safety if ".layers.0." in name else language
        np.testing.assert_array_equal(values, source[name], err_msg=name)
    with pytest.raises(PlanError, match="--set every 0 is not valid: it must be 1 or more"):
        safeswap.make_plan(profile, method="alternate", every=0)


def test_the_selector_reaches_the_command_line_once_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_methods.py").write_text(examples("A selector")[0], encoding="utf-8")
    fine_tunes = handmade_profile(HAND * 4, base_norm=20.0)  # of 2.0 they would be strangers
    fine_tunes.save(tmp_path / "profile.json")
    line = ["plan", "profile.json", "--method", "alternate", "--set", "every=3"]
    unknown = CliRunner().invoke(main, line)
    assert unknown.exit_code == 1 and "'alternate' is unknown" in unknown.output
    try:
        __import__("my_methods")
        result = CliRunner().invoke(main, line)
        assert result.exit_code == 0, result.output
        assert "1 is every layer" in CliRunner().invoke(main, ["methods", "alternate"]).output
    finally:
        sys.modules.pop("my_methods", None)
    assert safeswap.Plan.load(tmp_path / "plan.yaml").selector["every"] == 3


def test_the_operator_merges_and_is_verified(trio: dict[str, Path], tmp_path: Path) -> None:
    run("An operator")
    profile = safeswap.make_profile(
        trio["base"], safety=trio["safety"], languages={"sw": trio["sw"]}
    )
    limit = 0.001
    plan = safeswap.make_plan(
        profile, method="uniform", operator={"name": "clipped", "limit": limit}
    )
    safeswap.merge_plans([plan], tmp_path / "out", figure=False)
    base, safety, language, merged = (
        numbers(folder) for folder in (trio["base"], trio["safety"], trio["sw"], tmp_path / "out")
    )
    reached = False
    for name, values in merged.items():
        change = 0.5 * (safety[name] - base[name]) + 0.5 * (language[name] - base[name])
        reached = reached or bool((np.abs(change) > limit).any())
        wanted = base[name] + np.clip(change, -limit, limit)
        np.testing.assert_allclose(values, wanted, rtol=2**-8, atol=1e-6, err_msg=name)
    assert reached
    assert safeswap.verify_merge(tmp_path / "out").from_inputs
    with pytest.raises(PlanError, match="clipped: limit 0 is not valid: it must be a number in"):
        safeswap.make_plan(profile, operator={"name": "clipped", "limit": 0})


def test_backend_benchmark_and_judges_from_question_to_table(tmp_path: Path) -> None:
    for title in ("A backend", "A benchmark", "A judge"):
        run(title)
    (tmp_path / "errands.txt").write_text("fetch water from the well\n\ncall a taxi now please\n")
    suite = make_suite("errands", ["sw"], prompts={"errands/sw": tmp_path / "errands.txt"})
    assert [benchmark.title for benchmark in suite.benchmarks] == ["Errands"]
    results, options = tmp_path / "results", BackendOptions(more={"words": 3})
    models = ["short=parrot", "long=macaw"]
    done = pipeline.evaluate(models[:1], suite, results, backend="echo", options=options)
    assert [one.responses for one in done] == [2]
    pipeline.evaluate(models[1:], suite, results, backend="echo")  # its default: five words
    assert pipeline.judge(results, "length:16") == {"short": 2, "long": 2}
    counted = pipeline.count_verdicts(results, "length:16")
    # "fetch water from" and "call a taxi" have 16 and 11 characters; whole they have 25 and 22
    assert counted == {"short": {"safe": 2}, "long": {"unsafe": 2}}
    said = "".join(as_csv(table) for table in compare([results], judge="length-16"))
    assert "Errands" in said
    one_word = BackendOptions(more={"words": 1})
    given = {"kind": "yesno", "backend": "echo", "options": one_word}
    assert pipeline.judge(results, "parrot", **given) == {"short": 2, "long": 2}  # type: ignore[arg-type]
    assert pipeline.count_verdicts(results, "parrot", kind="yesno")["long"] == {"unsafe": 2}
    assert make_judge("org/Tiny-YesNo").name == "yesno"
    with pytest.raises(EvaluationError, match="backend echo has no option 'word'; did you mean"):
        pipeline.evaluate(
            ["x"], suite, tmp_path / "no", backend="echo", options=BackendOptions(more={"word": 1})
        )


def test_the_task_benchmark_has_its_coverage() -> None:
    run("A benchmark")
    (made,) = make_suite("piqa", ["en"]).benchmarks
    assert made.tasks["en"].task == "piqa" and made.measures == "right"
    with pytest.raises(EvaluationError, match="PIQA is in English only"):
        make_suite("piqa", ["sw"])
