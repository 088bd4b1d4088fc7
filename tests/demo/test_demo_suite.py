"""The world's benchmarks: the real ones' schemas, and answers that are the world's own."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from safeswap.demo.documents import exam
from safeswap.demo.suite import CARELESS, RULES, write_suite
from safeswap.demo.world import LANGUAGES, World, default_world
from safeswap.evaluation.benchmarks.suites import make_suite
from safeswap.evaluation.harness.final_number import final_number
from safeswap.evaluation.judges import RuleJudge

WORLD = default_world()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite")).parent


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_suite_is_read_in_every_language(folder: Path) -> None:
    suite = make_suite(str(folder / "suite.yaml"), LANGUAGES)
    assert [b.name for b in suite.benchmarks] == [
        "harm",
        "benign",
        "knowledge",
        "procedures",
        "sums",
    ]
    assert [b.measures for b in suite.benchmarks] == ["unsafe", "refused", *["right"] * 3]
    assert not any(b.absent for b in suite.benchmarks)
    harm = suite.benchmarks[0].prompts
    assert harm is not None
    asked = {(p.language, p.text) for p in harm.prompts}
    assert asked == {
        (code, q.prompt) for code in LANGUAGES for q in exam(WORLD, code) if q.kind == "harmful"
    }


def test_files_have_the_columns_of_the_real_ones(folder: Path) -> None:
    assert list(rows(folder / "harm.csv")[0]) == ["id", "source", "tags", *LANGUAGES]
    assert list(rows(folder / "benign.csv")[0])[:6] == [
        "id", "prompt", "type", "label", "focus", "note"
    ]  # fmt: skip
    assert list(rows(folder / "knowledge_qab.csv")[0]) == [
        "Question", "A", "B", "C", "D", "Answer", "Subject"
    ]  # fmt: skip
    first = json.loads((folder / "procedures_qab.jsonl").read_text().splitlines()[0])
    assert set(first) == {
        *("link", "question_number", "flores_passage", "question", "correct_answer_num"),
        *("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4", "dialect", "ds"),
    }
    for line in (folder / "sums_qac.tsv").read_text(encoding="utf-8").splitlines():
        question, answer = line.split("\t")
        assert answer.isascii() and answer.isdigit()
        assert not question.isascii()


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_right_choice_is_the_worlds_answer_and_the_only_one(folder: Path, code: str) -> None:
    categories = dict(WORLD.category_question(code, item) for item in WORLD.items)
    for row in rows(folder / f"knowledge_{code}.csv"):
        choices = [row[letter] for letter in "ABCD"]
        assert row[row["Answer"]] == categories[row["Question"]]
        assert len(set(choices)) == 4
    procedures = {
        WORLD.request(code, item, form): WORLD.procedure(code, item)
        for item in WORLD.items
        for form in range(3)
    }
    for line in (folder / f"procedures_{code}.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        choices = [row[f"mc_answer{n}"] for n in range(1, 5)]
        assert choices[int(row["correct_answer_num"]) - 1] == procedures[row["question"]]
        assert len(set(choices)) == 4
    sums = {q.prompt: q.answer for q in exam(WORLD, code) if q.kind == "sum"}
    for line in (folder / f"sums_{code}.tsv").read_text(encoding="utf-8").splitlines():
        question, answer = line.split("\t")
        assert final_number(sums[question]) == int(answer)


def test_answers_stand_in_every_place(folder: Path) -> None:
    found = {row["Answer"] for row in rows(folder / "knowledge_qaa.csv")}
    assert found == set("ABCD")


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_rules_know_refusals_of_every_language(folder: Path, code: str) -> None:
    judge = RuleJudge.load(folder / RULES)
    item = WORLD.items[-1]
    refused = judge.decide("", WORLD.refusal(code, 0), {})
    assert (refused.verdict, refused.refusal) == ("safe", True)
    answered = judge.decide("", WORLD.procedure(code, item), {})
    assert (answered.verdict, answered.refusal) == ("unsafe", False)
    assert judge.decide("", "", {}).verdict == "invalid"


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_careless_judge_knows_one_language(folder: Path, code: str) -> None:
    refused = RuleJudge.load(folder / CARELESS).decide("", WORLD.refusal(code, 0), {})
    assert (refused.verdict == "safe") == (code == LANGUAGES[0])


def test_the_same_world_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_suite(tmp_path / name, World(3), ["qaa", "qad"])
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert set(yaml.safe_load((tmp_path / "one" / "suite.yaml").read_text())) == {"benchmarks"}
