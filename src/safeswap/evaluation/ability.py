"""Ability through lm-evaluation-harness 0.4.13: its tasks and metrics, our storage and bookkeeping.

What lm-eval would get wrong here is kept away from it:

* its request cache does not know which model an answer came from; ours (`StoredModel`) files each
  answer under the model's digest, the templated prompt and the generation settings, and goes on
  after a stop;
* its default of 256 new tokens cuts reasoning off; ours is 1024, and cut answers are counted;
* what does not fit into a model's positions it cuts at the left with a warning; here it is counted;
* its MGSM filter knows only the digits 0 to 9 and reads 18.00 as 1800; `numbers.final_number` gives
  a verdict of its own beside lm-eval's metric;
* the tag ``mgsm_cot_native`` would run English too; tasks are named one by one;
* local files replace a task's dataset by an override inside an inline group, the only place where
  0.4.13 heeds one; every row of a file must be asked, none is dropped for a subject nobody knows;
* `datasets` reads "None" or "007" in a CSV as nothing and as 7; files are read as text here;
* its standard errors are 0 at 0 % and 100 %; intervals are made from the stored rows instead.
"""

from __future__ import annotations

import csv
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lm_eval
import pyarrow  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
from datasets.exceptions import DatasetsError
from jinja2 import TemplateError
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.arms import Arm
from safeswap.evaluation.collect import Generation, Tell
from safeswap.evaluation.numbers import final_number, same_number
from safeswap.evaluation.responders import Responder
from safeswap.evaluation.splits import Split
from safeswap.evaluation.store import REQUESTS, SCORES, Journal, Results, Row, digest_of, read_rows
from safeswap.evaluation.suites import Benchmark, HarnessTask, Suite

AT_ONCE = {"loglikelihood": 1024, "generate_until": 128}
"""Requests between two writes to the disk."""

# Task families → folder of lm-eval's tasks: to index those of 0.4.13 as a whole takes ten seconds.
_FOLDERS = {
    "mmmlu_": "openai-mmmlu",
    "global_mmlu_": "global_mmlu",
    "belebele_": "belebele",
    "mgsm_": "mgsm",
}
_FORMATS = (".csv", ".jsonl", ".parquet", ".tsv")
_COMPLETE = "complete"
_LOADING = (
    OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, TemplateError,
    DatasetsError,
)  # fmt: skip
"""What lm-eval raises for a dataset that cannot be had, or one with other columns."""


