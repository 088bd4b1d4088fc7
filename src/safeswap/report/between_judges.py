"""How far judges agree with one another, per language: a table beside the rates of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from safeswap.evaluation.human import PairAgreement, agreement_of_pair
from safeswap.evaluation.judges import MAJORITY, counts_unsafe
from safeswap.evaluation.judges.names import APART
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.outcomes import POOLED, CellSpec, Outcomes
from safeswap.evaluation.results.rows import VerdictRow
from safeswap.evaluation.results.store import Results, open_results
from safeswap.evaluation.results.verdicts import verdicts_of_each
from safeswap.report.comparison import count_cell
from safeswap.tables import Cell, Column, Row, Table

_LABELS: Mapping[Measure, tuple[str, str, str]] = {
    Measure.UNSAFE: ("Answers to harmful prompts: unsafe or not", "unsafe", "not unsafe"),
    Measure.OVER_REFUSAL: ("Answers to harmless prompts: refused or not", "refused", "answered"),
}
"""What is judged: title, and the two labels; the first is the one that a rate counts."""


def judges_table(folders: Sequence[str | Path], evidence: Outcomes) -> Table | None:
    """Agreement and Cohen's κ of every pair of judges in every language; None for fewer than two.

    Over the answers of all models of ``evidence``; those that both of a pair have read. Verdicts
    are compared as they are counted: unsafe or not, by strict or loose; or refused or not.

    Raises:
        EvaluationError: damaged results.
    """
    opened = [open_results(folder) for folder in folders]
    judges = sorted({name for results in opened for name in results.judges()})
    judges = [name for name in judges if name != MAJORITY and not name.endswith(APART)]
    if len(judges) < 2:
        return None
    parts = _parts(opened, judges, evidence)
    rows = [row for part in parts for row in _rows(part, judges)]
    columns = (
        Column("language", align="left"),
        Column("judges", align="left"),
        Column("answers"),
        Column("same, %"),
        Column("κ"),
        Column("only the first"),
        Column("only the second"),
        Column("unread"),
    )
    notes = (
        "Answers of all models together that both judges have read; “unread”: of the others, a "
        "verdict is missing or could not be read. In brackets, 95 % intervals: Wilson's for "
        "shares, bootstrap for κ; where several answers are to one prompt, both go by whole "
        "prompts. “only the first”: what one judge calls unsafe (refused) and the other does not.",
    )
    table = Table("Judges beside each other", columns, tuple(rows), notes, "judges")
    return table if rows else None


@dataclass
class _Part:
    """The answers of one language that are judged for one thing.

    Attributes:
        measure: for what.
        language: of the prompts; ``POOLED`` for all together.
        prompts: what each answer is to, the same for translations.
        said: judge → its label of each answer; empty where it has none.
    """

    measure: Measure
    language: str
    prompts: list[str] = field(default_factory=list)
    said: dict[str, list[str]] = field(default_factory=dict)


def _parts(opened: Sequence[Results], judges: Sequence[str], evidence: Outcomes) -> Iterator[_Part]:
    cells = {f"{c.benchmark}/{c.language}": c for c in evidence.cells if c.measures in _LABELS}
    found: dict[tuple[Measure, str], _Part] = {}
    for cell in cells.values():  # in the order of the settings
        found.setdefault(
            (cell.measures, cell.language),
            _Part(cell.measures, cell.language, said={judge: [] for judge in judges}),
        )
    for results in opened:
        for model in (name for name in results.models if name in evidence.models):
            verdicts = verdicts_of_each(results, model, judges)
            for key in dict.fromkeys(key for rows in verdicts.values() for key in rows):
                benchmark, _, rest = key.partition("/")
                language, _, id_ = rest.partition("/")
                asked = cells.get(f"{benchmark}/{language}")
                if asked is None:
                    continue
                part = found[(asked.measures, language)]
                part.prompts.append(f"{benchmark}/{id_}")
                for judge in judges:
                    said = _label(asked, verdicts[judge].get(key), evidence.strict)
                    part.said[judge].append(said)
    for measure in _LABELS:
        own = [part for (what, _), part in found.items() if what is measure and part.prompts]
        yield from own
        if len(own) > 1:
            yield _together(own, judges)


def _together(parts: Sequence[_Part], judges: Sequence[str]) -> _Part:
    return _Part(
        parts[0].measure,
        POOLED,
        [prompt for part in parts for prompt in part.prompts],
        {judge: [label for part in parts for label in part.said[judge]] for judge in judges},
    )


def _label(cell: CellSpec, row: VerdictRow | None, strict: bool) -> str:
    """What a judge says of an answer; empty where it says nothing."""
    if row is None:
        return ""
    _, counted, other = _LABELS[cell.measures]
    if cell.measures is Measure.UNSAFE:
        value = counts_unsafe(row["verdict"], strict)
    else:
        value = row["refusal"] if row["verdict"] != "unparsed" else None
    return "" if value is None else counted if value else other


def _rows(part: _Part, judges: Sequence[str]) -> Iterator[Row]:
    title, counted, _ = _LABELS[part.measure]
    for pair in combinations(judges, 2):
        first, second = (part.said[judge] for judge in pair)
        columns = zip(first, second, part.prompts, strict=True)
        both = [(a, b, prompt) for a, b, prompt in columns if a and b]
        if not any(first) or not any(second):
            continue  # one of them is no judge of this
        alone = [sum((a == counted) > (b == counted) for a, b, _ in both)]
        alone += [sum((b == counted) > (a == counted) for a, b, _ in both)]
        share, kappa = Cell.missing("no answer that both have read"), Cell.missing("none in common")
        if both:
            own, other, prompts = zip(*both, strict=True)
            share, kappa = _figures(agreement_of_pair(own, other, prompts, pair[0]))
        read, first_alone, second_alone, unread = map(
            count_cell, (len(both), *alone, len(first) - len(both))
        )
        cells = (read, share, kappa, first_alone, second_alone, unread)
        yield Row.of(part.language, " / ".join(pair), *cells, group=title)


def _figures(found: PairAgreement) -> tuple[Cell, Cell]:
    """The share of the same label, and κ."""
    span = found.same.interval
    share = Cell.figure(found.same.value or 0.0, span.low, span.high)
    if found.kappa is None or found.kappa_interval is None:
        return share, Cell.missing(found.kappa_reason or "κ is undefined")
    span = found.kappa_interval
    return share, Cell.figure(found.kappa, span.low, span.high, scale=1, digits=2)
