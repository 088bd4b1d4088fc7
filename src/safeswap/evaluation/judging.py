"""Stage two: a judge reads the stored responses and its verdicts are stored beside them.

Old responses can be judged again by another judge, or by the same one in another version, without
generating anything: each judge has a file of its own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Backend, BackendOptions, Chat, open_backend
from safeswap.evaluation.generate import Tell
from safeswap.evaluation.judges import Judge, Judgement, RowJudge
from safeswap.evaluation.models import name_models
from safeswap.evaluation.quality import flag
from safeswap.evaluation.results.store import (
    RESPONSES,
    VERDICTS,
    Journal,
    Results,
    Row,
    file_name,
    read_json,
    read_rows,
    write_json,
)
from safeswap.evaluation.results.verdicts import mark_of, marks_of, verdicts_of, verdicts_path


def judge_models(
    results: Results,
    arms: Sequence[str],
    judge: Judge,
    source: str,
    backend: str,
    options: BackendOptions,
    tell: Tell,
) -> dict[str, int]:
    """Judge what the arms answered and the judge has not read yet; arm to how many.

    The judge's model is loaded once, after the last model under test is gone, and not at all when
    everything is judged. A verdict whose response has changed since, or that an earlier version of
    the judge gave, is dropped and made again. `count_verdicts` says how many could not be read.

    Raises:
        EvaluationError: the judge does not load or cannot be reached, or another judge's verdicts
            are filed under its name; verdicts so far are stored.
    """
    name = judge_name(judge, source)
    todo = {arm: _unjudged(results, arm, name, judge) for arm in arms}
    todo = {arm: rows for arm, rows in todo.items() if rows}
    if not todo:
        return {}
    about = {"judge": judge.name, "source": source, "version": judge.version}
    if judge.asks_model:
        asked = name_models([f"judge={source}"], backend, options.base_url)[0]
        about["digest"] = asked.digest
    for arm in todo:
        _refuse_other_judge(_about(results, arm, name), about)
    responder = open_backend(asked.location, backend, options) if judge.asks_model else None
    about |= responder.description if responder else {}
    try:
        for arm, rows in todo.items():
            write_json(_about(results, arm, name), about)
            _judge_rows(verdicts_path(results, arm, name), rows, judge, responder, tell, arm)
    finally:
        if responder is not None:
            responder.close()
    return {arm: len(rows) for arm, rows in todo.items()}


def judge_name(judge: Judge, source: str) -> str:
    """What a judge's verdicts are filed under: its model's name, or that of its file of rules."""
    if judge.asks_model:
        model = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
        # verdicts on prompts are no verdicts on responses: they have a file of their own
        return file_name(f"{model}-prompt" if judge.name.endswith("-prompt") else model)
    told = source.removeprefix(f"{judge.name}:")
    return file_name(f"{judge.name}-{Path(told).stem}")


def count_verdicts(results: Results, arms: Sequence[str], judge: str) -> dict[str, Counter[str]]:
    """Model to how many of each verdict the judge gave it; many ``unparsed`` are a judge that
    answers nonsense, or that is asked in another way than it was made for."""
    return {
        arm: Counter(row["verdict"] for row in verdicts_of(results, arm, judge).values())
        for arm in arms
    }


def _refuse_other_judge(path: Path, now: dict[str, Any]) -> None:
    known = read_json(path) if path.exists() else now
    if any(known.get(key) != now.get(key) for key in ("judge", "digest")):
        raise EvaluationError(
            f"{path}: verdicts of another judge are filed under this name ({known.get('judge')}, "
            f"{known.get('source')}, digest {known.get('digest')}; now {now['judge']}, "
            f"{now['source']}, {now.get('digest')}). Rename the new judge's folder, or remove "
            f"{path.stem}.json and {path.stem}.jsonl beside it to judge anew."
        )


def _unjudged(results: Results, arm: str, name: str, judge: Judge) -> list[Row]:
    responses = list(read_rows(results.folder / arm / RESPONSES))
    now = marks_of(responses)
    done = {
        row["key"]
        for row in read_rows(verdicts_path(results, arm, name))
        if _is_fresh(row, now, judge)
    }
    return [row for row in responses if row["key"] not in done]


def _is_fresh(verdict: Row, now: Mapping[str, str], judge: Judge) -> bool:
    made_of = (verdict["response_digest"], verdict["judge_version"])
    return made_of == (now.get(verdict["key"]), judge.version)


def _judge_rows(
    path: Path,
    rows: list[Row],
    judge: Judge,
    responder: Backend | None,
    tell: Tell,
    arm: str,
) -> None:
    now = marks_of(rows)
    with Journal(path) as journal, tell(f"{arm}: verdicts", len(rows)) as advance:
        # Only now, with the judge at hand: what is dropped is made again.
        kept = [row for key, row in journal.rows.items() if key not in now]
        if len(kept) < len(journal.rows):
            journal.replace(kept)
        for row, judgement in _judgements(judge, rows, responder):
            journal.add([_verdict_row(row, judgement, judge)])
            advance(1)


def _judgements(
    judge: Judge, rows: list[Row], responder: Backend | None
) -> Iterator[tuple[Row, Judgement]]:
    """Rows with what the judge says of them, as they are done."""
    if isinstance(judge, RowJudge):
        for row in rows:
            yield row, judge.decide(row["prompt"], row["response"], row)
    elif responder is not None:
        questions = [judge.question(row["prompt"], row["response"]) for row in rows]
        chats = [Chat(q.messages, q.max_new_tokens, q.add_generation_prompt) for q in questions]
        for index, reply in responder.respond(chats):
            yield rows[index], judge.parse(reply.text)


def _verdict_row(row: Row, judgement: Judgement, judge: Judge) -> Row:
    flags = flag(row["prompt"], row["response"], row["language"], row["finish_reason"])
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


def _about(results: Results, arm: str, judge: str) -> Path:
    return results.folder / arm / VERDICTS / f"{judge}.json"
