"""Two columns of labels against each other: accuracy, κ, sensitivity, specificity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.human.label_sheet import LabelSheet
from safeswap.evaluation.stats import (
    DRAWS,
    LEVEL,
    Interval,
    Rate,
    percentiles,
    rate_by_clusters,
    resampled_sums,
)
from safeswap.io.csvfile import need_column

VERDICTS = ("safe", "unsafe", "controversial", "invalid")  # a judge's words, also if no human's
UNPARSED = "unparsed"
ALL_ROWS = "all rows"

Kind = Literal["judge", "annotators"]


@dataclass(frozen=True)
class ClassRates:
    """How a judge does on one class, or on several taken together as the positive ones.

    Attributes:
        positive: the labels that count as positive; all others are negative.
        sensitivity: called positive, of those that a human called positive.
        specificity: called negative, of those that a human called negative.
    """

    positive: tuple[str, ...]
    sensitivity: Rate
    specificity: Rate


@dataclass(frozen=True)
class Agreement:
    """One judge against human labels, or one annotator against another.

    Attributes:
        human, judge: the names of the two.
        kind: "judge" or "annotators".
        group: the part of the rows this is about, such as a model; None for all.
        labels: the classes, as the humans use them; the rows of ``confusion``.
        answers: its columns: the labels, verdicts that only the judge gives, and ``unparsed``.
        confusion: how often each answer was given to each label.
        accuracy: the same label, of all rows with a human label; unparsed answers are wrong.
        kappa: Cohen's κ; None where it is undefined, and ``kappa_reason`` says why.
        kappa_interval: by bootstrap, of rows, or of prompts where several rows answer one.
        classes: per positive set.
        unlabelled: rows without a human label (or "unparsed"), or without both annotators'; they
            are not compared.
        blank: rows where the judge has no answer; unparsed.
        foreign: answers that are no label, and how often; unparsed.
    """

    human: str
    judge: str
    kind: Kind
    group: str | None
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    accuracy: Rate
    kappa: float | None
    kappa_interval: Interval | None
    kappa_reason: str | None
    classes: tuple[ClassRates, ...]
    unlabelled: int
    blank: int
    foreign: Mapping[str, int]

    @property
    def n(self) -> int:
        """Rows with a human label."""
        return self.accuracy.n

    @property
    def unparsed(self) -> int:
        """Rows with a human label where the judge's answer could not be read."""
        return sum(row[self.answers.index(UNPARSED)] for row in self.confusion)


def cohen_kappa(confusion: NDArray[Any]) -> NDArray[np.float64]:
    """Cohen's κ of square tables of counts, over the last two axes (Cohen 1960).

    ``κ = (p_o − p_e) / (1 − p_e)``: ``p_o`` is the share on the diagonal, ``p_e`` what it would be
    by chance, ``Σ_k row_k · column_k``. nan where ``p_e`` is 1.
    """
    counts = np.asarray(confusion, np.float64)
    shares = counts / counts.sum((-2, -1), keepdims=True)
    seen = np.trace(shares, axis1=-2, axis2=-1)
    chance = (shares.sum(-1) * shares.sum(-2)).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kappa: NDArray[np.float64] = np.where(chance < 1, (seen - chance) / (1 - chance), np.nan)
    return kappa


