"""evaluate, judge, compare, agreement and annotate as they are typed, on a real small model."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")
pytest.importorskip("lm_eval")

import safeswap
from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.demo.documents import exam
from safeswap.demo.world import LANGUAGES, default_world
from stored import HARM, Stored

LABELS = Path(__file__).parents[3] / "shared/data/xstest/xstest_v2_human_and_judge_labels.csv"
FIRST, SECOND = LANGUAGES[:2]
RULES = "default: unsafe\nrules:\n  - {pattern: '[aeiou] [a-m]', verdict: safe, refusal: true}\n"


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def said(*words: object) -> str:
    found = typed(*words)
    assert found.exit_code == 0, found.output
    return found.output


def refused(*words: object) -> str:
    found = typed(*words)
    assert found.exit_code in (1, 2) and "Error: " in found.output, found.output
    assert "Traceback" not in found.output
    return found.output


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts in two languages, sums in MGSM's form, rules."""
    folder = tmp_path_factory.mktemp("inputs")
    asked = {code: exam(default_world(), code) for code in (FIRST, SECOND)}
    harm = [[q.prompt for q in listed if q.kind == "harmful"][:6] for listed in asked.values()]
    with (folder / "harm.csv").open("w", newline="") as file:
        rows = [[n, "x", "[]", *same] for n, same in enumerate(zip(*harm, strict=True))]
        csv.writer(file).writerows([["id", "source", "tags", FIRST, SECOND], *rows])
    sums = [q.prompt for q in asked[FIRST] if q.kind == "sum"][:3]
    (folder / "sums.tsv").write_text("".join(f"{text}\t3\n" for text in sums))
    (folder / "rules.yaml").write_text(RULES)
    (folder / "suite.yaml").write_text(
        "benchmarks:\n  harm: {prompts: harm.csv, title: Harm}\n"
        f"  sums:\n    numbers: true\n    tasks:\n      {FIRST}: "
        "{task: mgsm_native_cot_sw, file: sums.tsv}\n"
    )
    return folder


def evaluating(inputs: Path, out: Path, *more: object) -> list[object]:
    base = ["evaluate", models_folder() / "base", f"other={models_folder() / 'safety'}", "--quiet"]
    base += ["--suite", inputs / "suite.yaml", "--only", f"{FIRST},{SECOND}"]
    base += ["--out", out, "--max-new-tokens", 6, "--harness-tokens", 6, "--dtype", "float32"]
    return [*base, *more]


