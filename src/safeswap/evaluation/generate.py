"""Stage one: every model answers every prompt, and every answer is stored.

No judge is loaded here: model and judge never share a GPU's memory. A run that was stopped goes on
with what is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import (
    BACKENDS,
    Backend,
    BackendOptions,
    Chat,
    Reply,
    find_backend,
    open_backend,
)
from safeswap.evaluation.backends.thoughts import apart
from safeswap.evaluation.benchmarks.prompts import Prompt
from safeswap.evaluation.benchmarks.suites import Benchmark, Suite, identities
from safeswap.evaluation.models import EvaluatedModel
from safeswap.evaluation.results.anew import remove_model
from safeswap.evaluation.results.journal import Journal, read_rows
from safeswap.evaluation.results.rows import CellSettings, ResponseRow, Settings
from safeswap.evaluation.results.store import (
    MODEL,
    RESPONSES,
    Results,
    digest_of,
    holds_answers,
    read_json,
    write_json,
)

FORMAT = "safeswap-results/1"
_log = logging.getLogger("safeswap.evaluation")
Thinking = Literal["auto", "on", "off"]
ShowProgress = Callable[[str, int], Any]
"""Called with the total: ``with progress(title, total) as advance`` shows items, rate, rest."""


@dataclass(frozen=True, slots=True)
class Generation:
    """What shapes a response besides model and prompt.

    Attributes:
        max_new_tokens: where responses to prompts are cut off; cut ones are counted.
        harness_tokens: the same for lm-eval's generating tasks (at least 1024 for reasoning).
        template: ``on``, ``off``, or the digest of the template file used for every model.
        thinking: ``on`` or ``off`` is told to the chat template, ``auto`` leaves it alone.
        think_tokens: room for a thought, beside that for the answer.
        cut_thoughts: a thought that is open after ``think_tokens`` is closed, and the answer goes
            on; else it may use up the answer's room.
    """

    max_new_tokens: int = 512
    harness_tokens: int = 1024
    template: str = "on"
    thinking: Thinking = "auto"
    think_tokens: int = 0
    cut_thoughts: bool = False

    def __post_init__(self) -> None:
        if self.cut_thoughts and not self.think_tokens:
            raise EvaluationError(
                "thoughts are cut after so many tokens: give their number (--think-tokens N, "
                "think_tokens) with --cut-thoughts (cut_thoughts)."
            )

    @property
    def told(self) -> bool | None:
        """What chat templates are told of ``enable_thinking``; None is nothing."""
        return {"auto": None, "on": True, "off": False}[self.thinking]

    def as_dict(self) -> dict[str, Any]:
        """Plain data; greedy decoding is said, since it is a setting too."""
        plain: dict[str, Any] = {
            "decoding": "greedy",
            "max_new_tokens": self.max_new_tokens,
            "harness_tokens": self.harness_tokens,
            "chat_template": self.template,
        }
        # Said only where they were set: folders of earlier versions go on.
        if self.thinking != "auto":
            plain["thinking"] = self.thinking
        if self.cut_thoughts:
            plain["cut_thoughts"] = True
        return plain | ({"think_tokens": self.think_tokens} if self.think_tokens else {})


def settings_of(suite: Suite, generation: Generation) -> Settings:
    """What all models of a results folder share, as its settings.json holds it.

    A cell is a benchmark in a language: the digest of its prompts, or its task, or why it is empty.
    """
    cells: dict[str, CellSettings] = {}
    for benchmark in suite.benchmarks:
        for code in suite.languages:
            cells[f"{benchmark.name}/{code}"] = _cell_settings(benchmark, code)
    settings: Settings = {"format": FORMAT, "generation": generation.as_dict(), "cells": cells}
    settings["prompts"] = {cell: " ".join(found) for cell, found in identities(suite).items()}
    if suite.given:
        settings["suites"] = [suite.given]
    if suite.split is not None:
        settings["split"] = suite.split.as_dict()
    if suite.limit is not None:
        settings["limit"] = suite.limit.as_dict()
    return settings


def _cell_settings(benchmark: Benchmark, code: str) -> CellSettings:
    cell: CellSettings = {"title": benchmark.title, "measures": benchmark.measures.value}
    if code in benchmark.absent:
        return {**cell, "absent": benchmark.absent[code]}
    if benchmark.prompts is not None:
        prompts = benchmark.prompts.in_languages([code])
        asked = [(p.id, p.text, p.reference) for p in prompts]
        return {**cell, "items": len(prompts), "prompts": digest_of(asked)}
    task = benchmark.tasks[code]
    cell |= {"task": task.task, "cluster": task.cluster, "numbers": task.numbers}
    if task.settings:
        cell["task_settings"] = digest_of(task.settings)
    if task.file is not None:
        cell["file"] = digest_of(task.file.read_bytes().hex())
    if task.label:
        cell["label"] = task.label
    return cell


@contextmanager
def loaded(
    results: Results,
    model: EvaluatedModel,
    backend: str,
    options: BackendOptions,
    *,
    overwrite: bool = False,
) -> Iterator[Backend]:
    """A model, loaded, and its model.json written.

    Args:
        overwrite: answers of another model, backend or dtype under its name are removed.

    Raises:
        EvaluationError: the results hold another model under this name, or its answers from another
            backend or in another dtype; or it does not load.
    """
    refuse_other_model(results, model, overwrite=overwrite)
    engine = open_backend(model.location, backend, options)
    try:
        write_model_record(results, model, engine.description, overwrite=overwrite)
        yield engine
    finally:
        engine.close()


def write_model_record(
    results: Results,
    model: EvaluatedModel,
    description: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write a loaded model's model.json, unless the results hold another one's answers.

    Args:
        description: its backend's own.
        overwrite: those are removed then, and the model starts anew.

    Raises:
        EvaluationError: another model under this name, another backend or dtype.
    """
    refuse_other_model(results, model, overwrite=overwrite)
    refuse_other_backend(results, model, description, overwrite=overwrite)
    path = results.folder / model.name / MODEL
    record: dict[str, Any] = {**model.as_dict(), **description}
    if path.exists() and holds_answers(path.parent):
        record |= _earlier_versions(read_json(path), record)
    write_json(path, record)


