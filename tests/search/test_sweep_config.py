"""The sweep's file is read strictly, and a grid is what its reader thinks it is."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from safeswap.errors import SafeswapError
from safeswap.evaluation.benchmarks.splits import Split
from safeswap.search.sweep_config import KEYS, Rule, Sweep, read_sweep


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "harm.csv").write_text("id,source,tags,sw\n0,test,[],maji\n1,test,[],moto\n")
    (tmp_path / "suite.yaml").write_text("benchmarks:\n  harm: {prompts: harm.csv}\n")
    (tmp_path / "rules.yaml").write_text("default: unsafe\nrules: []\n")
    (tmp_path / "models").mkdir()
    return tmp_path


def write(folder: Path, **changes: Any) -> Path:
    content = {
        "base": "models",
        "safety": "me/safety",
        "languages": {"sw": "me/swahili"},
        "suite": "suite.yaml",
        "judge": "rule:rules.yaml",
        "grid": [{"method": "gated", "gamma": 0.5}],
        **changes,
    }
    path = folder / "sweep.yaml"
    given = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(given, sort_keys=False))
    return path


def read(folder: Path, **changes: Any) -> Sweep:
    return read_sweep(write(folder, **changes))


def test_what_is_left_out_has_its_default(folder: Path) -> None:
    sweep = read(folder)
    assert sweep.dev == Split("dev", 0.5, 0) and sweep.rule == Rule(0.01, 0.02)
    assert sweep.base == str((folder / "models").resolve())  # beside the file
    assert sweep.safety == "me/safety"  # a hub id stays one
    assert sweep.judge == f"rule:{(folder / 'rules.yaml').resolve()}"
    assert [cell.name for cell in sweep.cells] == ["gated+gamma-0.5"]
    assert sweep.chat_template == "on" and sweep.generation.max_new_tokens == 512


def test_a_policy_lies_beside_the_file(folder: Path) -> None:
    (folder / "policy.md").write_text("No jokes.")
    sweep = read(folder, judge="me/guard", judge_kind="gpt-oss-safeguard:policy.md")
    assert sweep.judge_kind == f"gpt-oss-safeguard:{(folder / 'policy.md').resolve()}"
    assert read(folder, judge="me/guard", judge_kind="threeway").judge_kind == "threeway"


def test_points_and_switches(folder: Path) -> None:
    given = {"choose": {"loss": 3}, "split": {"fraction": 0.25, "seed": 4}}
    sweep = read(folder, **given, max_new_tokens=9, chat_template="off")
    assert sweep.rule == Rule(0.03, 0.02) and sweep.dev == Split("dev", 0.25, 4)
    assert sweep.generation.max_new_tokens == 9 and sweep.chat_template == "off"
    (folder / "sweep.yaml").write_text(
        (folder / "sweep.yaml").read_text().replace("'off'", "on")  # not YAML 1.1's truth
    )
    assert read_sweep(folder / "sweep.yaml").chat_template == "on"


def test_a_grid_is_all_combinations(folder: Path) -> None:
    grid = [
        {"by": ["module", "layer"], "tau": [0, 0.001, 1], "alpha": [0.3, 0.5]},
        {"method": "uniform", "operator": ["slerp", {"name": "ties", "density": [0.2, 0.5]}]},
        {"method": "random", "seed": [0, 1]},
    ]
    cells = read(folder, grid=grid).cells
    first = itertools.product(("module", "layer"), (0, 0.001, 1), (0.3, 0.5))
    assert [tuple(cell.settings.values()) for cell in cells[:12]] == list(first)
    assert {cell.method for cell in cells[:12]} == {"share-difference"}
    assert [cell.operator for cell in cells[12:15]] == [
        "slerp",
        {"name": "ties", "density": 0.2},
        {"name": "ties", "density": 0.5},
    ]
    assert [cell.name for cell in cells[12:]] == [
        "uniform+slerp",
        "uniform+ties+density-0.2",
        "uniform+ties+density-0.5",
        "random+seed-0",
        "random+seed-1",
    ]
    assert len({cell.name for cell in cells}) == 17


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"gird": []}, r"sweep\.yaml: unknown key 'gird'; did you mean 'grid'"),
    ({"grid": None}, "the key 'grid' is missing"),
    ({"languages": {}}, "at least one NAME: CHECKPOINT"),
    ({"languages": ["sw"]}, "languages: is a mapping"),
    ({"languages": {"base": "x"}}, "language name 'base' is not valid"),
    ({"judge": None}, "the suite has prompts, so it needs a judge"),
    ({"judge": "majority:a,b,c"}, "a sweep asks one judge about every candidate"),
    ({"judge": "a,b,c", "judge_kind": "majority"}, "a sweep asks one judge"),
    ({"suite": "safty"}, "did you mean 'safety'"),
    ({"split": {"fraction": 1}}, "between 0 and 1"),
    ({"split": {"seeds": 1}}, "split: unknown key 'seeds'; did you mean 'seed'"),
    ({"choose": {"lost": 1}}, "choose: unknown key 'lost'; did you mean 'loss'"),
    ({"adapters": {"swa": "x"}}, "adapters: unknown key 'swa'"),
    ({"adapters": ["x"]}, "adapters"),
    ({"choose": {"loss": -1}}, "choose.loss is -1"),
    ({"max_new_tokens": "many"}, "max_new_tokens is 'many'"),
    ({"data": {"mgsm": "x"}}, "data.mgsm: is given as BENCHMARK/LANGUAGE"),
    ({"grid": {}}, "grid is a list"),
    ({"grid": ["gated"]}, "grid, entry 1: is a mapping"),
    ({"grid": [{"method": "gate"}]}, "entry 1: --method 'gate' is unknown; did you mean 'gated'"),
    ({"grid": [{}, {"gama": 1}]}, "entry 2: .*has no parameter 'gama'"),
    ({"grid": [{"tau": -1}]}, "entry 1: --tau -1 is not valid"),
    ({"grid": [{"tau": []}]}, "entry 1: tau is an empty list"),
    ({"grid": [{"operator": "tie"}]}, "entry 1: .*did you mean 'ties'"),
    ({"grid": [{"operator": {"name": "ties", "density": 2}}]}, "entry 1: .*density"),
    (
        {"grid": [{"tau": 0.5}, {"tau": [0.1, 0.5]}]},
        "entry 2: share-difference.tau-0.5 is given tw",
    ),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said for _, said in WRONG])
def test_what_is_wrong_is_said(folder: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SafeswapError, match=said):
        read(folder, **changes)


def test_prompts_without_a_file_are_those_of_their_authors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFESWAP_CACHE", str(folder / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = {"suite": "multijail", "prompts": {"multijail": None}}
    with pytest.raises(SafeswapError, match="MultiJail is not in the cache, and HF_HUB_OFFLINE"):
        read(folder, **named)
    sweep = read_sweep(write(folder, **named), fetch=False)
    (benchmark,) = sweep.suites["sw"].benchmarks
    assert list(benchmark.to_fetch) == ["sw"]
    assert list(sweep.suites["sw"].on(sweep.dev).benchmarks[0].to_fetch) == ["sw"]


def test_not_yaml_and_not_there(folder: Path) -> None:
    with pytest.raises(SafeswapError, match="cannot be read"):
        read_sweep(folder / "other.yaml")
    (folder / "sweep.yaml").write_text("grid: [")
    with pytest.raises(SafeswapError, match="is not YAML"):
        read_sweep(folder / "sweep.yaml")
    (folder / "sweep.yaml").write_text("base: a\nbase: b\n")
    with pytest.raises(SafeswapError, match="is given twice"):
        read_sweep(folder / "sweep.yaml")
    (folder / "sweep.yaml").write_text("- a\n")
    with pytest.raises(SafeswapError, match=f"keys {', '.join(KEYS)}"):
        read_sweep(folder / "sweep.yaml")
