"""Ability: lm-evaluation-harness really runs here, its own tasks on files in their own schemas.

The questions are the small world's, the model is one of its models; what it answers is not pinned
but computed again with transformers.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
torch = pytest.importorskip("torch")
lm_eval = pytest.importorskip("lm_eval")

from safeswap.demo import models_folder  # noqa: E402
from safeswap.demo.documents import Question, exam  # noqa: E402
from safeswap.demo.world import LANGUAGES, default_world  # noqa: E402
from safeswap.errors import EvaluationError  # noqa: E402
from safeswap.evaluation.backends import BackendOptions  # noqa: E402
from safeswap.evaluation.backends.hf import HFBackend  # noqa: E402
from safeswap.evaluation.benchmarks.registry import HarnessTask  # noqa: E402
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite  # noqa: E402
from safeswap.evaluation.generate import Generation  # noqa: E402
from safeswap.evaluation.harness.cached_lm import StoredModel, _is_cut  # noqa: E402
from safeswap.evaluation.harness.local_data import _mgsm_rows  # noqa: E402
from safeswap.evaluation.harness.tasks import _manager, score_tasks  # noqa: E402
from safeswap.evaluation.measures import Measure  # noqa: E402
from safeswap.evaluation.models import EvaluatedModel  # noqa: E402
from safeswap.evaluation.results.journal import Journal, read_rows  # noqa: E402
from safeswap.evaluation.results.store import Results  # noqa: E402

PUBLIC = Path(__file__).parents[4] / "shared" / "data" / "mgsm"
SHORT = Generation(harness_tokens=6)
SUBJECTS = tuple(
    json.loads((Path(lm_eval.__file__).parent / "tasks/openai-mmmlu/subjects.json").read_text())
)


@pytest.fixture(scope="module")
def small() -> HFBackend:
    torch.set_num_threads(1)
    return HFBackend(str(models_folder() / "base"), BackendOptions(dtype="float32", device="cpu"))


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever `datasets` writes goes into the test's own folder, and nothing must stay there."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    yield
    assert not (tmp_path / "cache").exists()


class Counting:
    """The responder, counting what its model is asked; fails after so many requests."""

    def __init__(self, inner: Any, fail_after: int | None = None) -> None:
        self.model = inner
        self.asked: list[Any] = []
        self.fail_after = fail_after

    def harness(self) -> Any:
        return self

    def _ask(self, kind: str, requests: list[Any], **named: Any) -> Any:
        if self.fail_after is not None and len(self.asked) + len(requests) > self.fail_after:
            raise RuntimeError("the power went out")
        self.asked += [request.args for request in requests]
        return getattr(self.model, kind)(requests, **named)

    def loglikelihood(self, requests: list[Any], **named: Any) -> Any:
        return self._ask("loglikelihood", requests, **named)

    def generate_until(self, requests: list[Any], **named: Any) -> Any:
        return self._ask("generate_until", requests, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)


class Speaking:
    """A model that gives the answers it was given, in turn of the questions in them."""

    max_length = 2048
    tokenizer_name = "none"

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def harness(self) -> Any:
        return self

    def generate_until(self, requests: list[Any], disable_tqdm: bool) -> list[str]:
        found = [[v for k, v in self.answers.items() if k in r.args[0]] for r in requests]
        return [answer for (answer,) in found]

    def tok_encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        return list(range(len(text.split()) + (add_special_tokens is not False)))

    def chat_template(self, chat_template: bool | str = False) -> str:
        return ""

    def apply_chat_template(self, history: list[dict[str, str]], **named: Any) -> str:
        return f"<{history[-1]['content']}>"


@contextmanager
def tell(title: str, total: int) -> Iterator[Any]:
    yield lambda count: None


def questions(kind: str) -> list[Question]:
    return [q for q in exam(default_world(), LANGUAGES[0]) if q.kind == kind]


def one(task: HarnessTask, name: str = "mine") -> Suite:
    benchmark = Benchmark(name, name, Measure.ACCURACY, tasks={task.language: task})
    return Suite((task.language,), (benchmark,))


def score(
    folder: Path,
    suite: Suite,
    responder: Any,
    generation: Generation = SHORT,
    digest: str = "d",
) -> list[dict[str, Any]]:
    """The scored questions that are stored afterwards."""
    results, arm = Results(folder / "results"), EvaluatedModel("arm", "a", "a", digest)
    score_tasks(results, arm, suite, responder, generation, tell)
    return [row for row in read_rows(results.folder / "arm" / "scores.jsonl") if "id" in row]


def requests_in(folder: Path) -> list[dict[str, Any]]:
    return list(read_rows(folder / "results" / "arm" / "requests.jsonl"))


def belebele(folder: Path, count: int = 8) -> tuple[HarnessTask, list[dict[str, Any]]]:
    """The world's categories in BELEBELE's schema, two questions a passage."""
    asked = questions("category")[:count]
    answers = list(dict.fromkeys(q.answer for q in questions("category")))
    rows = []
    for n, q in enumerate(asked):
        others = [a for a in answers if a != q.answer][:3]
        choices = [*others[: n % 4], q.answer, *others[n % 4 :]]
        row = {
            "link": f"https://en.wikibooks.org/{n // 2}",
            "question_number": n % 2 + 1,
            "flores_passage": asked[n // 2].prompt,
            "question": q.prompt,
            "correct_answer_num": str(n % 4 + 1),
            "dialect": "swh_Latn",
            "ds": "2023-05-03",
        }
        rows.append(row | {f"mc_answer{i}": text for i, text in enumerate(choices, 1)})
    path = folder / "belebele.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return HarnessTask("sw", "belebele_swh_Latn", file=path, cluster="link"), rows


def mmmlu(folder: Path, subjects: list[str]) -> tuple[HarnessTask, list[list[str]]]:
    asked = questions("category")
    rows = [
        [str(n), asked[n % len(asked)].prompt, "None", "007", "NA", "1.10", "ABCD"[n % 4], subject]
        for n, subject in enumerate(subjects)
    ]
    path = folder / "mmmlu.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["", "Question", *"ABCD", "Answer", "Subject"], *rows])
    return HarnessTask("sw", "mmmlu_sw_ke", file=path), rows


def log_likelihood(model: HFBackend, context: str, continuation: str) -> float:
    """Σ log p(continuation | context), by transformers alone."""
    ids = model.tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    start = len(model.tokenizer(context, add_special_tokens=False)["input_ids"])
    with torch.inference_mode():
        scores = model.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(sum(scores[n - 1, ids[n]] for n in range(start, len(ids))))


@pytest.mark.parametrize("template", ["on", "off"])
def test_belebele_is_scored_as_transformers_scores_it(
    tmp_path: Path, small: HFBackend, template: str
) -> None:
    task, documents = belebele(tmp_path)
    counting = Counting(small.harness())
    found = score(tmp_path, one(task), counting, Generation(512, 6, template))
    assert [row["id"] for row in found] == [f"belebele_swh_Latn/{n}" for n in range(8)]
    assert [row["cluster"] for row in found] == [d["link"] for d in documents]
    assert len(counting.asked) == len(set(counting.asked)) == 4 * len(documents)
    assert len(requests_in(tmp_path)) == 4 * len(documents)
    stored = {(row["doc"], n): row["answer"] for row in requests_in(tmp_path) for n in [row["key"]]}
    assert len(stored) == 32
    for number in (0, 3, 6):
        d = documents[number]
        text = f"P: {d['flores_passage']}\nQ: {d['question']}\n"
        text += "".join(f"{letter}: {d[f'mc_answer{n}']}\n" for n, letter in enumerate("ABCD", 1))
        text += "Answer:"
        if template == "on":
            text = small.tokenizer.apply_chat_template(
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
        asked = [(c, a) for c, a in counting.asked if c == text]
        assert sorted(a.strip() for _, a in asked) == list("ABCD")
        expected = [log_likelihood(small, c, a) for c, a in sorted(asked, key=lambda p: p[1])]
        answers = sorted(a[0] for (doc, _), a in stored.items() if doc == number)
        assert answers == pytest.approx(sorted(expected), abs=1e-3)
        best = expected.index(max(expected)) + 1
        assert found[number]["metrics"]["acc"] == float(best == int(d["correct_answer_num"]))
        assert found[number]["right"] == found[number]["metrics"]["acc"]


def test_every_row_of_mmmlu_is_asked_once_as_it_is_written(
    tmp_path: Path, small: HFBackend
) -> None:
    subjects = [*SUBJECTS, "anatomy", f"{SUBJECTS[0]}_test.csv_sw-KE.csv"]
    task, rows = mmmlu(tmp_path, subjects)
    counting = Counting(small.harness())
    found = score(tmp_path, one(task, "mmmlu"), counting)
    assert len(found) == len(rows) == 59
    assert {row["id"].rpartition("/")[0] for row in found} == {f"mmmlu_sw_ke_{s}" for s in SUBJECTS}
    assert {row["cluster"] for row in found} >= {"anatomy/0", "anatomy/1", f"{SUBJECTS[0]}/1"}
    prompts = {context for context, _ in counting.asked}
    for row in rows:
        text = f"{row[1]}\nA. None\nB. 007\nC. NA\nD. 1.10\nAnswer:"
        assert any(text in prompt for prompt in prompts)


def test_a_row_of_no_subject_is_not_dropped_in_silence(tmp_path: Path, small: HFBackend) -> None:
    task, _ = mmmlu(tmp_path, ["anatomy", "anatomi", "virology"])
    with pytest.raises(EvaluationError, match=r"2 of its 3 rows .* Check the column Subject"):
        score(tmp_path, one(task), small)


def test_a_stopped_run_goes_on_without_asking_twice(
    tmp_path: Path, small: HFBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("safeswap.evaluation.harness.cached_lm.AT_ONCE", {"loglikelihood": 8})
    task, documents = belebele(tmp_path)
    failing = Counting(small.harness(), fail_after=20)
    with pytest.raises(RuntimeError, match="power"):
        score(tmp_path, one(task), failing)
    assert len(failing.asked) == len(requests_in(tmp_path)) == 16
    counting = Counting(small.harness())
    found = score(tmp_path, one(task), counting)
    assert len(counting.asked) == 16 and not set(counting.asked) & set(failing.asked)
    again = Counting(small.harness())
    assert score(tmp_path, one(task), again) == found and not again.asked
    whole = score(tmp_path / "whole", one(task), small)
    assert found == whole and len(found) == len(documents)


def test_another_model_template_or_setting_is_asked_anew(tmp_path: Path, small: HFBackend) -> None:
    task, _ = belebele(tmp_path, 2)
    for digest, template in (("d", "on"), ("e", "on"), ("d", "off")):
        (tmp_path / "results/arm/scores.jsonl").unlink(missing_ok=True)
        counting = Counting(small.harness())
        score(tmp_path, one(task), counting, Generation(512, 6, template), digest)
        assert len(counting.asked) == 8
    assert len(requests_in(tmp_path)) == 24


def test_what_an_answer_is_filed_under(tmp_path: Path, small: HFBackend) -> None:
    with Journal(tmp_path / "j.jsonl") as journal:
        models = [
            StoredModel(small.harness(), journal, digest, template, tell)
            for digest, template in (("d", "on"), ("e", "on"), ("d", "off"))
        ]
    asked: list[tuple[str, tuple[Any, ...]]] = [
        ("loglikelihood", ("a", "b")),
        ("loglikelihood", ("a", "c")),
        ("generate_until", ("a", {"max_gen_toks": 1})),
        ("generate_until", ("a", {"max_gen_toks": 2})),
    ]
    keys = {model.key(*one) for model in models for one in asked}
    assert len(keys) == len(models) * len(asked)
    assert models[0].key(*asked[3]) in keys


def sums(folder: Path, name: str = "sums.tsv") -> Path:
    rows = [(q.prompt, str(n + 17)) for n, q in enumerate(questions("sum")[:4])]
    path = folder / name
    if path.suffix == ".tsv":
        path.write_text("".join(f"{question}\t{answer}\n" for question, answer in rows))
    else:
        listed = [{"question": q, "answer": None, "answer_number": int(a)} for q, a in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in listed))
    return path


@pytest.mark.parametrize(("language", "name"), [("sw", "sums.tsv"), ("bn", "sums.jsonl")])
def test_mgsm_generates_within_the_limit(
    tmp_path: Path, small: HFBackend, language: str, name: str
) -> None:
    task = HarnessTask(
        language, f"mgsm_native_cot_{language}", file=sums(tmp_path, name), numbers=True
    )
    counting = Counting(small.harness())
    found = score(tmp_path, one(task, "mgsm"), counting, Generation(512, 2))
    assert len(found) == len(counting.asked) == 4
    assert {settings["max_gen_toks"] for _, settings in counting.asked} == {2}
    assert all(len(row["response"].split()) <= 2 for row in found)
    for row, asked in zip(found, requests_in(tmp_path), strict=False):
        assert asked["cut"] == (asked["tokens"] >= 2)
        assert set(row["metrics"]) == {"exact_match,strict-match", "exact_match,flexible-extract"}
    assert [row["cluster"] for row in found] == ["0", "1", "2", "3"]
    # the same questions with another limit are other requests
    (tmp_path / "results/arm/scores.jsonl").unlink()
    more = Counting(small.harness())
    score(tmp_path, one(task, "mgsm"), more, Generation(512, 3))
    assert len(more.asked) == 4


def test_numbers_are_right_by_value_beside_lm_evals_metric(tmp_path: Path) -> None:
    asked = [f"question {letter}" for letter in "abcdef"]
    said = [
        "Jibu ni 18.",
        "Jibu ni ১৮",
        "Jibu ni 18.00.",
        "Jibu ni 1.8",
        "a b c d e f g",
        "1 2 3 4 5 6 7 8",
    ]
    path = tmp_path / "mgsm.tsv"
    path.write_text("".join(f"{question}\t18\n" for question in asked))
    task = HarnessTask("sw", "mgsm_native_cot_sw", file=path, numbers=True)
    model = Speaking(dict(zip(asked, said, strict=True)))
    found = score(tmp_path, one(task), model, Generation(512, 8))
    assert [row["right"] for row in found] == [1, 1, 1, 0, 0, 0]
    assert [row["number"] for row in found] == ["18", "18", "18", "1.8", None, "8"]
    assert {row["expected"] for row in found} == {"18"}
    assert [row["cut"] for row in found] == [False] * 5 + [True]
    strict = [row["metrics"]["exact_match,strict-match"] for row in found]
    assert strict == [1, 0, 0, 1, 0, 0]  # what lm-eval makes of them
    assert found[0]["response"] == "Jibu ni 18."
    assert "Swali: question a\nJibu la Hatua kwa Hatua:" in model_prompt(tmp_path, model)


def model_prompt(folder: Path, model: Speaking) -> str:
    """What lm-eval asks for the first question, without a template."""
    heard: list[str] = []

    def hear(requests: list[Any], disable_tqdm: bool) -> list[str]:
        heard.extend(request.args[0] for request in requests)
        return ["" for _ in requests]

    model.generate_until = hear  # type: ignore[method-assign]
    task = HarnessTask("sw", "mgsm_native_cot_sw", file=folder / "mgsm.tsv", numbers=True)
    score(folder / "heard", one(task), model, Generation(512, 8, "off"))
    return min(heard)


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public files are not here")
def test_the_public_files_of_mgsm() -> None:
    files = sorted(PUBLIC.glob("mgsm_*.tsv"))
    assert len(files) == 11
    answers = [[row["answer_number"] for row in _mgsm_rows(file)] for file in files]
    assert len(answers[0]) == 250 and all(one == answers[0] for one in answers)
    assert all(answer.lstrip("-").isdigit() for answer in answers[0])


def test_prompts_that_do_not_fit_are_counted(tmp_path: Path, small: HFBackend) -> None:
    path = tmp_path / "long.tsv"
    prompt = questions("sum")[0].prompt
    path.write_text(f"{prompt}\t1\n{' '.join([prompt] * 12)}\t1\n")
    task = HarnessTask("sw", "mgsm_native_cot_sw", file=path, numbers=True)
    found = score(tmp_path, one(task), small)
    assert [row.get("prompt_cut", False) for row in found] == [False, True]
    with pytest.raises(EvaluationError, match=r"leave no room .* Use a smaller --harness-tokens"):
        score(tmp_path / "more", one(task), small, Generation())


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tsv", "no number\n", "line 1 is not QUESTION, tab, NUMBER"),
        ("a.tsv", "a\t1\nb\tmany\n", "line 2 is not QUESTION"),
        ("a.jsonl", '{"question": "x"}\n[]\n', "line 2 is no JSON object"),
        ("a.jsonl", "", "holds no questions"),
        ("a.csv", "question,answer_number\na\n", "line 2: row 1 has fewer fields"),
        ("a.csv", 'question\n"a\n', "cannot be read"),
        ("a.parquet", "PAR", "mgsm_native_cot_sw"),
        ("a.txt", "x", "ends in .csv, .jsonl, .parquet, .tsv"),
        ("a.jsonl", '{"querstion": "x", "answer": null, "answer_number": 1}\n', "columns"),
        ("a.jsonl", '{"question": "x", "answer": null, "answer_number": null}\n', "is no number"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    task = HarnessTask("sw", "mgsm_native_cot_sw", file=path, numbers=True)
    with pytest.raises(EvaluationError) as caught:
        score(tmp_path, one(task), Speaking({"": ""}))
    assert said in str(caught.value)


def test_a_dataset_that_cannot_be_had(tmp_path: Path, small: HFBackend) -> None:
    with pytest.raises(EvaluationError, match=r"belebele_swh_Latn: .* \(network or cache\)\?"):
        score(tmp_path, one(HarnessTask("sw", "belebele_swh_Latn")), small)
    with pytest.raises(EvaluationError, match="no task 'belebele_swa_Latn'; did you mean"):
        score(tmp_path, one(HarnessTask("sw", "belebele_swa_Latn")), small)
    assert not requests_in(tmp_path)


def test_a_cluster_that_is_no_field(tmp_path: Path, small: HFBackend) -> None:
    task, _ = belebele(tmp_path, 2)
    wrong = HarnessTask("sw", task.task, file=task.file, cluster="lnik")
    with pytest.raises(EvaluationError, match=r"no field 'lnik' .* did you mean 'link'"):
        score(tmp_path, one(wrong), small)


def test_only_the_folders_that_are_needed_are_indexed() -> None:
    known = _manager([HarnessTask("sw", "mgsm_native_cot_sw")]).all_tasks
    assert "mgsm_native_cot_te" in known and not any("mmlu" in name for name in known)


def test_a_task_of_ones_own_in_two_languages(tmp_path: Path, small: HFBackend) -> None:
    """Local files, settings beside them, and translations under one name when pooled."""
    asked = questions("sum")[:3]
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["q", "a"], *([q.prompt, q.answer] for q in asked)])
    settings = {
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"]},
        "metric_list": [{"metric": "exact_match"}],
    }
    tasks = {
        code: HarnessTask(code, f"own_{code}", settings=settings, file=path) for code in ("x", "y")
    }
    suite = Suite(("x", "y"), (Benchmark("own", "own", Measure.ACCURACY, tasks=tasks),))
    counting = Counting(small.harness())
    found = score(tmp_path, suite, counting, Generation(512, 16))
    assert len(counting.asked) == 3  # the same prompts: asked for once
    assert [row["cluster"] for row in found] == ["0", "1", "2"] * 2
    for row, q in zip(found, [*asked, *asked], strict=True):
        assert row["right"] == row["metrics"]["exact_match"] == float(row["response"] == q.answer)
    wrong = {code: HarnessTask(code, "own", settings={**settings, "doc_to_txt": ""}, file=path)
             for code in ("x",)}  # fmt: skip
    with pytest.raises(EvaluationError, match="doc_to_txt"):
        score(
            tmp_path / "w",
            Suite(("x",), (Benchmark("o", "o", Measure.ACCURACY, tasks=wrong),)),
            small,
        )


@pytest.mark.parametrize(
    ("tokens", "limit", "cut"),
    [(1024, 1024, True), (1004, 1024, True), (1003, 1024, False), (12, 12, True), (11, 12, False)],
)
def test_what_counts_as_cut(tokens: int, limit: int, cut: bool) -> None:
    assert _is_cut(tokens, limit) is cut
    assert not _is_cut(tokens, 0)