class StoredModel(LM):  # type: ignore[misc]
    """An lm-eval model whose answers are stored as they come, and asked for only once."""

    def __init__(self, inner: Any, journal: Journal, model: str, template: str, tell: Tell) -> None:
        super().__init__()
        self.inner, self.journal, self.tell = inner, journal, tell
        self._about = [model, template]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood of the continuation, whether it is the greedy one) per request."""
        return [
            (row["answer"][0], row["answer"][1]) for row in self._rows("loglikelihood", requests)
        ]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The generated text per request."""
        return [row["answer"] for row in self._rows("generate_until", requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Not used by any task here."""
        raise NotImplementedError("no benchmark here asks for rolling log-likelihoods")

    def key(self, kind: str, arguments: Any) -> str:
        """What an answer is filed under: model, template, kind, prompt and settings."""
        return digest_of([*self._about, kind, list(arguments)])

    def apply_chat_template(self, *arguments: Any, **named: Any) -> str:
        """As the inner model does."""
        return str(self.inner.apply_chat_template(*arguments, **named))

    @property
    def tokenizer_name(self) -> str:
        """As the inner model says."""
        return str(self.inner.tokenizer_name)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """As the inner model says."""
        found = self.inner.chat_template(chat_template)
        return None if found is None else str(found)

    def _rows(self, kind: str, requests: list[Any]) -> list[Row]:
        keys = [self.key(kind, request.args) for request in requests]
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in self.journal}
        # Longest first: batches of like length, and what does not fit shows at once.
        todo = sorted(missing.items(), key=lambda pair: -len(str(pair[1].args[0])))
        if kind == "generate_until" and todo:
            self._refuse_no_room(todo[0][1].args[1])
        with self.tell(f"lm-eval: {kind.replace('_', ' ')}", len(todo)) as advance:
            for start in range(0, len(todo), AT_ONCE[kind]):
                part = todo[start : start + AT_ONCE[kind]]
                answers = getattr(self.inner, kind)([r for _, r in part], disable_tqdm=True)
                self.journal.add(
                    self._row(key, kind, request, answer)
                    for (key, request), answer in zip(part, answers, strict=True)
                )
                advance(len(part))
        return [self.journal.rows[key] for key in keys]

    def _row(self, key: str, kind: str, request: Any, answer: Any) -> Row:
        row: Row = {"key": key, "kind": kind, "task": request.task_name, "doc": request.doc_id}
        context, second = request.args
        if kind == "loglikelihood":
            row["answer"] = [float(answer[0]), bool(answer[1])]
            room = self._positions() + 1  # the last token is only predicted
            if self._longer(context + second, room):
                row["prompt_cut"] = True
            return row
        limit = int(second.get("max_gen_toks", 0))
        tokens = self._tokens(answer)
        if self._longer(context, self._positions() - limit):
            row["prompt_cut"] = True
        return {**row, "answer": answer, "tokens": tokens, "cut": bool(limit and tokens >= limit)}

    def _refuse_no_room(self, settings: dict[str, Any]) -> None:
        limit, positions = int(settings.get("max_gen_toks", 0)), self._positions()
        if limit >= positions:
            raise EvaluationError(
                f"{limit} new tokens leave no room for the prompt in the model's {positions} "
                "positions. Use a smaller --harness-tokens (for every model)."
            )

    def _positions(self) -> int:
        return int(getattr(self.inner, "max_length", None) or sys.maxsize)

    def _longer(self, text: str, room: int) -> bool:
        """Whether a text has more tokens than there is room; only long ones are encoded."""
        return len(text.encode(errors="replace")) > room and self._tokens(text) > room

    def _tokens(self, text: str) -> int:
        return len(self.inner.tok_encode(text, add_special_tokens=False)) if text else 0


def missing_tasks(results: Results, arm: str, suite: Suite) -> list[tuple[Benchmark, HarnessTask]]:
    """What lm-eval has not scored yet for an arm."""
    done = {row["key"] for row in read_rows(results.folder / arm / SCORES)}
    return [
        (benchmark, task)
        for benchmark in suite.benchmarks
        for code, task in benchmark.tasks.items()
        if f"{benchmark.name}/{code}/{_COMPLETE}" not in done
    ]


def score_tasks(
    results: Results,
    arm: Arm,
    suite: Suite,
    responder: Responder,
    generation: Generation,
    tell: Tell,
) -> int:
    """Run what is missing, one task after the other; how many questions were scored.

    Zero-shot; the chat template is on for every arm or off for every arm.

    Raises:
        EvaluationError: lm-eval knows no such task, its dataset cannot be had, the backend cannot
            score choices.
    """
    todo = missing_tasks(results, arm.name, suite)
    if not todo:
        return 0
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = _manager([task for _, task in todo])
    folder, count = results.folder / arm.name, 0
    with (
        Journal(folder / REQUESTS) as requests,
        Journal(folder / SCORES) as scores,
        _no_other_output(),
        TemporaryDirectory(prefix="safeswap-tasks-") as scratch,
    ):
        model = StoredModel(responder.harness(), requests, arm.digest, generation.template, tell)
        for benchmark, task in todo:
            samples = _evaluate(model, manager, task, generation, Path(scratch), suite.split)
            rows = list(_score_rows(benchmark, task, samples, model))
            prefix = f"{benchmark.name}/{task.language}"
            scores.add(row for row in rows if row["key"] not in scores)
            scores.add([{"key": f"{prefix}/{_COMPLETE}", "items": len(rows)}])
            count += len(rows)
    return count


def _manager(tasks: Sequence[HarnessTask]) -> TaskManager:
    """An index of the task folders that are needed."""
    root = Path(lm_eval.__file__).parent / "tasks"
    folders: set[str] = set()
    for task in tasks:
        if "output_type" in task.settings:
            continue  # a whole task of the user's own
        found = [name for prefix, name in _FOLDERS.items() if task.task.startswith(prefix)]
        if not found:
            return TaskManager()
        folders.add(str(root / found[0]))
    return TaskManager(include_defaults=False, include_path=sorted(folders))


def _evaluate(
    model: StoredModel,
    manager: TaskManager,
    task: HarnessTask,
    generation: Generation,
    scratch: Path,
    split: Split | None,
) -> dict[str, list[dict[str, Any]]]:
    """lm-eval's samples, by its task names; of one side of a split, or all."""
    known = manager.all_tasks
    if task.task not in known and "output_type" not in task.settings:
        raise EvaluationError(
            f"lm-eval {lm_eval.__version__} has no task {task.task!r}{nearest(task.task, known)}"
        )
    local = None if task.file is None else _as_parquet(task.file, scratch)
    try:
        spec = _spec(manager, task, local)
        chosen = None if split is None else _on_side(manager, spec, task, split)
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=[spec],
            task_manager=manager,
            samples=chosen,
            num_fewshot=0,
            log_samples=True,
            apply_chat_template=generation.template != "off",
            gen_kwargs={"max_gen_toks": generation.harness_tokens},
            bootstrap_iters=0,
        )
    except _LOADING as error:
        place = "its dataset at hand (network or cache)" if local is None else f"{task.file} in the"
        place += "" if local is None else " columns that the task reads"
        raise EvaluationError(
            f"lm-eval's task {task.task}: {type(error).__name__}: {error}. Is {place}?"
        ) from error
    samples: dict[str, list[dict[str, Any]]] = found["samples"]
    if chosen is not None:  # lm-eval asks everything where it is given an empty list
        return {name: listed for name, listed in samples.items() if chosen[name]}
    asked = sum(len({sample["doc_id"] for sample in listed}) for listed in samples.values())
    if not asked:
        raise EvaluationError(f"lm-eval's task {task.task}: its dataset holds no questions.")
    if local is not None and asked != (rows := pyarrow.parquet.read_metadata(local).num_rows):
        raise EvaluationError(
            f"{task.file}: {asked} of its {rows} rows are asked by lm-eval's task {task.task}; the "
            "others belong to none of its parts. Check the column Subject."
        )
    return samples


def _on_side(
    manager: TaskManager, spec: str | dict[str, Any], task: HarnessTask, split: Split
) -> dict[str, list[int]]:
    """The numbers of the questions on one side of a split, by lm-eval's names of the tasks."""
    loaded = manager.load([spec])["tasks"]
    sides = {
        name: [
            number
            for number, doc in enumerate(one.eval_docs)
            if split.holds(_cluster(task, name, number, doc))
        ]
        for name, one in loaded.items()
    }
    if not any(sides.values()):
        raise EvaluationError(
            f"lm-eval's task {task.task}: none of its questions is on the side {split}. Choose "
            "another part of dev questions or another seed."
        )
    return sides


def _cluster(task: HarnessTask, name: str, number: int, doc: Mapping[str, Any]) -> str:
    """What a question is grouped by: the field that the benchmark names, or its number, by which it
    is found again in other languages."""
    if task.cluster is None:
        return f"{name.removeprefix(task.task).strip('_')}/{number}".strip("/")
    if task.cluster not in doc:
        raise EvaluationError(
            f"{task.task}: the questions have no field {task.cluster!r} to group them by"
            f"{nearest(task.cluster, list(doc))}"
        )
    return str(doc[task.cluster])


def _spec(manager: TaskManager, task: HarnessTask, local: Path | None) -> str | dict[str, Any]:
    """What lm-eval is given: the task's name, or an inline group that overrides its settings."""
    if local is None and not task.settings:
        return task.task
    overrides = dict(task.settings)
    if local is not None:
        splits = dict.fromkeys(("test", "train", "validation", "dev"), str(local))
        overrides |= {
            "dataset_path": "parquet",
            "dataset_name": None,
            # a cache of its own: nothing is left behind, and no file is taken for an older one
            "dataset_kwargs": {"data_files": splits, "cache_dir": str(local.parent)},
        }
    if "output_type" in overrides:  # a whole task of the user's own: nothing to override
        return {"task": task.task, **overrides}
    leaves = [name for name in manager.all_subtasks if name.startswith(f"{task.task}_")]
    if local is not None and (subjects := _subjects(local)):
        # lm-eval fails on a part without questions; a subject that nobody knows is counted later
        leaves = [n for n in leaves if n.removeprefix(f"{task.task}_") in subjects] or leaves
    names = [task.task] if task.task in manager.all_subtasks or not leaves else leaves
    return {
        "group": f"safeswap_{task.task}",
        "task": [{"task": name, **overrides} for name in names],
    }


def _subjects(local: Path) -> set[str]:
    """The subjects in a file of MMMLU's or Global-MMLU's columns, less what follows the name."""
    for column in {"Subject", "subject"} & set(pyarrow.parquet.read_schema(local).names):
        values = pyarrow.parquet.read_table(local, columns=[column])[column].to_pylist()
        return {str(value).partition("_test")[0] for value in values}
    return set()


def _as_parquet(file: Path, scratch: Path) -> Path:
    """A local file with its values as they are written, where `datasets` guesses no types.

    CSV has a header; TSV is MGSM's own form, question and number without header or quoting.
    """
    readers = {".csv": _csv_rows, ".tsv": _mgsm_rows, ".jsonl": _json_rows}
    kind = file.suffix.lower()
    if kind not in _FORMATS:
        raise EvaluationError(
            f"{file}: a file for lm-eval ends in {', '.join(_FORMATS)}{nearest(kind, _FORMATS)}"
        )
    if kind == ".parquet":
        return file.resolve()
    try:
        rows = list(readers[kind](file))
        if not rows:
            raise EvaluationError(f"{file}: holds no questions.")
        target = scratch / f"{len(list(scratch.iterdir()))}-{file.stem}.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), target)
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{file}: is not UTF-8 (byte {error.start}). Save it so.") from error
    except (OSError, csv.Error, pyarrow.ArrowException) as error:
        raise EvaluationError(f"{file}: cannot be read ({error}).") from error
    return target


def _csv_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as source:
        for number, row in enumerate(csv.DictReader(source, strict=True), 1):
            if None in row or None in row.values():
                raise EvaluationError(
                    f"{file}: row {number} has more or fewer fields than the header. A comma or a "
                    "quote in a field must be quoted."
                )
            yield row


def _json_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig") as source:
        for number, line in enumerate(source, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise EvaluationError(f"{file}: line {number} is no JSON object.")
            yield row


def _mgsm_rows(file: Path) -> Iterator[dict[str, Any]]:
    with file.open(encoding="utf-8-sig", newline="") as source:
        for number, row in enumerate(csv.reader(source, delimiter="\t", quoting=csv.QUOTE_NONE), 1):
            value = final_number(row[1]) if len(row) == 2 else None
            if value is None or not row[0].strip():
                raise EvaluationError(
                    f"{file}: line {number} is not QUESTION, tab, NUMBER (MGSM's own form)."
                )
            # A string, since lm-eval compares texts: the target is "18", never "18.0".
            yield {"question": row[0], "answer": None, "answer_number": _written(value)}


def _written(value: Decimal) -> str:
    """18.00 as 18, and 1800 never as 1.8E+3."""
    return f"{value.normalize():f}"


def _score_rows(
    benchmark: Benchmark,
    task: HarnessTask,
    samples: dict[str, list[dict[str, Any]]],
    model: StoredModel,
) -> Iterator[Row]:
    """One row per question; several filters of one question are joined."""
    for name, listed in samples.items():
        by_question: dict[int, list[dict[str, Any]]] = {}
        for sample in listed:
            by_question.setdefault(sample["doc_id"], []).append(sample)
        for number, group in sorted(by_question.items()):
            first = group[0]
            row: Row = {
                "key": f"{benchmark.name}/{task.language}/{name}/{number}",
                "benchmark": benchmark.name,
                "language": task.language,
                "id": f"{name}/{number}",
                "metrics": _metrics(group),
                "doc_hash": first["doc_hash"],
                "prompt_hash": first["prompt_hash"],
                "cluster": _cluster(task, name, number, first["doc"]),
            }
            if any(stored.get("prompt_cut") for stored in _stored(first, model)):
                row["prompt_cut"] = True
            yield row | _verdict(benchmark, task, first, row["metrics"], model)


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
) -> Row:
    """Whether the question is right: by value for numbers, by lm-eval's first metric otherwise."""
    row: Row = {"right": int(next(iter(metrics.values())) > 0.5)}
    text = _text(sample)
    if not isinstance(text, str):
        return row
    row |= {"response": text, "cut": any(stored.get("cut") for stored in _stored(sample, model))}
    if task.numbers:
        gold = sample["doc"].get("answer_number", sample["target"])
        read, expected = final_number(text, task.language), final_number(str(gold))
        if expected is None:
            raise EvaluationError(
                f"{benchmark.name}, {task.language}: the right answer of question "
                f"{sample['doc_id']} is {gold!r}, which is no number. Check answer_number in "
                f"{task.file or 'the dataset'}."
            )
        row |= {"number": None if read is None else _written(read), "expected": _written(expected)}
        row["right"] = int(same_number(read, expected))
    return row


@contextmanager
def _no_other_output() -> Iterator[None]:
    """No progress bars of `datasets` and lm-eval between ours, and nothing asked of git and pip:
    lm-eval lists every installed package for each task, which takes it longer than a small one."""
    import datasets
    from lm_eval import evaluator
    from lm_eval.api import task

    shown = datasets.is_progress_bar_enabled()
    quiet: dict[tuple[Any, str], Any] = {
        (task, "tqdm"): partial(task.tqdm, disable=True),
        (evaluator, "get_git_commit_hash"): lambda: None,
        (evaluator, "add_env_info"): lambda storage: None,
    }
    kept = {place: getattr(*place) for place in quiet}
    datasets.disable_progress_bars()
    for (module, name), other in quiet.items():
        setattr(module, name, other)
    try:
        yield
    finally:
        for (module, name), own in kept.items():
            setattr(module, name, own)
        if shown:
            datasets.enable_progress_bars()