@pytest.fixture(scope="module")
def results(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "results"
    told = said(*evaluating(inputs, out, "--judge", f"rule:{inputs / 'rules.yaml'}"))
    assert f"n/a: sums in {SECOND}: sums is in {FIRST} only" in told
    assert "base: 12 responses and 3 scores added" in told
    assert "other: 12 verdicts of rule:" in told and f"next: safeswap compare {out}" in told
    return out


def test_the_whole_way(results: Path, inputs: Path, tmp_path: Path) -> None:
    again = said(*evaluating(inputs, results, "--judge", f"rule:{inputs / 'rules.yaml'}"))
    assert "base: 0 responses and 0 scores added" in again and "nothing to judge" in again
    table = said("compare", results, "--reference", "base", "--out", tmp_path / "report")
    assert "Harm, unsafe % ↓" in table and "other − base, paired" in table and "Numbers" in table
    forms = {path.suffix: path.read_text() for path in (tmp_path / "report").iterdir()}
    assert set(forms) == {".md", ".csv", ".tex", ".html"}
    assert all("Harm, unsafe" in text and "other" in text for text in forms.values())
    explained = said("compare", results, "--explain", f"harm/{FIRST}/other")
    assert len([line for line in explained.splitlines() if line[:3] in ("0  ", "1  ")]) == 6
    sheet = tmp_path / "sheet.csv"
    drawn = said("label", "sample", results, "--sample", 24, "--out", sheet)
    assert f"{sheet}: 24 responses to label" in drawn
    assert "not overwritten" in refused("label", "sample", results, "--sample", 24, "--out", sheet)
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    for n, row in enumerate(rows):
        row[header.index("label")] = ("safe", "unsafe")[n % 2]
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    assert "human labels" in said("label", "agreement", sheet)
    corrected = said("compare", results, "--annotations", sheet)
    assert "Corrected for the judge's errors" in corrected
    assert sum(int(count) for count in re.findall(r"(\d+) hand labels", corrected)) == 24


@pytest.mark.parametrize("form", ["terminal", "md", "csv", "latex", "html"])
def test_formats(results: Path, form: str) -> None:
    assert "Harm" in said("compare", results, "--format", form, "--table", "rates")


def test_a_csv_on_the_terminal_is_one_table(results: Path, tmp_path: Path) -> None:
    message = refused("compare", results, "--format", "csv")
    assert "a CSV holds one table" in message and "--table NAME (rates, outcomes" in message
    assert "did you mean 'rates'?" in refused("compare", results, "--table", "rate")
    text = said("compare", results, "--format", "csv", "--table", "rates")
    header, *rows = csv.reader(text.splitlines())
    assert {len(row) for row in rows} == {len(header)} and len(rows) == 2
    written = said("compare", results, "--out", tmp_path / "report")
    for path in (tmp_path / "report").iterdir():
        assert f"{path}: written" in written
    assert (tmp_path / "report" / "report-rates.csv").read_text(encoding="utf-8") == text


def test_a_report_names_models_date_settings_and_version(results: Path, tmp_path: Path) -> None:
    record = results / "base" / "model.json"
    held = json.loads(record.read_text())
    held["base_url"] = "https://me:secret@host/v1"
    held["location"] = "/cache/models--me--it/snapshots/0123abc"
    record.write_text(json.dumps(held))
    said("compare", results, "--out", tmp_path / "report")
    digest, version = held["digest"], safeswap.__version__
    for end in ("md", "html", "tex"):
        text = (tmp_path / "report" / f"report.{end}").read_text(encoding="utf-8")
        for part in (held["source"], digest, "revision 0123abc", f"safeswap {version}", " UTC",
                     "backend hf", "dtype float32", "transformers ", "https://host/v1",
                     "max new tokens", "bootstrap 0", "no limit", "rule/2"):  # fmt: skip
            assert part in text, (end, part)
        assert "secret" not in text
    held["base_url"] = ""
    record.write_text(json.dumps(held))


def test_results_of_other_settings_are_refused_and_kept(results: Path, inputs: Path) -> None:
    before = {p: p.read_bytes() for p in results.rglob("*.jsonl")}
    command = evaluating(inputs, results)
    command[command.index("--max-new-tokens") + 1] = 7
    assert "max_new_tokens" in refused(*command)
    assert before == {p: p.read_bytes() for p in results.rglob("*.jsonl")}


def test_a_wrong_judge_shows_before_any_answer(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    message = refused(*evaluating(inputs, out, "--judge", "x/y", "--judge-kind", "qwenguard"))
    assert "qwen3guard" in message and not out.exists()
    assert "none.yaml" in refused(*evaluating(inputs, out, "--judge", "rule:none.yaml"))
    assert not out.exists()


def test_a_judge_that_answers_nonsense(results: Path) -> None:
    """A language model of the small world is no guard: nothing that it says counts as safe."""
    judge = models_folder() / "base"
    found = typed("judge", results, "--judge", judge, "--kind", "qwen3guard", "--dtype", "float32",
                  "--models", "other", "--quiet")  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "warning: 12 of 12 verdicts on other are in no form" in found.output
    table = said("compare", results, "--judge", "base")
    assert "n/a" in table and "no verdict could be read" in table
    assert "several judges" in refused("compare", results)
    for path in results.glob("*/verdicts/base.*"):
        path.unlink()


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--suite", "papr"), "did you mean 'paper'"),
        (("--only", "xx", "--suite", "ability"), "has the language 'xx'"),
        (("--only", ",", "--suite", "ability"), "no language is given"),
        (("--suite", "safety"), "--prompts multijail=FILE"),
        (("--suite", "multijail", "--prompts", "multijail=none.csv"), "no such file of prompts"),
        (("--suite", "multijail", "--prompts", "none.csv"), "is given as NAME=FILE"),
        (("--suite", "mgsm", "--data", "mgsm=x"), "BENCHMARK/LANGUAGE=FILE"),
        (("--suite", "mgsm", "--data", "mgsm/sw=none.tsv"), "no such file"),
        (("--suite", "mgsm", "--data", "mgsm/te=none.tsv"), "is no cell of the suite"),
        (("--suite", "mgsm", "--backend", "vlm"), "did you mean 'vllm'"),
        (("--suite", "mgsm", "--chat-template", "none.jinja"), "none.jinja"),
        (("--suite", "mgsm", "--engine", "x"), "--engine 'x'"),
    ],
)
def test_wrong_evaluations(tmp_path: Path, words: tuple[str, ...], hint: str) -> None:
    given = {"--only": "sw", "--out": str(tmp_path / "r")}
    given |= {words[n]: words[n + 1] for n in range(0, len(words), 2)}
    flat = [word for pair in given.items() for word in pair]
    assert hint in refused("evaluate", models_folder() / "base", *flat)
    assert not (tmp_path / "r").exists()


