"""Agreement as tables."""

from __future__ import annotations

from collections.abc import Sequence

from safeswap.errors import listed
from safeswap.evaluation.human.agreement import ALL_ROWS, Agreement, shortened
from safeswap.evaluation.stats import LEVEL, Rate
from safeswap.tables import Cell, Column, Row, Table


def render(found: Agreement | Sequence[Agreement]) -> Table:
    """Accuracy and κ, a row per comparison."""
    several = [found] if isinstance(found, Agreement) else list(found)
    columns = (
        Column("comparison", align="left"),
        Column("n"),
        Column("same label, %"),
        Column("κ"),
        Column("unparsed"),
        Column("unlabelled"),
    )
    return Table(
        "Agreement with human labels",
        columns,
        tuple(map(_row, several)),
        _notes(several),
        "agreement",
    )


def _row(found: Agreement) -> Row:
    span = found.accuracy.interval
    share = Cell.missing("No row is labelled.")
    if found.accuracy.value is not None:
        share = Cell.figure(found.accuracy.value, span.low, span.high)
    kappa = Cell.missing(found.kappa_reason or "κ is undefined")
    if found.kappa is not None and found.kappa_interval is not None:
        span = found.kappa_interval
        kappa = Cell.figure(found.kappa, span.low, span.high, scale=1, digits=2)
    unparsed = Cell(str(found.unparsed), found.unparsed, note=_unparsed_note(found))
    counts = Cell(str(found.n), found.n), Cell(str(found.unlabelled), found.unlabelled)
    name = f"{found.judge} vs {found.human}"
    return Row.of(name, counts[0], share, kappa, unparsed, counts[1], group=found.group or "")


def _unparsed_note(found: Agreement) -> str | None:
    if not found.unparsed:
        return None
    parts = [f"{found.blank} blank"] if found.blank else []
    if found.foreign:
        texts = [f"{shortened(text)!r} ({count})" for text, count in found.foreign.items()]
        parts.append(f"none of the labels: {listed(texts, 2)}")
    said = "; ".join(parts) or "the judge's own verdict is unparsed"
    return f"Unparsed answers of {found.judge} count as disagreement ({said})."


def _notes(several: Sequence[Agreement]) -> tuple[str, ...]:
    level = several[0].accuracy.level if several else LEVEL
    return (
        f"In brackets, {100 * level:g} % intervals: Wilson's for shares, bootstrap for κ; "
        "where several rows answer one prompt, both go by whole prompts.",
        "Labels are compared as they stand, every class of its own, over all rows with a human "
        "label.",
    )


def render_rates(found: Agreement | Sequence[Agreement]) -> Table:
    """Sensitivity and specificity of the judges, a row per judge and positive set."""
    several = [found] if isinstance(found, Agreement) else list(found)
    rows = [
        Row.of(
            item.judge,
            " or ".join(rates.positive),
            *_rate_cells(rates.sensitivity),
            *_rate_cells(rates.specificity),
            group=item.group or "",
        )
        for item in several
        if item.kind == "judge"
        for rates in item.classes
    ]
    columns = [Column("judge", align="left"), Column("positive", align="left")]
    for group in ("sensitivity", "specificity"):
        columns += [Column("%", group), Column("k/n", group), Column("unparsed", group)]
    note = "Among parsed answers; with unparsed ones, the note gives the bounds."
    return Table("Judges by class", tuple(columns), tuple(rows), (note,), "classes")


def _rate_cells(rate: Rate) -> tuple[Cell, Cell, Cell]:
    counts = Cell(f"{rate.k}/{rate.n}"), Cell(str(rate.unparsed), rate.unparsed)
    if rate.value is None:
        return Cell.missing("No parsed answer for a label of this class."), *counts
    note = None
    if rate.unparsed:
        low, high = 100 * rate.bounds.low, 100 * rate.bounds.high
        note = f"{low:.1f} to {high:.1f} % with the unparsed as all wrong or all right."
    return Cell.figure(rate.value, rate.interval.low, rate.interval.high, note=note), *counts


def render_confusion(found: Agreement) -> Table:
    """How often each answer of the judge was given to each human label."""
    used = [i for i in range(len(found.answers)) if i < len(found.labels) or found.unparsed]
    columns = (
        Column(found.human, align="left"),
        *(Column(found.answers[index], found.judge) for index in used),
    )
    rows = tuple(
        Row.of(label, *(Cell(str(counts[index]), counts[index]) for index in used))
        for label, counts in zip(found.labels, found.confusion, strict=True)
    )
    where = f", {found.group}" if found.group else ""
    return Table(
        f"{found.judge} by {found.human}{where}", columns, rows, name=f"confusion-{found.judge}"
    )


def agreement_tables(found: Sequence[Agreement]) -> list[Table]:
    """What ``safeswap label agreement`` prints: agreement, classes, a confusion table per judge.

    With groups, the confusion tables are those of all rows.
    """
    tables = [render(found)]
    judges = [item for item in found if item.kind == "judge"]
    if judges:
        tables.append(render_rates(judges))
    return tables + [render_confusion(j) for j in judges if j.group in (None, ALL_ROWS)]