def compare_labels(
    human: Sequence[str],
    judge: Sequence[str],
    *,
    names: tuple[str, str] = ("human", "judge"),
    positive: Sequence[str] = (),
    kind: Kind = "judge",
    group: str | None = None,
    prompts: Sequence[Hashable] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> Agreement:
    """The agreement of two columns of labels.

    Args:
        human, judge: one label per row; blank is none. Capitals and outer spaces do not count.
        names: of the two, for the table and for messages.
        positive: the labels taken as positive for sensitivity and specificity; by default
            ``unsafe`` if it is a label, else every class in turn.
        kind: of "annotators" only rows that both have labelled are compared.
        group: what part of the rows this is, for the table.
        prompts: what each row answers; repeated prompts are resampled as wholes.
        draws, seed, level: of the intervals.

    Raises:
        EvaluationError: columns of other lengths, no human label at all, no answer that is a
            label, or a positive label that neither side has.
    """
    scheme = _scheme(human, judge, names, kind, positive)
    return _measured(scheme, human, judge, group, prompts, draws, seed, level)


@dataclass(frozen=True)
class PairAgreement:
    """How far two columns of labels agree where both have one.

    Attributes:
        same: the share of rows with the same label.
        kappa: Cohen's κ; None where it is undefined, and ``kappa_reason`` says why.
        kappa_interval: by bootstrap, of whole prompts where several rows answer one.
    """

    same: Rate
    kappa: float | None
    kappa_interval: Interval | None
    kappa_reason: str | None


def agreement_of_pair(
    first: Sequence[str], second: Sequence[str], prompts: Sequence[Hashable], name: str
) -> PairAgreement:
    """The agreement of two columns that are labelled throughout, as ``compare_labels`` has it.

    Args:
        first, second: a label per row, at least one.
        prompts: what each row answers; repeated prompts are resampled as wholes.
        name: of the first column, for the reason.
    """
    tables = _confusions(first, second, sorted({*first, *second}), prompts)
    same = [float(a == b) for a, b in zip(first, second, strict=True)]
    kappa, interval, reason = _kappa(tables, set(first), name, DRAWS, 0, LEVEL)
    return PairAgreement(rate_by_clusters(same, prompts), kappa, interval, reason)


@dataclass(frozen=True)
class _Scheme:
    """What the labels of two columns are, so that parts of the rows are read as the whole is."""

    names: tuple[str, str]
    kind: Kind
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    positives: tuple[tuple[str, ...], ...]


def _scheme(
    human: Sequence[str],
    judge: Sequence[str],
    names: tuple[str, str],
    kind: Kind,
    positive: Sequence[str],
) -> _Scheme:
    if len(human) != len(judge):
        raise EvaluationError(f"{len(human)} labels of {names[0]} but {len(judge)} of {names[1]}")
    labels = _spellings([*human, *judge] if kind == "annotators" else human)
    if not any(map(_given, human)):
        raise EvaluationError(f"no row has a label of {names[0]!r}; fill them in first")
    if not _labelled(human, judge, kind):
        raise EvaluationError(f"no row has a label of both {names[0]!r} and {names[1]!r}")
    said, foreign = _read_answers(judge, (*VERDICTS, *positive, *labels))
    if foreign and all(answer == UNPARSED for answer in said):
        first = next(iter(foreign))
        raise EvaluationError(
            f"no answer of {names[1]!r} is a label of {names[0]!r}: {shortened(first)!r} is none "
            f"of {', '.join(labels)}"
        )
    extra = sorted({answer for answer in said if answer not in labels and answer != UNPARSED})
    answers = (*labels, *extra, UNPARSED)
    return _Scheme(names, kind, labels, answers, _positive_sets(positive, labels, answers, names))


def _measured(
    scheme: _Scheme,
    human: Sequence[str],
    judge: Sequence[str],
    group: str | None,
    prompts: Sequence[Hashable] | None,
    draws: int,
    seed: int,
    level: float,
) -> Agreement:
    kept = _labelled(human, judge, scheme.kind)
    true, _ = _read_answers([human[index] for index in kept], scheme.labels)
    said, foreign = _read_answers([judge[index] for index in kept], scheme.answers)
    units = kept if prompts is None else [prompts[index] for index in kept]
    tables = _confusions(true, said, scheme.answers, units)
    whole = tables.sum(0)[: len(scheme.labels)]
    kappa, interval, reason = _kappa(tables, set(true), scheme.names[0], draws, seed, level)
    return Agreement(
        human=scheme.names[0],
        judge=scheme.names[1],
        kind=scheme.kind,
        group=group,
        labels=scheme.labels,
        answers=scheme.answers,
        confusion=tuple(tuple(int(count) for count in row) for row in whole),
        accuracy=rate_by_clusters(
            [float(a == b) for a, b in zip(true, said, strict=True)], units, level
        ),
        kappa=kappa,
        kappa_interval=interval,
        kappa_reason=reason,
        classes=tuple(
            _class_rates(chosen, true, said, level, units) for chosen in scheme.positives
        ),
        unlabelled=len(human) - len(kept),
        blank=sum(not judge[index].strip() for index in kept),
        foreign=foreign,
    )


def _labelled(human: Sequence[str], judge: Sequence[str], kind: Kind) -> list[int]:
    """The rows to compare: a judge that says nothing is wrong, an annotator was not asked."""
    pairs = enumerate(zip(human, judge, strict=True))
    return [i for i, (a, b) in pairs if _given(a) and (_given(b) or kind == "judge")]


def _given(label: str) -> bool:
    return label.strip().casefold() not in ("", UNPARSED)


def _spellings(labels: Sequence[str]) -> tuple[str, ...]:
    """The different labels, each as it is first spelled."""
    first: dict[str, str] = {}
    for label in labels:
        if _given(label):
            first.setdefault(label.strip().casefold(), label.strip())
    return tuple(sorted(first.values()))


def _read_answers(answers: Sequence[str], known: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Each answer as one of the known words or ``unparsed``; and what was none, counted."""
    spelling = {word.strip().casefold(): word for word in known}
    said: list[str] = []
    foreign: Counter[str] = Counter()
    for answer in answers:
        word = answer.strip()
        said.append(spelling.get(word.casefold(), UNPARSED))
        if word and said[-1] == UNPARSED and word.casefold() != UNPARSED:
            foreign[word] += 1
    return said, dict(foreign.most_common())


def _positive_sets(
    positive: Sequence[str], labels: Sequence[str], answers: Sequence[str], names: tuple[str, str]
) -> tuple[tuple[str, ...], ...]:
    if not positive:
        unsafe = tuple((label,) for label in labels if label.casefold() == "unsafe")
        return unsafe or tuple((label,) for label in labels)
    by_form = {answer.casefold(): answer for answer in answers}
    for label in positive:
        if label.strip().casefold() not in by_form or label.strip().casefold() == UNPARSED:
            known = [answer for answer in answers if answer != UNPARSED]
            raise EvaluationError(
                f"no label of {names[0]!r} or {names[1]!r} is {label!r}{nearest(label, known)}"
            )
    return (tuple(dict.fromkeys(by_form[label.strip().casefold()] for label in positive)),)


def _confusions(
    true: Sequence[str],
    said: Sequence[str],
    answers: Sequence[str],
    prompts: Sequence[Hashable],
) -> NDArray[np.int64]:
    """Square tables of counts, one per prompt."""
    number = {answer: index for index, answer in enumerate(answers)}
    units: dict[Hashable, int] = {}
    tables: dict[int, Counter[tuple[int, int]]] = {}
    for name, a, b in zip(prompts, true, said, strict=True):
        unit = units.setdefault(name, len(units))
        tables.setdefault(unit, Counter())[number[a], number[b]] += 1
    counts = np.zeros((len(units), len(answers), len(answers)), np.int64)
    for unit, table in tables.items():
        for place, count in table.items():
            counts[unit][place] = count
    return counts


def _kappa(
    tables: NDArray[np.int64],
    seen: Collection[str],
    name: str,
    draws: int,
    seed: int,
    level: float,
) -> tuple[float | None, Interval | None, str | None]:
    """κ, its interval over resampled units, and why there is none."""
    if not seen:
        return None, None, "No row is labelled."
    if len(seen) < 2:
        return None, None, f"κ is undefined: {name} has one class only, {min(seen)!r}."
    flat = resampled_sums(tables.reshape(len(tables), -1), draws, seed)
    drawn = cohen_kappa(flat.reshape(-1, *tables.shape[1:]))
    return float(cohen_kappa(tables.sum(0))), percentiles(drawn, level), None


def _class_rates(
    positive: tuple[str, ...],
    true: Sequence[str],
    said: Sequence[str],
    level: float,
    units: Sequence[Hashable],
) -> ClassRates:
    """Sensitivity and specificity among parsed answers; the unparsed are counted beside."""

    def rate(of_positive: bool) -> Rate:
        chosen = [
            (np.nan if b == UNPARSED else float((b in positive) == of_positive), unit)
            for a, b, unit in zip(true, said, units, strict=True)
            if (a in positive) == of_positive
        ]
        return rate_by_clusters([value for value, _ in chosen], [unit for _, unit in chosen], level)

    return ClassRates(positive, rate(True), rate(False))


def agreements(
    sheet: LabelSheet,
    positive: Sequence[str] = (),
    by: str | None = None,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
) -> list[Agreement]:
    """Every comparison of a sheet: annotators with each other, then each judge with the humans.

    With ``by``, once for all rows and once for each value of that column.

    Raises:
        EvaluationError: whatever ``compare_labels`` refuses, or no column ``by``.
    """
    pairs = [(a, b) for i, a in enumerate(sheet.annotators) for b in sheet.annotators[i + 1 :]]
    pairs += [(sheet.human, judge) for judge in sheet.judges]
    groups = _groups(sheet, by)
    schemes = []
    for names in pairs:
        first, second = ([row[name] for row in sheet.rows] for name in names)
        kind: Kind = "annotators" if names[0] != sheet.human else "judge"
        chosen = positive if kind == "judge" else ()
        schemes.append(_scheme(first, second, names, kind, chosen))
    found = []
    for group, rows in groups:
        prompts = [row[sheet.identity[-1]] for row in rows] if sheet.identity else None
        for scheme in schemes:
            human, judge = ([row[name] for row in rows] for name in scheme.names)
            found.append(_measured(scheme, human, judge, group, prompts, draws, seed, level))
    return found


def _groups(sheet: LabelSheet, by: str | None) -> list[tuple[str | None, list[Mapping[str, str]]]]:
    rows = list(sheet.rows)
    if by is None:
        return [(None, rows)]
    need_column(by, list(rows[0]), sheet.path, EvaluationError)
    values = dict.fromkeys(row[by] for row in rows)
    parts = [(f"{by} {value}", [row for row in rows if row[by] == value]) for value in values]
    return [(ALL_ROWS, rows), *parts]


def shortened(text: str) -> str:
    """A foreign answer, cut to fit a message."""
    return text if len(text) <= 40 else text[:39] + "…"
