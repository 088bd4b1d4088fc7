"""Started anew with --overwrite, dry runs, JSON, threads and files of options, on a real model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("lm_eval")

from safeswap.cli import main
from safeswap.demo import models_folder
from safeswap.demo.documents import exam
from safeswap.demo.world import default_world
from tiny import digest_of

CODE = "qab"
BASE, OTHER = models_folder() / "base", models_folder() / "safety"


def typed(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def said(*words: object) -> str:
    found = typed(*words)
    assert found.exit_code == 0, found.output
    return found.output


def record(*words: object) -> dict[str, Any]:
    """What --json printed: stdout is one document, whatever is said on the way."""
    found = typed(*words, "--json")
    assert found.exit_code == 0, found.output
    parsed: dict[str, Any] = json.loads(found.stdout)
    return parsed


def refused(*words: object) -> str:
    found = typed(*words)
    assert found.exit_code == 1 and "Error: " in found.output, found.output
    return found.output


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "inputs"
    folder.mkdir()
    asked = exam(default_world(), CODE)
    harm = [q.prompt for q in asked if q.kind == "harmful"][:4]
    with (folder / "harm.csv").open("w", newline="") as file:
        rows = [[n, "x", "[]", text] for n, text in enumerate(harm)]
        csv.writer(file).writerows([["id", "source", "tags", CODE], *rows])
    sums = [q.prompt for q in asked if q.kind == "sum"][:5]
    (folder / "sums.tsv").write_text("".join(f"{text}\t3\n" for text in sums))
    (folder / "rules.yaml").write_text("default: unsafe\nrules: []\n")
    (folder / "suite.yaml").write_text(
        "benchmarks:\n  harm: {prompts: harm.csv, title: Harm}\n"
        f"  sums:\n    numbers: true\n    tasks:\n      {CODE}: "
        "{task: mgsm_native_cot_sw, file: sums.tsv}\n"
    )
    return folder


def evaluating(inputs: Path, out: Path, *more: object, suite: str = "harm") -> list[object]:
    words = ["evaluate", f"m={BASE}", "--suite", inputs / "suite.yaml", "--only", CODE]
    return [*words, "-o", out, "--max-new-tokens", 3, "--harness-tokens", 3, *more]


def only_prompts(inputs: Path) -> None:
    (inputs / "suite.yaml").write_text("benchmarks: {harm: {prompts: harm.csv}}\n")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_other_settings_start_anew_only_when_asked_and_only_what_is_ours_goes(
    inputs: Path, tmp_path: Path
) -> None:
    only_prompts(inputs)
    out = tmp_path / "r"
    said(*evaluating(inputs, out, "--judge", f"rule:{inputs / 'rules.yaml'}"))
    kept = {
        out / "notes.txt": "mine",
        out / "m" / "thesis.tex": "mine",
        out / "m" / "verdicts" / "people.json": '{"of": "mine"}',
        out / "archive" / "responses.jsonl": '{"key": "of an older run"}\n',
    }
    for path, text in kept.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    before = digest_of(out)
    longer = evaluating(inputs, out, "--max-new-tokens", 5)
    text = refused(*longer)
    assert "max_new_tokens of generation is 3" in text and "--overwrite" in text
    assert digest_of(out) == before
    told = said(*longer, "--overwrite")
    assert "is started anew" in told and "m: 4 responses" in told
    assert all(path.read_text() == text for path, text in kept.items())
    assert not (out / "m" / "verdicts" / "rule-rules.jsonl").exists()
    assert json.loads((out / "settings.json").read_text())["generation"]["max_new_tokens"] == 5
    # with the same settings nothing is thrown away: the same command goes on
    answers = digest_of(out)
    assert "m: 0 responses" in said(*longer, "--overwrite")
    assert digest_of(out) == answers


def test_another_model_or_dtype_of_the_same_name(inputs: Path, tmp_path: Path) -> None:
    only_prompts(inputs)
    out = tmp_path / "r"
    said(*evaluating(inputs, out, f"n={OTHER}", "--dtype", "float32"))
    others = (out / "n" / "responses.jsonl").read_bytes()
    swapped = [OTHER if word == f"m={BASE}" else word for word in evaluating(inputs, out)]
    swapped[1] = f"m={OTHER}"
    assert "another model called m" in refused(*swapped) and "--overwrite" in refused(*swapped)
    said(*swapped, "--overwrite", "--dtype", "float32")
    record = json.loads((out / "m" / "model.json").read_text())
    assert record["source"] == str(OTHER)
    assert (out / "n" / "responses.jsonl").read_bytes() == others
    again = [*swapped, "--dtype", "bfloat16"]  # everything is answered, and yet in another dtype
    assert "dtype float32" in refused(*again)
    assert "m: 4 responses" in said(*again, "--overwrite")


def test_what_lies_elsewhere_is_not_removed(inputs: Path, tmp_path: Path) -> None:
    only_prompts(inputs)
    out, elsewhere = tmp_path / "r", tmp_path / "elsewhere"
    said(*evaluating(inputs, out))
    (out / "m").rename(elsewhere)
    (out / "m").symlink_to(elsewhere)
    before = digest_of(elsewhere)
    longer = evaluating(inputs, out, "--max-new-tokens", 5, "--overwrite")
    assert "is a link" in refused(*longer)
    (out / "m").unlink()
    settings = json.loads((out / "settings.json").read_text())
    settings["arms"] = ["../elsewhere", str(elsewhere), "m"]
    (out / "settings.json").write_text(json.dumps(settings))
    (out / "m").mkdir()
    (out / "m" / "responses.jsonl").write_bytes((elsewhere / "responses.jsonl").read_bytes())
    typed(*longer)
    assert digest_of(elsewhere) == before


def test_verdicts_of_another_judge_of_the_same_name(inputs: Path, tmp_path: Path) -> None:
    only_prompts(inputs)
    out = tmp_path / "r"
    said(*evaluating(inputs, out))
    verdicts = out / "m" / "verdicts"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "guard").symlink_to(BASE if name == "a" else OTHER)
    judging = ["judge", out, "--kind", "threeway", "--judge"]
    found = record(*judging, tmp_path / "a" / "guard", "--dry-run")
    assert found["judge"]["weights_bytes"] > 0 and found["models"][0]["to_judge"] == 4
    assert not verdicts.exists()
    found = record(*judging, tmp_path / "a" / "guard")
    assert found["kind"] == "judged" and found["models"][0]["added"] == 4
    rows_before = (verdicts / "guard.jsonl").read_text().splitlines()
    (verdicts / "guard.jsonl").write_text(rows_before[0] + "\n")  # as a kill leaves it
    assert "--overwrite" in refused(*judging, tmp_path / "b" / "guard")
    assert record(*judging, tmp_path / "b" / "guard", "--overwrite")["models"][0]["added"] == 4


def test_a_sheet_is_replaced_until_somebody_labels_it(inputs: Path, tmp_path: Path) -> None:
    only_prompts(inputs)
    out, sheet = tmp_path / "r", tmp_path / "sheet.csv"
    said(*evaluating(inputs, out, "--judge", f"rule:{inputs / 'rules.yaml'}"))
    sampling = ["label", "sample", out, "--out", sheet, "--sample"]
    assert record(*sampling, 3)["responses"] == 3
    assert "exists already" in refused(*sampling, 2)
    assert record(*sampling, 2, "--overwrite")["responses"] == 2
    lines = sheet.read_text(encoding="utf-8-sig").splitlines()
    labelled = [lines[0], lines[1].replace('"",""', '"safe",""'), *lines[2:]]
    sheet.write_text("\n".join(labelled) + "\n", encoding="utf-8-sig")
    assert "holds labels or notes in 1 rows" in refused(*sampling, 3, "--overwrite")
    sheet.write_text("my,table\n1,2\n")
    assert "other columns" in refused(*sampling, 3, "--overwrite")


def test_json_is_all_there_is_on_stdout(inputs: Path, tmp_path: Path) -> None:
    judged = f"rule:{inputs / 'rules.yaml'}"
    words = evaluating(inputs, tmp_path / "r")
    dry = record(*words, "--dry-run")
    assert dry["models"][0]["to_answer"] == 4 and not (tmp_path / "r").exists()
    assert [cell.get("prompts", cell.get("task")) for cell in dry["cells"]] == [
        4,
        "mgsm_native_cot_sw",
    ]
    found = record(*words, "--judge", judged)
    assert found["models"] == [{"model": "m", "responses": 4, "scores": 5}]
    assert found["judged"]["models"] == [{"name": "m", "added": 4, "verdicts": {"unsafe": 4}}]


def test_threads_are_those_that_were_asked_for(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_prompts(inputs)
    asked: list[int] = []
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    said(*evaluating(inputs, tmp_path / "r", "--threads", 2))
    judging = ["judge", tmp_path / "r", "--judge", f"rule:{inputs / 'rules.yaml'}"]
    said(*judging)
    assert asked == [2]
    said(*judging, "--threads", 1)
    assert asked == [2, 1]
    assert typed(*judging, "--threads", 0).exit_code == 2


def test_a_trial_limits_the_questions_of_lm_eval_too(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    found = record(*evaluating(inputs, out, "--limit", 2))
    assert found["models"] == [{"model": "m", "responses": 2, "scores": 2}]
    ids = {row["id"] for row in rows(out / "m" / "scores.jsonl") if "id" in row}
    other = tmp_path / "other"
    record(*evaluating(inputs, other, "--limit", 2, "--limit-seed", 3))
    assert ids != {row["id"] for row in rows(other / "m" / "scores.jsonl") if "id" in row}
    again = tmp_path / "again"
    record(*evaluating(inputs, again, "--limit", 2))
    assert ids == {row["id"] for row in rows(again / "m" / "scores.jsonl") if "id" in row}
    tables = record("compare", out, "--reference", "m")["tables"]
    note = "at most 2 questions of each, seed 0"
    assert tables and all(any(note in one for one in table["notes"]) for table in tables)
    assert "limit" in refused(*evaluating(inputs, out))  # the whole does not stand beside a part


def config(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


def test_options_of_an_evaluation_from_a_file(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_prompts(inputs)
    (inputs / "m").symlink_to(BASE)
    content = {
        "models": ["m=m"],
        "suite": "suite.yaml",
        "only": CODE,
        "out": "results",
        "max-new-tokens": 3,
        "judge": "rule:rules.yaml",
    }
    monkeypatch.chdir(tmp_path)  # paths are relative to the file, wherever the command is given
    told = said("evaluate", "--config", config(inputs / "run.yaml", content))
    assert "m: 4 responses" in told and "m: 4 verdicts" in told
    assert (inputs / "results" / "m" / "responses.jsonl").is_file()
    # the command line goes first, and its paths are those of the shell
    said("evaluate", "--config", inputs / "run.yaml", "-o", "here", "--max-new-tokens", 2)
    assert (tmp_path / "here" / "settings.json").is_file()
    for key, near in (("max-tokens", "max-new-tokens"), ("promts", "prompts"), ("judg", "judge")):
        wrong = config(inputs / "wrong.yaml", {**content, key: 1})
        assert f"did you mean '{near}'" in refused("evaluate", "--config", wrong)


EXPERTS = {
    "base": str(BASE),
    "safety": str(OTHER),
    "languages": {CODE: str(models_folder() / CODE)},
}


@pytest.fixture
def many(inputs: Path) -> Callable[..., Path]:
    """Write a sweep's or a search's file."""

    def write(name: str, **more: Any) -> Path:
        only_prompts(inputs)
        content = {**EXPERTS, "suite": "suite.yaml", "judge": "rule:rules.yaml"}
        settings = {"max_new_tokens": 2, "choose": {"loss": 100, "refused": 100}}
        return config(inputs / name, {**content, **settings, **more})

    return write


def test_a_sweep_dry_in_json_and_anew(many: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "r"
    file = many("sweep.yaml", grid=[{"method": "soup"}])
    words = ["sweep", file, "-o", out, "--dtype", "float32", "--device", "cpu"]
    dry = record(*words, "--dry-run")
    assert dry["cells"] == ["soup"] and not out.exists()
    sides = dry["languages"][0]
    assert sides["dev"][0]["prompts"] + sides["test"][0]["prompts"] == 4
    assert "1 cells of the grid" in said(*words, "--dry-run")
    found = record(*words)
    assert found["languages"][0]["chosen"] == "soup"
    assert Path(found["languages"][0]["plan"]).is_file()
    many("sweep.yaml", grid=[{"method": "soup"}], max_new_tokens=3)
    assert "--overwrite" in refused(*words)
    assert record(*words, "--overwrite")["languages"][0]["chosen"] == "soup"


def test_a_search_dry_in_json_and_anew(many: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    out = tmp_path / "r"
    file = many("search.yaml", start=[{"method": "soup"}])
    words = ["search", file, "-o", out, "--trials", 2, "--group", "kind", "--dtype", "float32"]
    dry = record(*words, "--dry-run")
    assert dry["trials"] == 2 and dry["weights"] > 0 and not out.exists()
    assert "2 trials over" in said(*words, "--dry-run")
    found = record(*words)
    assert found["languages"][0]["trials"] == 2 and found["languages"][0]["front"]
    many("search.yaml", start=[{"method": "soup"}], max_new_tokens=3)
    assert "--overwrite" in refused(*words)
    assert record(*words, "--overwrite")["languages"][0]["trials"] == 2


def test_a_calibration_dry_in_json_and_anew(tmp_path: Path) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "grams"
    texts.write_text("qa qi\nqo qu\n")
    words = ["calibrate", BASE, "--safety", OTHER, "--language", f"{CODE}={models_folder() / CODE}"]
    words += ["--texts", texts, "-o", out]
    dry = record(*words, "--dry-run")
    assert [one["texts"] for one in dry["experts"]] == [2, 2] and not out.exists()
    found = record(*words)
    assert [one["kept"] for one in found["experts"]] == [False, False]
    (out / "mine.txt").write_text("mine")
    texts.write_text("qa qi\nqo qe\n")
    assert "from other texts" in refused(*words) and "--overwrite" in refused(*words)
    found = record(*words, "--overwrite")
    assert [one["kept"] for one in found["experts"]] == [False, False]
    assert (out / "mine.txt").read_text() == "mine"
    assert [one["kept"] for one in record(*words, "--overwrite")["experts"]] == [True, True]


def test_merge_verify_and_profile_in_json(tmp_path: Path) -> None:
    experts = [BASE, "--safety", OTHER, "--language", f"{CODE}={models_folder() / CODE}"]
    assert record("profile", *experts, "-o", tmp_path / "p.json")["units"] > 2
    dry = record("merge", *experts, "-o", tmp_path / "out", "--dry-run")
    assert dry["verb"] == "merge" and not (tmp_path / "out").exists()
    (merged,) = record("merge", *experts, "-o", tmp_path / "out", "--no-figure")["merges"]
    assert merged["language"] == CODE and merged["bytes"] > 0
    (checked,) = record("verify", tmp_path / "out")["folders"]
    assert checked["from_inputs"] is True and checked["tensors"] > 2


def test_foreign_experts_need_force_everywhere(many: Callable[..., Path], tmp_path: Path) -> None:
    import shutil

    import numpy as np
    from safetensors.numpy import load_file, save_file

    stranger = tmp_path / "stranger"
    shutil.copytree(OTHER, stranger)
    file = next(stranger.glob("*.safetensors"))
    weights, dice = load_file(file), np.random.default_rng(0)
    for name, values in weights.items():
        if values.ndim == 2:
            weights[name] = dice.standard_normal(values.shape).astype(values.dtype)
    save_file(weights, file, metadata={"format": "pt"})
    sweep = many("sweep.yaml", grid=[{"method": "soup"}], safety=str(stranger))
    search = many("search.yaml", start=[{"method": "soup"}], safety=str(stranger))
    texts = tmp_path / "texts.txt"
    texts.write_text("qa qi\n")
    language = f"{CODE}={models_folder() / CODE}"
    calibrate = ["calibrate", BASE, "--safety", stranger, "--language", language]
    for words in (
        ["sweep", sweep, "-o", tmp_path / "r", "--device", "cpu"],
        ["search", search, "-o", tmp_path / "s", "--trials", 1, "--group", "kind"],
        [*calibrate, "--texts", texts, "-o", tmp_path / "g"],
    ):
        if words[0] == "search":
            pytest.importorskip("optuna")
        text = refused(*words)
        assert "no fine-tune" in text and "--force" in text
        assert "no fine-tune" in said(*words, "--force")
    # a profile that --force made does not let a foreign expert in later
    assert "no fine-tune" in refused("sweep", sweep, "-o", tmp_path / "r", "--device", "cpu")
