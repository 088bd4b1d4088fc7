"""Stage two: a judge reads the stored responses and its verdicts are stored beside them.

Old responses can be judged again by another judge, or by the same one in another version, without
generating anything: each judge has a file of its own.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Backend, BackendOptions, Chat, open_backend
from safeswap.evaluation.backends.thoughts import apart
from safeswap.evaluation.generate import ShowProgress
from safeswap.evaluation.judges import (
    MAJORITY,
    Judge,
    Judgement,
    MajorityJudge,
    ModelJudge,
    PanelJudge,
    RowJudge,
    make_judge,
    questions_of,
    read_answers,
)
from safeswap.evaluation.models import name_models
from safeswap.evaluation.quality import flag
from safeswap.evaluation.results.anew import remove_verdicts
from safeswap.evaluation.results.journal import Journal
from safeswap.evaluation.results.majority import define_majority
from safeswap.evaluation.results.rows import ResponseRow, VerdictRow
from safeswap.evaluation.results.store import (
    VERDICTS,
    Results,
    file_name,
    read_json,
    read_responses,
    read_verdicts,
    write_json,
)
from safeswap.evaluation.results.verdicts import (
    THOUGHT,
    mark_of,
    marks_of,
    subjects,
    verdicts_of,
    verdicts_path,
)

_log = logging.getLogger("safeswap.evaluation")


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Which judge, and where it runs: the one form in which a judge travels.

    Attributes:
        spec: a judge's hub id or folder, ``rule:FILE.yaml``, or a server's name of a model; empty
            where nothing needs a judge.
        kind: how it is asked, where its name does not tell; one of ``judges.KINDS``.
        backend: where its model runs (``hf``, ``vllm``, ``api``); rules need none.
        options: of that backend.
        of_thought: whether thoughts are judged, and not the answers after them.
    """

    spec: str
    kind: str | None = None
    backend: str = "hf"
    options: BackendOptions = field(default_factory=BackendOptions)
    of_thought: bool = False

    def make(self) -> Judge:
        """The judge; its model is not loaded.

        Raises:
            EvaluationError: there is no such judge.
        """
        return make_judge(self.spec, kind=self.kind)

    @property
    def name(self) -> str | None:
        """What its verdicts are filed under; None where nothing needs a judge."""
        return judge_name(self.make(), self.spec, self.of_thought) if self.spec else None

    @property
    def version(self) -> str:
        """What changes when the judge would judge otherwise."""
        return f"{self.name} {self.make().version}" if self.spec else ""


def judge_models(
    results: Results,
    models: Sequence[str],
    judge: Judge,
    config: JudgeConfig,
    progress: ShowProgress,
    *,
    overwrite: bool = False,
) -> dict[str, int]:
    """Judge what the models answered and the judge has not read yet; model to how many.

    Args:
        judge: as ``config.make()`` gives it.
        config: where it runs, and what it is called.
        overwrite: verdicts of another judge that are filed under its name are removed.

    The judge's model is loaded once, after the last model under test is gone, and not at all when
    everything is judged. A verdict whose response has changed since, or that an earlier version of
    the judge gave, is dropped and made again. ``count_verdicts`` says how many could not be read.
    A majority is recorded, and judges nothing: its verdicts follow from those of its members.

    Raises:
        EvaluationError: the judge does not load or cannot be reached, or another judge's verdicts
            are filed under its name; verdicts so far are stored.
    """
    if isinstance(judge, MajorityJudge):
        _define(results, judge, config, overwrite)
        return {}
    source, backend, options = config.spec, config.backend, config.options
    name = judge_name(judge, source, config.of_thought)
    if name == MAJORITY:
        raise EvaluationError(
            f"judge {source!r}: its verdicts would be filed as {MAJORITY!r}, which is what those "
            "of several judges together are called. Rename the judge's folder or file."
        )
    if overwrite:
        _remove_other_judge(results, models, name, _record_of(judge, config))
    todo = {model: _unjudged(results, model, name, judge) for model in models}
    todo = {model: rows for model, rows in todo.items() if rows}
    if not todo:
        return {}
    about = _record_of(judge, config)
    for model in todo:
        _refuse_other_judge(_about(results, model, name), about)
    engine = None
    if judge.asks_model:
        (asked,) = name_models([f"judge={source}"], backend, options.base_url)
        engine = open_backend(asked.location, backend, options)
    about |= engine.description if engine else {}
    try:
        for model, rows in todo.items():
            write_json(_about(results, model, name), about)
            _judge_rows(verdicts_path(results, model, name), rows, judge, engine, progress, model)
    finally:
        if engine is not None:
            engine.close()
    return {model: len(rows) for model, rows in todo.items()}


def _define(results: Results, judge: MajorityJudge, config: JudgeConfig, overwrite: bool) -> None:
    if config.of_thought:
        raise EvaluationError(
            f"judge {config.spec!r} with thoughts: a majority is of verdicts on answers. Leave "
            "--thoughts out."
        )
    define_majority(results, judge, overwrite=overwrite)


def judge_name(judge: Judge, source: str, of_thought: bool = False) -> str:
    """What a judge's verdicts are filed under: its model's name, or that of its file of rules."""
    if isinstance(judge, MajorityJudge):
        return MAJORITY
    if of_thought:  # another text, another file
        return judge_name(judge, source) + THOUGHT
    if judge.asks_model:
        model = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
        if called := getattr(judge, "called", ""):  # by another policy it is another judge
            model = f"{model}-{called}"
        # verdicts on prompts are no verdicts on responses: they have a file of their own
        return file_name(f"{model}-prompt" if judge.of_prompt else model)
    told = source.removeprefix(f"{judge.name}:")
    return file_name(f"{judge.name}-{Path(told).stem}")


