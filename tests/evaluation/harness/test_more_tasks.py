"""The suites mergebench and low-resource: lm-eval's own tasks on small files in their own schemas.

The questions are made up, or the small world's; every log-likelihood is computed again with
transformers, from the text that the task's own page describes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
torch = pytest.importorskip("torch")
lm_eval = pytest.importorskip("lm_eval")

from evaluation.harness.test_tasks import (  # noqa: E402
    Counting,
    Speaking,
    log_likelihood,
    one,
    questions,
    score,
)
from safeswap.demo import models_folder  # noqa: E402
from safeswap.errors import EvaluationError  # noqa: E402
from safeswap.evaluation.backends import BackendOptions  # noqa: E402
from safeswap.evaluation.backends.hf import HFBackend  # noqa: E402
from safeswap.evaluation.benchmarks.registry import (  # noqa: E402
    BENCHMARKS,
    HarnessTask,
    TaskBenchmark,
)
from safeswap.evaluation.generate import Generation  # noqa: E402
from safeswap.evaluation.harness.local_data import as_parquet  # noqa: E402

PUBLIC = Path(__file__).parents[4] / "shared" / "data"
TOPICS = (
    *("science/technology", "travel", "politics", "sports", "health", "entertainment"),
    "geography",
)


@pytest.fixture(scope="module")
def small() -> HFBackend:
    torch.set_num_threads(1)
    return HFBackend(str(models_folder() / "base"), BackendOptions(dtype="float32", device="cpu"))


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def task_of(name: str, code: str, file: Path) -> HarnessTask:
    benchmark = BENCHMARKS[name]
    assert isinstance(benchmark, TaskBenchmark)
    task = benchmark.task(code)
    assert isinstance(task, HarnessTask)
    return replace(task, file=file)


def json_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def prompts(count: int) -> list[str]:
    return [q.prompt for q in questions("category")[:count]]


def words(count: int) -> list[str]:
    return list(dict.fromkeys(q.answer for q in questions("category")))[:count]


def m_mmlu(folder: Path) -> tuple[str, str, Path, list[tuple[str, list[str], int]], list[str]]:
    rows = [
        {"id": f"anatomy/test/{n}", "instruction": f" {q} ", "answer": "ABCD"[n % 4]}
        | {f"option_{letter}": text for letter, text in zip("abcd", words(4), strict=True)}
        for n, q in enumerate(prompts(3))
    ]
    asked = [
        (
            f"{row['instruction'].strip()}\n"
            + "".join(f"{letter}. {text}\n" for letter, text in zip("ABCD", words(4), strict=True))
            + "Answer:",
            list("ABCD"),
            "ABCD".index(row["answer"]),
        )
        for row in rows
    ]
    return "m_mmlu", "fr", json_lines(folder / "a.jsonl", rows), asked, [r["id"] for r in rows]


def arc(folder: Path) -> tuple[str, str, Path, list[tuple[str, list[str], int]], list[str]]:
    rows = [
        {"id": f"ARC-Challenge/test/{n}", "instruction": q, "answer": "ABC"[n], "option_e": None}
        | dict(zip(("option_a", "option_b", "option_c", "option_d"), words(4), strict=True))
        for n, q in enumerate(prompts(3))
    ]
    asked = [
        (f"Question: {row['instruction']}\nAnswer:", words(4), "ABCD".index(str(row["answer"])))
        for row in rows
    ]
    return "arc", "ru", json_lines(folder / "a.jsonl", rows), asked, [str(r["id"]) for r in rows]


def hellaswag(folder: Path) -> tuple[str, str, Path, list[tuple[str, list[str], int]], list[str]]:
    rows = [
        {"id": f"hellaswag/validation/{n}", "ind": n, "activity_label": "a", "ctx_a": q}
        | {
            "ctx_b": "then",
            "ctx": q,
            "endings": words(4),
            "label": str(n),
            "split_type": "zeroshot",
        }
        for n, q in enumerate(prompts(3))
    ]
    asked = [(f"a: {row['ctx_a']} Then", words(4), int(str(row["label"]))) for row in rows]
    made = json_lines(folder / "a.jsonl", rows)
    return "hellaswag", "de", made, asked, [str(r["id"]) for r in rows]


def sib200(folder: Path) -> tuple[str, str, Path, list[tuple[str, list[str], int]], list[str]]:
    path = folder / "tha_Thai_test.tsv"
    lines = [f"{n + 40}\t{TOPICS[n]}\t{q}" for n, q in enumerate(prompts(3))]
    path.write_text("\n".join(["index_id\tcategory\ttext", *lines]) + "\n")
    listed = "science/technology, travel, politics, sports, health, entertainment, or geography"
    asked = [
        (
            f"Given the categories {listed}; what category does the text: '{q}' belong to: \n\n",
            list(TOPICS),
            n,
        )
        for n, q in enumerate(prompts(3))
    ]
    return "sib200", "th", path, asked, ["40", "41", "42"]


def xcopa(folder: Path) -> tuple[str, str, Path, list[tuple[str, list[str], int]], list[str]]:
    first, second = (word.capitalize() for word in words(2))
    rows = [
        {"premise": f"{q}.", "choice1": first, "choice2": second, "label": n % 2}
        | {"question": ("cause", "effect")[n % 2], "idx": n, "changed": False}
        for n, q in enumerate(prompts(3))
    ]
    joined = {"cause": "kwa sababu", "effect": "kwa hiyo"}
    asked = [
        (f"{q} {joined[str(row['question'])]}", words(2), int(row["label"]))
        for q, row in zip(prompts(3), rows, strict=True)
    ]
    return "xcopa", "sw", json_lines(folder / "a.jsonl", rows), asked, ["0", "1", "2"]


def include(folder: Path) -> tuple[str, str, Path, list[tuple[str, list[str], int]], list[str]]:
    fields = ["Arts & Humanities", "Driving License", "Arts & Humanities"]
    rows = [
        {"question": q, "answer": n, "domain": field, "subject": "Law", "language": "Tagalog"}
        | {f"option_{letter}": text for letter, text in zip("abcd", words(4), strict=True)}
        for n, (q, field) in enumerate(zip(prompts(3), fields, strict=True))
    ]
    about = {"Arts & Humanities": "Arts & Humanities", "Driving License": "Driving License"}
    order = [0, 2, 1]  # part by part, in the order of lm-eval's parts
    asked = [(about[fields[n]], list("ABCD"), n) for n in order]
    clusters = ["arts_humanities/0", "arts_humanities/1", "driving_license/0"]
    return "include", "tl", json_lines(folder / "a.jsonl", rows), asked, clusters


Made = tuple[str, str, Path, list[tuple[str, list[str], int]], list[str]]


@pytest.mark.parametrize("make", [m_mmlu, arc, hellaswag, sib200, xcopa], ids=lambda f: f.__name__)
def test_choices_are_scored_as_transformers_scores_them(
    tmp_path: Path, small: HFBackend, make: Callable[[Path], Made]
) -> None:
    name, code, file, asked, clusters = make(tmp_path)
    counting = Counting(small.harness())
    suite = one(task_of(name, code, file), name)
    found = score(tmp_path, suite, counting, Generation(512, 6, "off"))
    assert [row["cluster"] for row in found] == clusters
    for row, (context, choices, right) in zip(found, asked, strict=True):
        continuations = [f" {choice}" for choice in choices]
        said = {(c, a) for c, a in counting.asked}
        for continuation in continuations:
            assert (context, continuation) in said, (context, sorted(said)[:4])
        scores = [log_likelihood(small, context, text) for text in continuations]
        assert row["right"] == float(scores.index(max(scores)) == right)
        assert row["metrics"]["acc"] == row["right"]
    questions_ = [row["question"] for row in found]
    assert len(set(questions_)) == len(questions_)


def test_include_is_asked_by_its_domains(tmp_path: Path, small: HFBackend) -> None:
    name, code, file, asked, clusters = include(tmp_path)
    task = task_of(name, code, file)
    counting = Counting(small.harness())
    found = score(tmp_path, one(task, name), counting, Generation(512, 6, "off"))
    assert [row["cluster"] for row in found] == clusters
    for row, (field, choices, right) in zip(found, asked, strict=True):
        question = prompts(3)[right]
        contexts = {c for c, _ in counting.asked if question in c}
        (context,) = contexts
        assert field in context and context.endswith("Answer:")
        scores = [log_likelihood(small, context, f" {letter}") for letter in choices]
        assert row["right"] == float(scores.index(max(scores)) == right)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[1]["domain"] = "STEM"  # which Tagalog has not
    json_lines(file, rows)
    with pytest.raises(EvaluationError, match=r"2 of its 3 rows .* Check the column Subject, or"):
        score(tmp_path / "other", one(task, name), small)


def afrimmlu_file(folder: Path) -> Path:
    rows = [
        {"subject": "law", "question": q, "choices": str(words(4)), "answer": "ABCD"[n]}
        for n, q in enumerate(prompts(3))
    ]
    return json_lines(folder / "afrimmlu.jsonl", rows)


def test_afrimmlu_asks_each_question_with_its_choices(tmp_path: Path, small: HFBackend) -> None:
    counting = Counting(small.harness())
    task = task_of("afrimmlu", "sw", afrimmlu_file(tmp_path))
    found = score(tmp_path, one(task, "afrimmlu"), counting, Generation(512, 6, "off"))
    assert [row["cluster"] for row in found] == ["0", "1", "2"]
    for n, row in enumerate(found):
        (context,) = {c for c, _ in counting.asked if f"Question: {prompts(3)[n]}" in c}
        assert all(word in context for word in words(4))
        asked = [a for c, a in counting.asked if c == context]
        assert sorted(a.strip() for a in asked) == sorted(words(4))
        scores = {a.strip(): log_likelihood(small, context, a) for a in asked}
        best = max(scores, key=lambda word: scores[word])
        assert row["right"] == float(words(4).index(best) == n)
        assert set(row["metrics"]) == {"acc"}  # no metric that is fetched as code


def test_afrimgsm_is_right_by_value(tmp_path: Path) -> None:
    path = tmp_path / "afrimgsm.tsv"
    path.write_text("".join(f"swali {letter}\t1800\n" for letter in "abcd"))
    said = ["Jibu ni 1,800.", "Jibu ni 1800.00", "Jibu ni 18", "sijui"]
    model = Speaking(dict(zip((f"swali {letter}" for letter in "abcd"), said, strict=True)))
    found = score(tmp_path, one(task_of("afrimgsm", "sw", path), "afrimgsm"), model)
    assert [row["right"] for row in found] == [1, 1, 0, 0]
    assert [row["number"] for row in found] == ["1800", "1800", "18", None]
    assert {row["expected"] for row in found} == {"1800"}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["1\ttravel"], "line 2 is not index_id, tab, category, tab, text"),
        ([], "holds no questions"),
        (
            ["1\ttravels\ta sentence"],
            "line 2 has the topic 'travels', which SIB-200 has not; did you",
        ),
    ],
)
def test_files_of_sib_that_are_wrong(
    tmp_path: Path, small: HFBackend, lines: list[str], said: str
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("\n".join(["index_id\tcategory\ttext", *lines]) + "\n")
    with pytest.raises(EvaluationError) as caught:
        score(tmp_path, one(task_of("sib200", "sw", path), "sib200"), small)
    assert said in str(caught.value)


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public files are not here")
def test_the_public_files_of_sib_and_xcopa_are_read(tmp_path: Path) -> None:
    import pyarrow.parquet  # type: ignore[import-untyped]

    (tmp_path / "scratch").mkdir()
    for name, count in (("sib200/swh_Latn_test.tsv", 204), ("xcopa/test.sw.jsonl", 500)):
        made = as_parquet(PUBLIC / name, tmp_path / "scratch")
        assert pyarrow.parquet.read_metadata(made).num_rows == count
