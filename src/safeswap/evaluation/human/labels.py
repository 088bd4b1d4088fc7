"""Back: the labels of a sheet, joined with what its key knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap.errors import EvaluationError, listed, nearest
from safeswap.evaluation.human.agreement import Agreement, compare_labels
from safeswap.evaluation.human.label_sheet import read_sheet
from safeswap.evaluation.human.sampling import KEY_FORMAT, LABELS, digest, key_of
from safeswap.evaluation.stats import LEVEL
from safeswap.io.csvfile import need_column
from safeswap.io.jsonfile import load_json


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

    @property
    def left_out(self) -> str:
        """How many rows are not among the labelled, and why; empty where all are."""
        parts = (
            (self.unlabelled, "not labelled yet"),
            (self.changed, "left out, for their text is not the one handed out"),
            (self.missing, "handed out and not in the sheet"),
        )
        return "; ".join(f"{number} {what}" for number, what in parts if number)

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
        EvaluationError: a file or column that is missing, a label that is none of ``LABELS``, a row
            twice, or a row that the key does not know.
    """
    path = Path(path)
    hidden, strata = _read_key(Path(key) if key else key_of(path))
    columns, rows = read_sheet(path)
    for name in ("row_key", "prompt", "response", "label"):
        need_column(name, columns, path, EvaluationError)
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
            f"{listed(strangers)}; put the key written with this sheet beside it, or name it with "
            "--key FILE"
        )
    labelled, changed, blank = [], 0, 0
    for name, row in zip(names, rows, strict=True):
        label = _label(row["label"], path, name)
        if not label:
            blank += 1
        elif digest(row["prompt"], row["response"]) != hidden[name]["digest"]:
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
        key = load_json(path, constants=True)
    except OSError as error:
        beside = sorted(found.name for found in path.parent.glob("*.key.json"))
        here = f"; keys in this folder: {listed(beside)}" if beside else ""
        raise EvaluationError(
            f"the key {path} cannot be read ({error.strerror}); `safeswap label sample` wrote it "
            "with the sheet: put it beside the sheet under this name, or name it with --key FILE "
            f"if the sheet was renamed{here}"
        ) from error
    except ValueError as error:
        raise EvaluationError(f"the key {path} is not JSON: {error}") from error
    if not isinstance(key, dict) or key.get("format") != KEY_FORMAT:
        raise EvaluationError(
            f"{path} is not a key written by this version of safeswap label sample"
        )
    fields = {"key", "arm", "benchmark", "language", "verdict", "stratum", "digest"}
    try:
        rows: dict[str, dict[str, str]] = key["rows"]
        strata = {name: int(entry["size"]) for name, entry in key["strata"].items()}
        whole = all(fields <= set(row) and row["stratum"] in strata for row in rows.values())
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvaluationError(f"the key {path} is damaged: {error!r}") from error
    if not whole:
        raise EvaluationError(f"the key {path} is damaged: a row lacks a field or its stratum")
    return rows, strata