def test_wrong_questions_about_results(tmp_path: Path) -> None:
    stored = Stored(tmp_path / "r", {"harm/sw": HARM}).arm("a").judged("a", "harm/sw", "us")
    folder = stored.folder
    assert "is no results folder" in refused("compare", tmp_path / "none")
    assert "did you mean 'latex'" in refused("compare", folder, "--format", "latx")
    assert "no model is called 'b'" in refused("compare", folder, "--reference", "b")
    assert "no cell is called" in refused("compare", folder, "--explain", "harm/sw/b")
    assert "no verdicts of 'gard'" in refused("compare", folder, "--judge", "gard")
    assert "has no model called 'b'" in refused(
        "judge", folder, "--judge", "Qwen/Qwen3Guard-Gen-4B", "--models", "b"
    )
    assert "is no results folder" in refused("label", "sample", tmp_path / "none")
    Stored(tmp_path / "other", {"harm/sw": HARM}, tokens=9).arm("b")
    assert "max_new_tokens" in refused("compare", folder, tmp_path / "other")
    assert "“controversial” counts as safe" in said("compare", folder, "--loose")


def test_agreement_of_a_sheet_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,human,guard\n1,safe,safe\n2,unsafe,safe\n3,unsafe,unsafe\n4,safe,safe\n")
    found = said("label", "agreement", path, "--human", "human", "--judge", "guard")
    assert "75.0" in found and "0.50" in found
    assert "did you mean 'guard'" in refused(
        "label", "agreement", path, "--human", "human", "--judge", "gard"
    )
    assert "none.csv" in refused("label", "agreement", tmp_path / "none.csv")
    assert "did you mean 'csv'" in refused("label", "agreement", path, "--format", "cvs")


@pytest.mark.skipif(not LABELS.exists(), reason="the public labels are not here")
def test_agreement_of_the_public_labels() -> None:
    found = said("label", "agreement", LABELS)
    for figures in (("96.4", "0.94"), ("79.9", "0.63"), ("83.9", "0.70")):
        assert all(figure in found for figure in figures)


def test_help_does_not_load_what_is_slow() -> None:
    code = (
        "import sys, safeswap.cli; slow = {'torch', 'transformers', 'lm_eval', 'scipy', 'numpy', "
        "'datasets', 'rich'} & set(sys.modules); sys.exit(f'loaded: {slow}' if slow else 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_a_majority_named_beforehand_from_definition_to_table(
    results: Path, inputs: Path, tmp_path: Path
) -> None:
    own = tmp_path / "results"
    shutil.copytree(results, own, ignore=shutil.ignore_patterns("verdicts"))
    for name, text in {
        "one": RULES,
        "two": RULES.replace("[a-m]", "[a-s]"),
        "three": "default: safe\nrules: []\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    spec = f"majority:rule:{tmp_path}/one.yaml,rule-two,rule:three.yaml"
    told = said("judge", own, "--judge", spec)
    whom = "majority of rule-one, rule-two, rule-three, defined before any of them had judged"
    assert f"{own}: the {whom}" in told
    assert "rule-two has not read 24 responses" in told
    assert f"next: safeswap compare {own} --judge majority" in told
    assert "not judged yet by every judge of the majority" in said(
        "compare", own, "--judge", "majority", "--format", "md", "--table", "rates"
    )
    for name in ("one", "two", "three"):
        told = said("judge", own, "--judge", f"rule:{tmp_path}/{name}.yaml")
    assert f"next: safeswap compare {own} --judge rule-three" in told
    assert "has not read" not in said("judge", own, "--judge", spec)
    assert "several judges (majority, rule-one" in refused("compare", own)
    tables = json.loads(said("compare", own, "--judge", "majority", "--json"))["tables"]
    named = {table["title"]: table for table in tables}
    assert [title for title, table in named.items() if whom in str(table["notes"])] == ["Rates"]
    assert len(named["Judges beside each other"]["rows"]) == 9
    # by hand: with a judge that calls everything safe, unsafe is what the other two call so
    rows = {
        name: [
            json.loads(line)
            for line in (own / "base/verdicts" / f"rule-{name}.jsonl").read_text().splitlines()
        ]
        for name in ("one", "two")
    }
    both = sum(
        a["verdict"] == b["verdict"] == "unsafe"
        for a, b in zip(rows["one"], rows["two"], strict=True)
        if a["key"].startswith(f"harm/{FIRST}/")
    )
    explained = said(
        "compare", own, "--judge", "majority", "--explain", f"harm/{FIRST}/base"
    ).splitlines()[0]
    assert explained == f"harm/{FIRST}/base: {both} of 6"
    again = refused("judge", own, "--judge", "majority:rule-one,rule-two,rule-four")
    assert "chosen by its result is no majority" in " ".join(again.split())
    anew = "majority:rule-one,rule-two,rule-four"
    told = typed("judge", own, "--judge", anew, "--overwrite", "--json").stdout
    assert json.loads(told)["judge"] == "majority"
    told = said("judge", own, "--judge", anew)
    assert "verdicts were there already (rule-one 24, rule-two 24); before that, of" in told
    dry = said("judge", own, "--judge", anew, "--dry-run")
    assert "judge majority: " in dry and "base: 0 of 12 responses to judge" in dry