_VERSIONS = ("vllm", "transformers", "torch")


def _earlier_versions(known: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[str]]:
    """What a model's earlier answers were made with, where that is not what makes the next."""
    was, new = (
        ", ".join(f"{name} {one[name]}" for name in _VERSIONS if one.get(name))
        for one in (known, now)
    )
    before = known.get("earlier_versions")
    kept = [text for text in before if isinstance(text, str)] if isinstance(before, list) else []
    kept += [was] if was and was != new else []
    return {"earlier_versions": list(dict.fromkeys(kept))} if kept else {}


def refuse_other_model(results: Results, model: EvaluatedModel, *, overwrite: bool = False) -> None:
    """Raise when the results hold answers of another model under this name.

    Args:
        overwrite: remove those instead.
    """
    path = results.folder / model.name / MODEL
    if not holds_answers(path.parent):
        return
    if path.exists() and (known := read_json(path)).get("digest") != model.digest:
        text = (
            f"{path.parent}: holds answers of another model called {model.name} "
            f"({known.get('source')}, digest {known.get('digest')}; now {model.source}, "
            f"{model.digest})."
        )
        _anew(path.parent, f"{text} Give this one another name: NAME={model.source}", overwrite)


def _anew(model: Path, refusal: str, overwrite: bool) -> None:
    if not overwrite:
        raise EvaluationError(f"{refusal}, or --overwrite to start it anew.")
    remove_model(model)
    _log.warning(f"{model}: held other answers, and is started anew")


def refuse_other_backend(
    results: Results, model: EvaluatedModel, now: Mapping[str, Any], *, overwrite: bool = False
) -> None:
    """One model's answers come from one backend in one dtype: greedy answers differ between them,
    and some dtype's rounding would pass for a difference between models.

    Args:
        now: the backend and the dtype, as far as they are known.
        overwrite: remove the other answers instead.

    Raises:
        EvaluationError: the results hold answers from another backend or in another dtype.
    """
    path = results.folder / model.name / MODEL
    if not holds_answers(path.parent):
        return
    known = read_json(path)
    for key in ("backend", "dtype"):
        if key in now and known.get(key, now[key]) != now[key]:
            return _anew(
                path.parent,
                f"{path.parent}: holds answers with {key} {known[key]}; this run has "
                f"{now.get(key)}. Use --{key} {known[key]}, or another name: "
                f"{model.name}-{now.get(key)}={model.source}",
                overwrite,
            )
    return None


