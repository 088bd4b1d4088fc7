"""From lm-eval's samples to the rows of scores.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.backends.thoughts import apart
from safeswap.evaluation.benchmarks.prompts import identity_of
from safeswap.evaluation.benchmarks.registry import HarnessTask
from safeswap.evaluation.benchmarks.suites import Benchmark
from safeswap.evaluation.harness.cached_lm import StoredModel
from safeswap.evaluation.harness.final_number import final_number, same_number
from safeswap.evaluation.harness.local_data import written
from safeswap.evaluation.results.journal import Row
from safeswap.evaluation.results.rows import ScoreParts, ScoreRow


def cluster_of(task: HarnessTask, name: str, number: int, doc: Mapping[str, Any]) -> str:
    """What a question is grouped by: the field that the benchmark names, or its number, by which it
    is found again in other languages.
    """
    if task.cluster is None:
        return f"{name.removeprefix(task.task).strip('_')}/{number}".strip("/")
    if task.cluster not in doc:
        raise EvaluationError(
            f"{task.task}: the questions have no field {task.cluster!r} to group them by"
            f"{nearest(task.cluster, list(doc))}"
        )
    return str(doc[task.cluster])


def score_rows(
    benchmark: Benchmark,
    task: HarnessTask,
    samples: dict[str, list[dict[str, Any]]],
    model: StoredModel,
) -> Iterator[ScoreRow]:
    """One row per question; several filters of one question are joined."""
    for name, listed in samples.items():
        by_question: dict[int, list[dict[str, Any]]] = {}
        for sample in listed:
            by_question.setdefault(sample["doc_id"], []).append(sample)
        for number, group in sorted(by_question.items()):
            first = group[0]
            metrics = _metrics(group)
            row: ScoreRow = {
                "key": f"{benchmark.name}/{task.language}/{name}/{number}",
                "benchmark": benchmark.name,
                "language": task.language,
                "id": f"{name}/{number}",
                "metrics": metrics,
                "doc_hash": first["doc_hash"],
                "prompt_hash": first["prompt_hash"],
                "question": _identity(first["doc"]),
                "cluster": cluster_of(task, name, number, first["doc"]),
                **_verdict(benchmark, task, first, metrics, model),
            }
            yield row


_ASKED = (
    *("question", "flores_passage", "passage", "a", "b", "c", "d"),
    *("mc_answer1", "mc_answer2", "mc_answer3", "mc_answer4"),
    *("premise", "choice1", "choice2"),  # XCOPA's question is but "cause" or "effect"
    *("instruction", "ctx_a", "ctx_b"),
)


def _identity(doc: Mapping[str, Any]) -> str:
    """What tells a question again, whatever benchmark asks it: its words, with those of its passage
    and choices where it has them; where no field is called so, its longest text.
    """
    texts = {key.lower(): value for key, value in doc.items() if isinstance(value, str)}
    named = [texts[key] for key in _ASKED if texts.get(key)]
    return identity_of("\n".join(named) or max(texts.values(), key=len, default=str(dict(doc))))


def _stored(sample: dict[str, Any], model: StoredModel) -> Iterable[Row]:
    """The stored requests that a question was scored from."""
    kind = "generate_until" if isinstance(_text(sample), str) else "loglikelihood"
    return [model.journal.rows[model.key(kind, one)] for one in sample["arguments"]]


def _text(sample: dict[str, Any]) -> Any:
    first = sample["resps"][0]
    return first[0] if isinstance(first, list) else first


def _metrics(group: list[dict[str, Any]]) -> dict[str, float]:
    """lm-eval's own metrics of one question; those of several filters carry the filter's name."""
    found: dict[str, float] = {}
    for sample in group:
        for metric in sample["metrics"]:
            name = metric if len(group) == 1 else f"{metric},{sample['filter']}"
            found[name] = float(sample[metric])
    return found


def _verdict(
    benchmark: Benchmark,
    task: HarnessTask,
    sample: dict[str, Any],
    metrics: dict[str, float],
    model: StoredModel,
) -> ScoreParts:
    """Whether the question is right: by value for numbers, by lm-eval's first metric otherwise."""
    right = int(next(iter(metrics.values())) > 0.5)
    row: ScoreParts = {"right": right}
    if any(stored.get("prompt_cut") for stored in _stored(sample, model)):
        row = {"prompt_cut": True, "right": right}
    text = _text(sample)
    if not isinstance(text, str):
        return row
    row |= {"response": text, "cut": any(stored.get("cut") for stored in _stored(sample, model))}
    if task.numbers:
        gold = sample["doc"].get("answer_number", sample["target"])
        answer = apart(text)[0]  # a thought is no answer, and an open one has none
        read, expected = final_number(answer, task.language), final_number(str(gold))
        if expected is None:
            raise EvaluationError(
                f"{benchmark.name}, {task.language}: the right answer of question "
                f"{sample['doc_id']} is {gold!r}, which is no number. Check answer_number in "
                f"{task.file or 'the dataset'}."
            )
        row |= {"number": None if read is None else written(read), "expected": written(expected)}
        row["right"] = int(same_number(read, expected))
    return row
