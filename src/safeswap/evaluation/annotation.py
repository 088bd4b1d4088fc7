"""A sample of responses to label by hand, and the labels back.

The sheet is blind: it shows prompts and responses, not which model answered (a letter stands for
it) nor what the judge said. What was hidden is kept beside it, in ``SHEET.key.json``. The sample is
stratified by arm, language and verdict, so that rare verdicts are seen too; the key keeps how many
responses every stratum had, so that error rates of the judge can be weighted back to all of them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap.errors import EvaluationError, listed, nearest
from safeswap.evaluation.agreement import UNPARSED, Agreement, compare_labels, read_sheet
from safeswap.evaluation.statistics import LEVEL, Interval, wilson
from safeswap.report.tables import spreadsheet_safe, storable

LABELS = ("safe", "unsafe", "invalid")  # MultiJail's three; blank is not labelled yet
COLUMNS = ("row_key", "arm_blinded", "language", "prompt", "response", "label", "note")
KEY_FORMAT = "safeswap annotation key 1"

_FIELDS = ("key", "arm", "benchmark", "language", "prompt", "response", "verdict")


# Out ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """Responses drawn to be labelled.

    Attributes:
        rows: drawn, in the order they are shown.
        strata: responses there were in each stratum, by its name.
        drawn: how many of them were drawn.
        seed: of the drawing.
    """

    rows: tuple[Mapping[str, Any], ...]
    strata: Mapping[str, int]
    drawn: Mapping[str, int]
    seed: int


def stratum(row: Mapping[str, Any]) -> str:
    """The stratum of a response: ``arm / language / verdict``, flagged ones on their own."""
    flagged = ", flagged" if row.get("flags") else ""
    return f"{row['arm']} / {row['language']} / {row['verdict']}{flagged}"


def sample_for_annotation(rows: Sequence[Mapping[str, Any]], count: int, seed: int = 0) -> Sample:
    """A stratified sample: proportional, at least one of each stratum, never more than it has.

    Every further seat goes to the stratum furthest below its share. The same rows and seed give the
    same sample, whatever the order of the rows.

    Args:
        rows: responses, each with ``key``, ``arm``, ``benchmark``, ``language``, ``prompt``,
            ``response``, ``verdict`` and ``flags``.
        count: how many; all of them where there are no more.

    Raises:
        EvaluationError: no rows, one without a field, a key twice, or fewer rows asked for than
            there are strata.
    """
    if not rows:
        raise EvaluationError("there are no judged responses to sample; run safeswap judge first")
    _check_rows(rows)
    strata: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: str(row["key"])):
        strata.setdefault(stratum(row), []).append(row)
    sizes = {name: len(strata[name]) for name in sorted(strata)}
    seats = _seats(sizes, count)
    chosen: list[Mapping[str, Any]] = []
    for name, share in seats.items():
        chosen += random.Random(f"{seed}/{name}").sample(strata[name], share)
    random.Random(f"{seed}").shuffle(chosen)
    return Sample(tuple(chosen), sizes, seats, seed)


def _check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        missing = [field for field in _FIELDS if not isinstance(row.get(field), str)]
        if missing:
            raise EvaluationError(
                f"response {row.get('key', '?')!r} has no text in {listed(missing)}; "
                "sample responses that were judged"
            )
    twice = [key for key, n in Counter(row["key"] for row in rows).items() if n > 1]
    if twice:
        raise EvaluationError(f"responses are there more than once: {listed(twice)}")


def _seats(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """How many to draw of each stratum."""
    total = sum(sizes.values())
    if count < len(sizes):
        raise EvaluationError(
            f"{count} rows cannot show all {len(sizes)} strata (arm × language × verdict); "
            f"ask for {len(sizes)} or more"
        )
    if count >= total:
        return dict(sizes)
    seats = dict.fromkeys(sizes, 1)
    for _ in range(count - len(sizes)):
        room = [name for name, size in sizes.items() if size > seats[name]]
        seats[max(room, key=lambda name: count * sizes[name] / total - seats[name])] += 1
    return seats


def write_sample(sample: Sample, path: Path | str) -> Path:
    """Write the sheet to label, and the key beside it; returns the key's path.

    The sheet is UTF-8 with a byte-order mark, every cell quoted, no cell a formula, line breaks
    kept. The key's name is the sheet's, with ``.key.json`` after it: give out the sheet only.

    Raises:
        EvaluationError: either file is there already, so that no labels are lost.
    """
    path = Path(path)
    key_path = key_of(path)
    for present in (path, key_path):
        if present.exists():
            raise EvaluationError(f"{present} exists already; labels in it are not overwritten")
    letters = _blind_names([str(row["arm"]) for row in sample.rows], sample.seed)
    lines, hidden = [], {}
    for row in sample.rows:
        name = _blind_key(str(row["key"]), sample.seed)
        shown = [name, letters[row["arm"]], row["language"], row["prompt"], row["response"], "", ""]
        line = [spreadsheet_safe(storable(cell)) for cell in shown]
        lines.append(line)
        hidden[name] = {
            **{field: row[field] for field in ("key", "arm", "benchmark", "language", "verdict")},
            "stratum": stratum(row),
            "digest": _digest(line[3], line[4]),
        }
    key = {
        "format": KEY_FORMAT,
        "seed": sample.seed,
        "sheet": path.name,
        "strata": {
            name: {"size": size, "sampled": sample.drawn[name], "weight": size / sample.drawn[name]}
            for name, size in sample.strata.items()
        },
        "rows": hidden,
    }
    key_path.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([list(COLUMNS), *lines])
    path.write_bytes(out.getvalue().encode("utf-8-sig"))
    return key_path


def key_of(path: Path | str) -> Path:
    """Where a sheet's key lies: beside it."""
    return Path(f"{path}.key.json")


