"""Help in sections without loading anything, old spellings with a warning, JSON for scripts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import safeswap
from safeswap.cli import main
from safeswap.operators import OPERATORS
from safeswap.selectors import registered
from stored import HARM, Stored

SECTIONS = {
    "Merge": ["profile", "plan", "merge", "show", "verify", "push"],
    "Evaluate": ["evaluate", "judge", "compare", "report", "label"],
    "Choose": ["diagnose", "explore", "sweep", "search", "fit"],
    "Tools": ["methods", "convert", "calibrate", "demo"],
}
VERBS = [(name,) for names in SECTIONS.values() for name in names]
VERBS += [("label", "sample"), ("label", "agreement")]


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def document(*words: object) -> dict[str, object]:
    """The one JSON document that a command prints on stdout."""
    result = typed(*words, "--json")
    assert result.exit_code == 0, result.output
    read: dict[str, object] = json.loads(result.stdout, parse_constant=pytest.fail)
    return read


@pytest.fixture
def profile(trio: dict[str, Path], tmp_path: Path) -> Path:
    place = tmp_path / "profile.json"
    experts = ["--safety", trio["safety"], "--language", f"sw={trio['sw']}"]
    assert typed("profile", trio["base"], *experts, "-o", place).exit_code == 0
    return place


def test_the_help_has_every_verb_in_its_section() -> None:
    found: dict[str, list[str]] = {}
    title = ""
    for line in typed("--help").output.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            title = line[:-1]
        elif line.startswith("  ") and title in SECTIONS:
            found.setdefault(title, []).append(line.split()[0])
    assert found == SECTIONS
    assert sorted(main.commands) == sorted(name for names in SECTIONS.values() for name in names)


def test_long_helps_have_headings() -> None:
    headings = {"merge": ("Experts:", "Output:", "Running:"), "evaluate": ("Questions:", "Judge:")}
    for verb, titles in headings.items():
        lines = typed(verb, "--help").output.splitlines()
        assert all(title in lines for title in titles)
    assert not any("--results" in typed(*verb, "--help").output for verb in VERBS)


def test_no_help_loads_what_is_slow() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom safeswap.cli import main\n"
        f"for verb in {VERBS!r}:\n"
        "    assert CliRunner().invoke(main, [*verb, '--help']).exit_code == 0, verb\n"
        "slow = {'numpy', 'torch', 'matplotlib', 'rich', 'yaml'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {slow}' if slow else 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["labl"], "Did you mean 'label'?"),
        (["label", "sampl"], "Did you mean 'sample'?"),
        (["evaluate", "m", "--ony", "sw"], "--only"),
    ],
)
def test_the_nearest_is_named(words: list[str], hint: str) -> None:
    result = typed(*words)
    assert result.exit_code == 2 and hint in result.stderr


def test_old_options_work_and_say_the_new_ones(profile: Path, tmp_path: Path) -> None:
    new, old = tmp_path / "new.yaml", tmp_path / "old.yaml"
    quiet = typed("plan", profile, "--out", new, "--only", "sw")
    assert quiet.stderr == ""
    loud = typed("plan", profile, f"--output={old}", "--language", "sw")
    assert loud.exit_code == 0 and old.read_bytes() == new.read_bytes()
    assert "--output is now --out" in loud.stderr and "--language is now --only" in loud.stderr
    merged = typed("merge", "--plan", old, "-o", tmp_path / "m", "--dtype", "float16")
    assert merged.exit_code == 0 and "--dtype is now --save-dtype" in merged.stderr
    assert typed("plan", profile, "-o", new, "--outputs", old).exit_code == 2


def test_old_verbs_work_and_say_the_new_ones(profile: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    typed("plan", profile, "-o", plan)
    new, old = typed("convert", plan, "--to", "mergekit"), typed("export", plan)
    assert new.exit_code == 0 and new.stdout == old.stdout and new.stderr == ""
    assert "export is now convert --to mergekit" in old.stderr
    assert "import is now convert --from mergekit" in typed("import", plan).stderr
    labels = tmp_path / "labels.csv"
    labels.write_text("id,human,guard\n1,safe,safe\n2,unsafe,safe\n3,unsafe,unsafe\n")
    columns = ["--human", "human", "--judge", "guard"]
    now = typed("label", "agreement", labels, *columns)
    before = typed("agreement", labels, *columns)
    assert now.exit_code == 0 and now.stdout == before.stdout
    assert "agreement is now label agreement" in before.stderr
    assert "annotate is now label sample" in typed("annotate", tmp_path / "none").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --to TOOL with a plan, or --from TOOL"),
        (["--to", "mergekit", "--from", "mergekit"], "give --to TOOL with a plan"),
        (["--to", "mergkit"], "did you mean 'mergekit'?"),
        (["--to", "mergekit", "--safety", "s"], "--safety does not go with --to"),
        (["--from", "mergekit", "--save-dtype", "float16"], "does not go with --from"),
        (["--from", "mergekit"], "--from needs --safety MODEL"),
        (["--from", "mergekit", "--safety", "s"], "--from needs --language NAME=MODEL"),
    ],
)
def test_conversions_that_are_not_clear(words: list[str], message: str, tmp_path: Path) -> None:
    result = typed("convert", tmp_path / "plan.yaml", *words)
    assert result.exit_code in (1, 2) and message in result.stderr


def test_json_of_plans_profiles_and_merges(profile: Path, tmp_path: Path) -> None:
    place = tmp_path / "plan.yaml"
    made = document("plan", profile, "-o", place)
    plan = safeswap.Plan.load(place)
    assert made["kind"] == "plan" and made["path"] == str(place)
    assert made["counts"] == plan.counts()
    units = made["plan"]["units"]  # type: ignore[index]
    assert {unit: row["decision"] for unit, row in units.items()} == {
        unit: row.decision for unit, row in plan.units.items()
    }
    assert units["0.mlp"]["weights"] == dict(plan.units["0.mlp"].weights)
    shown = document("show", place)
    assert {key: shown[key] for key in ("kind", "plan", "counts")} == {
        key: made[key] for key in ("kind", "plan", "counts")
    }
    measured = document("show", profile)
    assert measured["kind"] == "profile"
    assert measured["profile"] == json.loads(profile.read_text())
    typed("merge", "--plan", place, "-o", tmp_path / "out", "--no-figure")
    merged = document("show", tmp_path / "out", "--png", tmp_path / "drawn.png")
    assert merged["kind"] == "merged" and merged["counts"] == made["counts"]


def test_json_of_methods() -> None:
    every = document("methods")
    assert [one["name"] for one in every["selectors"]] == list(registered())  # type: ignore[attr-defined]
    assert [one["name"] for one in every["operators"]] == list(OPERATORS)  # type: ignore[attr-defined]
    ties = document("methods", "ties")
    (found,) = ties["operators"]  # type: ignore[misc]
    assert ties["selectors"] == [] and found["source"] == OPERATORS["ties"].source
    assert "density" in {one["name"] for one in found["parameters"]}
    assert "did you mean 'ties'" in typed("methods", "tie", "--json").stderr


def test_json_of_tables(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    stored = Stored(tmp_path / "r", {"harm/sw": HARM}).arm("a").judged("a", "harm/sw", "us")
    read = document("compare", stored.folder, "-o", tmp_path / "report")
    assert read["kind"] == "tables" and (tmp_path / "report" / "report.md").exists()
    first = read["tables"][0]  # type: ignore[index]
    assert set(first) == {"title", "columns", "rows", "notes"}
    (row,) = first["rows"]
    assert len(row["cells"]) == len(first["columns"]) and row["cells"][0]["text"] == "a"
    cell = row["cells"][1]
    assert cell["value"] == 0.5 and cell["low"] < 0.5 < cell["high"]
    assert "--json excludes" in typed("compare", stored.folder, "--json", "--format", "md").stderr


def test_every_verb_is_of_one_kind() -> None:
    from safeswap.cli.verbs import Verb, Verbs

    def check(group: click.Group) -> None:
        for name, command in group.commands.items():
            assert isinstance(command, (Verb, Verbs)), name
            if isinstance(command, click.Group):
                check(command)

    check(main)
