"""From a number in a table back to the stored rows that it was counted from."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.results.journal import Row, read_rows
from safeswap.evaluation.results.outcomes import POOLED, Outcomes, gather
from safeswap.evaluation.results.rows import ModelRecord

AGAINST = ":"
"""Stands between the two models of a comparison; no model's name can hold it."""

_LONGEST = 100


def explain(
    results: Sequence[str | Path],
    cell: str,
    *,
    judge: str | None = None,
    strict: bool = True,
) -> str:
    """Where a number in a table comes from: its count, and every stored row behind it.

    Args:
        cell: ``BENCHMARK/LANGUAGE/MODEL``, whose language may be ``all``; or
            ``BENCHMARK/LANGUAGE/MODEL:REFERENCE`` for a paired difference.

    Raises:
        EvaluationError: no such cell; the nearest is named.
    """
    evidence = gather(results, judge, strict, dev=True)  # single rows are no result
    name, paired, reference = cell.partition(AGAINST)
    known = [
        f"{c.benchmark}/{language}/{model}"
        for model in evidence.models
        for c in evidence.cells
        for language in (c.language, POOLED)
    ]
    if name not in known:
        raise EvaluationError(f"no cell is called {name!r}{nearest(name, known)}")
    if paired and reference not in evidence.models:
        raise EvaluationError(
            f"{cell}: no model is called {reference!r}{nearest(reference, evidence.models)}"
        )
    benchmark, language, model = name.rsplit("/", 2)
    place = _Places()
    if paired:
        lines = _pair_lines(evidence, benchmark, language, (model, reference), place)
    else:
        lines = _cell_lines(evidence, benchmark, language, model, place)
    return "\n".join([f"{cell}: {next(lines)}", *lines])


class _Places:
    """Where a row stands: its file and line."""

    def __init__(self) -> None:
        self._lines: dict[Path, dict[str, int]] = {}

    def __call__(self, path: Path, row: Row) -> str:
        if path not in self._lines:
            self._lines[path] = {r["key"]: n for n, r in enumerate(read_rows(path), start=1)}
        return f"{path}:{self._lines[path][row['key']]}"


def _cell_lines(
    evidence: Outcomes, benchmark: str, language: str, model: str, place: _Places
) -> Iterator[str]:
    """The count; the model; outcome, place, key, what was said, and how the response begins."""
    found = evidence.get(model, benchmark, language)
    yield _count(found.outcomes)
    yield _model_line(evidence.models, model)
    if found.missing:
        yield f"not in it: {found.missing}"
    for id_, (path, row) in found.rows.items():
        shown = _outcome(found.outcomes[id_])
        yield f"{shown}  {place(path, row)}  {row['key']}  {_said(row)}"
        yield from _asked_and_answered([("", row)])


def _pair_lines(
    evidence: Outcomes, benchmark: str, language: str, models: tuple[str, str], place: _Places
) -> Iterator[str]:
    """The counts of both on what both answered; then every prompt, those that differ first."""
    one, other = (evidence.get(model, benchmark, language) for model in models)
    ids = [id_ for id_ in one.outcomes if id_ in other.outcomes]
    deltas = {id_: one.outcomes[id_] - other.outcomes[id_] for id_ in ids}
    used = [id_ for id_ in ids if not math.isnan(deltas[id_])]
    if not used:
        raise EvaluationError(
            f"{benchmark}/{language}: {models[0]} and {models[1]} have no outcome in common: "
            f"{one.missing or other.missing or 'no verdict could be read'}."
        )
    counts = [_count({id_: a.outcomes[id_] for id_ in used}) for a in (one, other)]
    only = [sum(deltas[id_] == sign for id_ in used) for sign in (1, -1)]
    left_out = f", {len(ids) - len(used)} pairs left out" if len(used) < len(ids) else ""
    yield (
        f"{counts[0]} − {counts[1]}; {only[0]} only {models[0]}, {only[1]} only {models[1]}, "
        f"{len(used) - sum(only)} alike{left_out}"
    )
    for model in models:
        yield _model_line(evidence.models, model)
    for id_ in sorted(ids, key=lambda id_: _rank(deltas[id_])):
        values = " ".join(_outcome(a.outcomes[id_]) for a in (one, other))
        places = "  ".join(place(*a.rows[id_]) for a in (one, other))
        yield f"{values}  {places}  {one.rows[id_][1]['key']}"
        rows = [a.rows[id_][1] for a in (one, other)]
        yield from _asked_and_answered(list(zip(models, rows, strict=True)))


def _asked_and_answered(rows: Sequence[tuple[str, Row]]) -> Iterator[str]:
    """The prompt, and how every answer to it begins; nothing of what is not stored."""
    if prompt := _beginning(rows[0][1].get("prompt")):
        yield f"    asked: {prompt}"
    for model, row in rows:
        if "response" in row:
            said = f", {_said(row)}" if model else ""
            yield f"    {model or 'said'}{said}: {_beginning(row['response'])}".rstrip()


def _beginning(text: object) -> str:
    plain = " ".join(str(text or "").split())
    return plain if len(plain) <= _LONGEST else plain[: _LONGEST - 1] + "…"


def _rank(delta: float) -> int:
    """Discordant pairs, then those left out, then the others."""
    return 1 if math.isnan(delta) else 0 if delta else 2


def _count(outcomes: Mapping[str, float]) -> str:
    read = [value for value in outcomes.values() if not math.isnan(value)]
    unparsed = len(outcomes) - len(read)
    return f"{int(sum(read))} of {len(read)}" + (f", {unparsed} unparsed" if unparsed else "")


def _model_line(models: Mapping[str, ModelRecord], model: str) -> str:
    return f"model: {model} = {models[model].get('source')}, digest {models[model].get('digest')}"


def _outcome(value: float) -> str:
    return "?" if math.isnan(value) else str(int(value))


def _said(row: Row) -> str:
    """Verdict, refusal and flags of a response; metrics, numbers and cuts of a scored question."""
    said = [row.get("verdict") or json.dumps(row.get("metrics", {}))]
    if row.get("refusal"):
        said.append("refused")
    if "number" in row:
        said.append(f"number {row['number'] or 'none'}, expected {row.get('expected')}")
    marks = [*row.get("flags", ()), *(name for name in ("cut", "prompt_cut") if row.get(name))]
    marks += ["filtered"] if row.get("finish_reason") == "filtered" else []
    return ", ".join([*said, *marks])