def _blind_key(key: str, seed: int) -> str:
    """A name for the row that says nothing about the arm, which the row's own key may."""
    digest = hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogatepass"))
    return f"r{digest.hexdigest()[:12]}"


def _blind_names(arms: Sequence[str], seed: int) -> dict[str, str]:
    names = sorted(set(arms))
    order = random.Random(f"{seed}/arms").sample(range(len(names)), len(names))
    return {name: f"model {number + 1}" for name, number in zip(names, order, strict=True)}


def _digest(prompt: str, response: str) -> str:
    """Of what the annotator saw, less what spreadsheets change: spacing and the leading '."""
    words = [" ".join(text.lstrip("'").split()) for text in (prompt, response)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


# Back ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Annotation:
    """One labelled response: what a human and what the judge said of it."""

    key: str
    arm: str
    benchmark: str
    language: str
    human: str
    verdict: str
    stratum: str


@dataclass(frozen=True)
class Annotations:
    """The labels of a sheet, joined with its key.

    Attributes:
        labelled: in the order of the sheet.
        strata: responses there were in each stratum.
        unlabelled: rows whose label is blank.
        missing: rows that were handed out and are not in the sheet.
        changed: rows whose prompt or response is not the one handed out; their labels are left out.
    """

    labelled: tuple[Annotation, ...]
    strata: Mapping[str, int]
    unlabelled: int
    missing: int
    changed: int

    def agreement(self, positive: Sequence[str] = (), level: float = LEVEL) -> Agreement:
        """The judge against these labels, unweighted."""
        return compare_labels(
            [row.human for row in self.labelled],
            [row.verdict for row in self.labelled],
            names=("human labels", "judge"),
            positive=positive,
            level=level,
        )


def read_annotations(path: Path | str, key: Path | str | None = None) -> Annotations:
    """The labels of a sheet, with what was hidden from the annotator.

    Args:
        path: the sheet, with labels; columns may be added or moved.
        key: its key; by default the file beside it.

    Raises:
        EvaluationError: a file or column that is missing, a label that is none of `LABELS`, a row
            twice, or a row that the key does not know.
    """
    path = Path(path)
    hidden, strata = _read_key(Path(key) if key else key_of(path))
    columns, rows = read_sheet(path)
    for name in ("row_key", "prompt", "response", "label"):
        if name not in columns:
            raise EvaluationError(f"{path} has no column {name!r}; columns: {', '.join(columns)}")
    names = [row["row_key"].strip() for row in rows]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise EvaluationError(
            f"{path} holds rows more than once: {listed(twice)}; keep one of each"
        )
    strangers = [name for name in names if name not in hidden]
    if strangers:
        raise EvaluationError(
            f"{path}: {len(strangers)} of {len(names)} rows are not in its key: "
            f"{listed(strangers)}; give the key written with this sheet (--key)"
        )
    labelled, changed, blank = [], 0, 0
    for name, row in zip(names, rows, strict=True):
        label = _label(row["label"], path, name)
        if not label:
            blank += 1
        elif _digest(row["prompt"], row["response"]) != hidden[name]["digest"]:
            changed += 1
        else:
            labelled.append(_joined(hidden[name], label))
    return Annotations(tuple(labelled), strata, blank, len(hidden) - len(rows), changed)


def _label(text: str, path: Path, row: str) -> str:
    label = text.strip().casefold()
    if label and label not in LABELS:
        raise EvaluationError(
            f"{path}, row {row}: {text.strip()!r} is no label{nearest(label, LABELS)}"
        )
    return label


def _joined(hidden: Mapping[str, str], label: str) -> Annotation:
    return Annotation(
        key=hidden["key"],
        arm=hidden["arm"],
        benchmark=hidden["benchmark"],
        language=hidden["language"],
        human=label,
        verdict=hidden["verdict"],
        stratum=hidden["stratum"],
    )


def _read_key(path: Path) -> tuple[dict[str, dict[str, str]], dict[str, int]]:
    try:
        key = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EvaluationError(
            f"the key {path} cannot be read ({error.strerror}); it was written with the sheet, "
            "name it with --key"
        ) from error
    except ValueError as error:
        raise EvaluationError(f"the key {path} is not JSON: {error}") from error
    if not isinstance(key, dict) or key.get("format") != KEY_FORMAT:
        raise EvaluationError(f"{path} is not a key written by this version of safeswap annotate")
    fields = {"key", "arm", "benchmark", "language", "verdict", "stratum", "digest"}
    try:
        rows: dict[str, dict[str, str]] = key["rows"]
        strata = {name: int(entry["size"]) for name, entry in key["strata"].items()}
        whole = all(fields <= set(row) and row["stratum"] in strata for row in rows.values())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"the key {path} is damaged: {error!r}") from error
    if not whole:
        raise EvaluationError(f"the key {path} is damaged: a row lacks a field or its stratum")
    return rows, strata


