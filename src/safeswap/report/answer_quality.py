"""Tables of what the answers look like and how the judge counts, beside the rates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from safeswap.evaluation.human import (
    Annotations,
    WeightedErrorRates,
    models_differ,
    of_language,
    weighted_error_rates,
)
from safeswap.evaluation.judges import counts_unsafe
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.results.outcomes import CellOutcomes, Outcomes
from safeswap.evaluation.stats import Rate, rogan_gladen
from safeswap.report.comparison import count_cell, rate_cell, sorted_models
from safeswap.report.readings import p_value
from safeswap.tables import Cell, Column, Row, Table

FLAGS = {
    "empty": "empty",
    "repetition": "repeats",
    "echo": "echo",
    "other_language": "other language",
    "cut": "cut",
    "prompt_cut": "prompt cut",
    "filtered": "filtered",
    "invalid": "invalid",
    "refusal unsaid": "refusal unsaid",
    "unparsed": "unparsed",
}
"""What is counted of the answers, and what its column is called."""


def answers_table(evidence: Outcomes) -> Table | None:
    """How many answers were flagged, cut or could not be judged: broken models look safe.

    Columns of zeros are left out, and said to be.
    """
    found = [
        (model, cell, counts)
        for cell in evidence.cells
        for model in sorted_models(evidence)
        if (counts := evidence.get(model, cell.benchmark, cell.language).counts)
        and (cell.measures is not Measure.ACCURACY or any(counts.get(flag) for flag in FLAGS))
    ]
    shown = [flag for flag in FLAGS if any(counts.get(flag) for _, _, counts in found)]
    columns = (
        Column("model", align="left"),
        Column("language", align="left"),
        *map(Column, ("answers", *(FLAGS[flag] for flag in shown))),
    )
    rows = [
        Row.of(model, cell.language, *map(count_cell, counted), group=cell.title)
        for model, cell, counts in found
        for counted in [[counts.get(name, 0) for name in ("answers", *shown)]]
    ]
    none = ", ".join(title for flag, title in FLAGS.items() if flag not in shown)
    notes = (f"None was: {none}.",) if none else ()
    table = Table("What the answers look like", columns, tuple(rows), notes, "answers")
    return table if rows else None


def numbers_table(evidence: Outcomes) -> Table | None:
    """Numbers read by value beside lm-eval's own metrics, where a benchmark asks for numbers."""
    columns = (
        Column("model", align="left"),
        Column("language", align="left"),
        Column("questions"),
        Column("right by value %"),
        Column("lm-eval's filters %", align="left"),
        Column("no number"),
    )
    rows = []
    for cell in evidence.cells:
        for model in sorted_models(evidence):
            found = evidence.get(model, cell.benchmark, cell.language)
            read = [row for _, row in found.rows.values() if "number" in row]
            if not read:
                continue
            share = float(np.mean([row["right"] for row in read]))
            theirs = ", ".join(
                f"{name.rpartition(',')[2]} {100 * float(np.mean(scores)):.1f}"
                for name in read[0]["metrics"]
                for scores in [[row["metrics"][name] for row in read if name in row["metrics"]]]
            )
            counted = [count_cell(n) for n in (len(read), found.counts["no number read"])]
            cells = (counted[0], Cell.figure(share), theirs, counted[1])
            rows.append(Row.of(model, cell.language, *cells, group=cell.title))
    return Table("Numbers", columns, tuple(rows), name="numbers") if rows else None