def missing_prompts(
    results: Results, model: EvaluatedModel, suite: Suite
) -> list[tuple[str, Benchmark, Prompt]]:
    """(key, benchmark, prompt) of what the model has not answered yet."""
    done = {row["key"] for row in read_rows(results.folder / model.name / RESPONSES)}
    return [found for found in _every_prompt(suite) if found[0] not in done]


def collect_responses(
    results: Results,
    model: EvaluatedModel,
    suite: Suite,
    engine: Backend,
    generation: Generation,
    progress: ShowProgress,
) -> int:
    """Answer what is missing, storing each batch as it is done; how many were answered.

    Raises:
        EvaluationError: the backend failed; what was answered before is stored.
    """
    settings = digest_of(generation.as_dict())
    with Journal(results.folder / model.name / RESPONSES) as journal:
        todo = [found for found in _every_prompt(suite) if found[0] not in journal]
        chats = [
            Chat(
                ({"role": "user", "content": prompt.text},),
                generation.max_new_tokens + generation.think_tokens,
                thinking=generation.told,
                thought_limit=generation.think_tokens if generation.cut_thoughts else 0,
            )
            for _, _, prompt in todo
        ]
        with progress(f"{model.name}: responses", len(todo)) as advance:
            for index, reply in engine.respond(chats):
                key, benchmark, prompt = todo[index]
                row = _response_row(benchmark, prompt, reply, key, model.digest, settings)
                journal.add([row])
                advance(1)
    return len(todo)


def _response_row(
    benchmark: Benchmark, prompt: Prompt, reply: Reply, key: str, model: str, settings: str
) -> ResponseRow:
    answer, thought = apart(reply.text)
    row: ResponseRow = {
        "key": key,
        "model": model,
        "settings": settings,
        "benchmark": benchmark.name,
        "language": prompt.language,
        "id": prompt.id,
        "prompt": prompt.text,
        "response": answer,
        "prompt_tokens": reply.prompt_tokens,
        "new_tokens": reply.new_tokens,
        "finish_reason": reply.finish_reason,
    }
    if thought:
        row["thought"] = thought
    if prompt.reference:
        row["reference"] = prompt.reference
    if prompt.tags:
        row["tags"] = list(prompt.tags)
    return row


def _every_prompt(suite: Suite) -> Iterator[tuple[str, Benchmark, Prompt]]:
    for benchmark in suite.benchmarks:
        for prompt in benchmark.prompts.prompts if benchmark.prompts else ():
            yield f"{benchmark.name}/{prompt.language}/{prompt.id}", benchmark, prompt


def refuse_uncut(backend: str, generation: Generation) -> None:
    """Refuse thoughts that are to be cut where the backend cannot.

    Raises:
        EvaluationError: names the backends that can.
    """
    if not generation.cut_thoughts or find_backend(backend).cuts_thoughts:
        return
    able = [kind.name for kind in BACKENDS.values() if kind.cuts_thoughts]
    raise EvaluationError(
        f"--cut-thoughts: the backend {backend} has no way to end a thought and let the answer go "
        f"on. Use --backend {' or '.join(able)}; or leave it out, and give room with "
        "--think-tokens. (A server may have a limit of its own, to be set where it is started.)"
    )


def templates_agree(
    models: Sequence[EvaluatedModel], backend: str, options: BackendOptions
) -> None:
    """Check that the chat template is on for every model, or off for every model.

    Raises:
        EvaluationError: some have none; says which, and the ways out.
    """
    one_for_all = not options.use_template or options.chat_template is not None
    if one_for_all or find_backend(backend).remote:
        return
    from safeswap.evaluation.backends.encoding import load_tokenizer

    without = [a.name for a in models if not load_tokenizer(a.location, options).chat_template]
    if without:
        raise EvaluationError(
            f"{', '.join(without)}: has no chat template, and the template must be on for every "
            "model or off for every model. Use --chat-template FILE (one for all, such as the "
            "language expert's chat_template.jinja), or --chat-template off."
        )