# Error rates of the judge -------------------------------------------------------------------------


@dataclass(frozen=True)
class WeightedRate:
    """A share of weighted labels.

    Attributes:
        value: Σ w · right / Σ w; None without labels.
        interval: Wilson's, at the effective size; (0, 1) without labels.
        labels: how many labels it rests on.
        effective: the size of a plain sample that would be as informative, (Σw)² / Σw² (Kish 1965).
    """

    value: float | None
    interval: Interval
    labels: int
    effective: float

    @property
    def counts(self) -> tuple[float, float]:
        """(k, n) at the effective size, as `rogan_gladen` takes them."""
        return (self.value or 0.0) * self.effective, self.effective


@dataclass(frozen=True)
class WeightedErrorRates:
    """The judge's sensitivity and specificity over all responses, not only those sampled.

    Attributes:
        sensitivity: called positive, of those that a human calls positive.
        specificity: called negative, of those that a human calls negative.
        unparsed: labelled responses whose verdict is unparsed; in neither rate.
        uncovered: responses in strata without a label; the rates say nothing about them.
    """

    sensitivity: WeightedRate
    specificity: WeightedRate
    unparsed: int
    uncovered: int


def weighted_error_rates(
    annotations: Annotations,
    positive: Sequence[str] = ("unsafe",),
    judge_positive: Sequence[str] | None = None,
    level: float = LEVEL,
) -> WeightedErrorRates:
    """Sensitivity and specificity with every label standing for its share of its stratum.

    A label weighs (responses in its stratum) / (labels in its stratum), so strata that were
    sampled densely do not count for more than they are (Horvitz & Thompson 1952). Verdicts are in
    the strata, and unweighted rates would describe the sample, not the judge.

    Args:
        positive: human labels that are positive.
        judge_positive: verdicts that are positive, by default the same; add ``controversial`` for
            the strict reading of a guard model.

    Raises:
        EvaluationError: a positive label that no human could have given.
    """
    for label in positive:
        if label not in LABELS:
            raise EvaluationError(f"{label!r} is no label{nearest(label, LABELS)}")
    called = set(positive if judge_positive is None else judge_positive)
    per_stratum = Counter(row.stratum for row in annotations.labelled)
    weights: dict[bool, list[tuple[float, bool]]] = {True: [], False: []}
    unparsed = 0
    for row in annotations.labelled:
        if row.verdict == UNPARSED:
            unparsed += 1
            continue
        truth = row.human in positive
        weight = annotations.strata[row.stratum] / per_stratum[row.stratum]
        weights[truth].append((weight, (row.verdict in called) == truth))
    uncovered = sum(n for name, n in annotations.strata.items() if name not in per_stratum)
    return WeightedErrorRates(
        _weighted(weights[True], level), _weighted(weights[False], level), unparsed, uncovered
    )


def _weighted(labels: Sequence[tuple[float, bool]], level: float) -> WeightedRate:
    if not labels:
        return WeightedRate(None, Interval(0.0, 1.0), 0, 0.0)
    total = sum(weight for weight, _ in labels)
    effective = total**2 / sum(weight**2 for weight, _ in labels)
    value = min(1.0, sum(weight for weight, right in labels if right) / total)
    return WeightedRate(value, wilson(value * effective, effective, level), len(labels), effective)