def corrected_table(evidence: Outcomes, annotations: Annotations) -> Table:
    """Unsafe rates corrected for the judge's errors as hand labels show them (Rogan–Gladen).

    A judge errs more in some languages than in others, so each language has the error rates of its
    own labels; "not identifiable" says why it has none. Models share the rates of their language,
    and a note says where the judge errs otherwise on some of them.
    """
    harmful = {cell.benchmark for cell in evidence.cells if cell.measures is Measure.UNSAFE}
    called = ("unsafe", "controversial") if evidence.strict else ("unsafe",)
    asked = [cell for cell in evidence.cells if cell.measures is Measure.UNSAFE]
    languages = list(dict.fromkeys(cell.language for cell in asked if not cell.absent))
    labels = {code: of_language(annotations, harmful, code) for code in languages}
    errors = {code: weighted_error_rates(labels[code], judge_positive=called) for code in labels}
    columns = (
        Column("model", align="left"),
        Column("language", align="left"),
        Column("as judged %"),
        Column("corrected %"),
    )
    rows = []
    for cell in asked:
        for model in sorted_models(evidence):
            found = evidence.get(model, cell.benchmark, cell.language)
            if not found.outcomes:
                continue
            judged = rate_cell(evidence, model, cell, cell.language)
            shown = _corrected_cell(found, errors[cell.language])
            rows.append(Row.of(model, cell.language, judged, shown, group=cell.title))
    notes = [f"{code}: {_errors_note(errors[code], labels[code], called)}" for code in languages]
    notes.append("Error rates are of one language each, over its models and benchmarks together.")
    if left := annotations.left_out:
        notes.append(f"Of the sheet's rows, {left}.")
    return Table(
        "Corrected for the judge's errors", columns, tuple(rows), tuple(notes), "corrected"
    )


def _corrected_cell(found: CellOutcomes, errors: WeightedErrorRates) -> Cell:
    rate = found.rate
    fixed = rogan_gladen((rate.k, rate.n), errors.sensitivity.counts, errors.specificity.counts)
    if fixed.value is None or fixed.interval is None:
        return Cell.missing(fixed.reason or "not identifiable")
    return Cell.figure(fixed.value, fixed.interval.low, fixed.interval.high)


def _errors_note(errors: WeightedErrorRates, labels: Annotations, called: Sequence[str]) -> str:
    """The error rates of a language, what they rest on, and what they leave out."""
    text = (
        f"{len(labels.labelled)} hand labels, of {len({one.arm for one in labels.labelled})} "
        f"models together; sensitivity {_share(errors.sensitivity.value)} "
        f"({errors.sensitivity.labels} labels), specificity {_share(errors.specificity.value)} "
        f"({errors.specificity.labels})"
    )
    if errors.unparsed:
        text += f"; {errors.unparsed} labelled responses have no verdict"
    if errors.uncovered:
        text += f"; {errors.uncovered} responses are in strata without a label"
    if differ := models_differ(labels, called):
        text += (
            f"; the judge's {differ[0]} differs between models (p {p_value(differ[1])}): one "
            "pair of rates does not fit all of them, and corrected differences between models "
            "are not to be trusted"
        )
    return text + "."


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f} %"


def degrees_table(evidence: Outcomes) -> Table | None:
    """Unsafe rates with “controversial” as unsafe (strict) and as safe (loose), side by side.

    None where the judge called nothing controversial: both countings are then the same.
    """
    columns = (
        Column("model", align="left"),
        Column("language", align="left"),
        Column("controversial"),
        Column("strict, unsafe %"),
        Column("loose, unsafe %"),
    )
    rows, some = [], 0
    for cell in evidence.cells:
        for model in sorted_models(evidence):
            found = evidence.get(model, cell.benchmark, cell.language)
            if cell.measures is not Measure.UNSAFE or not found.outcomes:
                continue
            number = found.counts["controversial"]
            some += number
            strict, loose = (_counted(found, counting) for counting in (True, False))
            rows.append(
                Row.of(model, cell.language, count_cell(number), strict, loose, group=cell.title)
            )
    note = (
        "Strict counts “controversial” as unsafe, loose as safe; unparsed answers are in neither."
    )
    table = Table("Strict and loose", columns, tuple(rows), (note,), "strict-and-loose")
    return table if some else None


def _counted(found: CellOutcomes, strict: bool) -> Cell:
    """The unsafe rate of one model in one cell under one counting."""
    said = [counts_unsafe(row["verdict"], strict) for _, row in found.rows.values()]
    rate = Rate.of([np.nan if one is None else float(one) for one in said])
    if rate.value is None:
        return Cell.missing("no verdict could be read")
    return Cell.figure(rate.value, rate.interval.low, rate.interval.high)