def count_verdicts(results: Results, models: Sequence[str], judge: str) -> dict[str, Counter[str]]:
    """Model to how many of each verdict the judge gave it; many ``unparsed`` are a judge that
    answers nonsense, or that is asked in another way than it was made for.
    """
    return {
        model: Counter(row["verdict"] for row in verdicts_of(results, model, judge).values())
        for model in models
    }


def _record_of(judge: Judge, config: JudgeConfig) -> dict[str, Any]:
    """What tells a judge from others of its name."""
    about = {"judge": judge.name, "source": config.spec, "version": judge.version}
    if judge.asks_model:
        named = [f"judge={config.spec}"]
        about["digest"] = name_models(named, config.backend, config.options.base_url)[0].digest
    return about


def _is_other_judge(path: Path, now: Mapping[str, Any]) -> bool:
    known = read_json(path) if path.exists() else now
    return any(known.get(key) != now.get(key) for key in ("judge", "digest"))


def _remove_other_judge(
    results: Results, models: Sequence[str], name: str, now: Mapping[str, Any]
) -> None:
    for model in models:
        if _is_other_judge(_about(results, model, name), now):
            remove_verdicts(results.folder / model, name)
            _log.warning(f"{model}: verdicts of another judge called {name} were removed")


def unjudged(results: Results, model: str, config: JudgeConfig) -> list[ResponseRow]:
    """The responses of a model that a judge has not read yet.

    Raises:
        EvaluationError: no such judge, or damaged rows.
    """
    judge = config.make()
    if isinstance(judge, MajorityJudge):  # it reads nothing itself
        return []
    return _unjudged(results, model, judge_name(judge, config.spec, config.of_thought), judge)


def _refuse_other_judge(path: Path, now: dict[str, Any]) -> None:
    if _is_other_judge(path, now):
        known = read_json(path)
        raise EvaluationError(
            f"{path}: verdicts of another judge are filed under this name ({known.get('judge')}, "
            f"{known.get('source')}, digest {known.get('digest')}; now {now['judge']}, "
            f"{now['source']}, {now.get('digest')}). Rename the new judge's folder, or judge anew "
            "with --overwrite."
        )


def _unjudged(results: Results, model: str, name: str, judge: Judge) -> list[ResponseRow]:
    responses = list(subjects(read_responses(results.folder / model), name))
    now = marks_of(responses)
    done = {
        row["key"]
        for row in read_verdicts(verdicts_path(results, model, name))
        if _is_fresh(row, now, judge)
    }
    return [row for row in responses if row["key"] not in done]


def _is_fresh(verdict: VerdictRow, now: Mapping[str, str], judge: Judge) -> bool:
    made_of = (verdict["response_digest"], verdict["judge_version"])
    return made_of == (now.get(verdict["key"]), judge.version)


def _judge_rows(
    path: Path,
    rows: list[ResponseRow],
    judge: Judge,
    engine: Backend | None,
    progress: ShowProgress,
    model: str,
) -> None:
    now = marks_of(rows)
    with Journal(path) as journal, progress(f"{model}: verdicts", len(rows)) as advance:
        # Only now, with the judge at hand: what is dropped is made again.
        kept = [row for key, row in journal.rows.items() if key not in now]
        if len(kept) < len(journal.rows):
            journal.replace(kept)
        for row, judgement in _judgements(judge, rows, engine):
            journal.add([_verdict_row(row, judgement, judge)])
            advance(1)


def _judgements(
    judge: Judge, rows: list[ResponseRow], engine: Backend | None
) -> Iterator[tuple[ResponseRow, Judgement]]:
    """Rows with what the judge says of them, as they are done."""
    if isinstance(judge, RowJudge):
        for row in rows:
            yield row, judge.decide(row["prompt"], _answer(row), row)
    elif engine is not None and isinstance(judge, ModelJudge | PanelJudge):
        yield from _asked(judge, rows, engine)


def _asked(
    judge: ModelJudge | PanelJudge, rows: list[ResponseRow], engine: Backend
) -> Iterator[tuple[ResponseRow, Judgement]]:
    """Rows with what the judge says, each as soon as all its questions are answered."""
    chats: list[Chat] = []
    of_row: list[tuple[int, int]] = []
    waiting: list[list[str | None]] = []
    for number, row in enumerate(rows):
        questions = questions_of(judge, row["prompt"], _answer(row))
        waiting.append([None] * len(questions))
        for place, q in enumerate(questions):
            of_row.append((number, place))
            chats.append(
                Chat(q.messages, q.max_new_tokens, q.add_generation_prompt, template=q.template)
            )
    for index, reply in engine.respond(chats):
        number, place = of_row[index]
        said = waiting[number]
        said[place] = reply.text
        texts = [text for text in said if text is not None]
        if len(texts) == len(said):
            yield rows[number], read_answers(judge, texts)


def _answer(row: ResponseRow) -> str:
    """What is judged of a row: rows of earlier versions hold thought and answer in one."""
    return apart(row["response"])[0]


def _verdict_row(row: ResponseRow, judgement: Judgement, judge: Judge) -> VerdictRow:
    flags = flag(row["prompt"], _answer(row), row["language"], row["finish_reason"])
    return {
        "key": row["key"],
        "verdict": judgement.verdict,
        "categories": list(judgement.categories),
        "refusal": judgement.refusal,
        "flags": list(flags),
        "judge_version": judge.version,
        "response_digest": mark_of(row),
        "raw": judgement.raw,
    }


def _about(results: Results, model: str, judge: str) -> Path:
    return results.folder / model / VERDICTS / f"{judge}.json"
