"""The error rates of a judge over all responses, from the labels of a stratified sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from safeswap.errors import EvaluationError, nearest
from safeswap.evaluation.human.agreement import UNPARSED
from safeswap.evaluation.human.labels import Annotations
from safeswap.evaluation.human.sampling import LABELS
from safeswap.evaluation.stats import LEVEL, Interval, load, wilson


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
        """(k, n) at the effective size, as ``rogan_gladen`` takes them."""
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


def of_language(annotations: Annotations, benchmarks: Collection[str], code: str) -> Annotations:
    """The labels of responses to these benchmarks in one language, with the strata they are of."""
    labelled = tuple(
        one for one in annotations.labelled if one.language == code and one.benchmark in benchmarks
    )
    own = {one.stratum for one in labelled}
    strata = {
        name: size
        for name, size in annotations.strata.items()
        if name in own or _is_of(name, benchmarks, code)
    }
    return replace(annotations, labelled=labelled, strata=strata)


def _is_of(stratum: str, benchmarks: Collection[str], code: str) -> bool:
    """Whether a stratum (``arm / benchmark / language / verdict``) is of a language."""
    parts = stratum.split(" / ")
    return len(parts) == 4 and parts[1] in benchmarks and parts[2] == code


def models_differ(
    annotations: Annotations, judge_positive: Collection[str]
) -> tuple[str, float] | None:
    """Whether the judge errs otherwise on some models than on others; what differs, and its p.

    A permutation of whole labels would need their weights; here each of sensitivity and specificity
    is a table of models by right and wrong, tested exactly for two models (Fisher) and by χ² for
    more. None where p is not below 5 % after both were looked at, or with fewer than two models.
    """
    found: list[tuple[str, float]] = []
    for truth, name in ((True, "sensitivity"), (False, "specificity")):
        counts: dict[str, list[int]] = {}
        for one in annotations.labelled:
            if one.verdict != UNPARSED and (one.human == "unsafe") == truth:
                right = (one.verdict in judge_positive) == truth
                counts.setdefault(one.arm, [0, 0])[not right] += 1
        table = list(counts.values())
        if len(table) < 2 or not all(map(sum, zip(*table, strict=True))):
            continue
        stats = load("scipy.stats")
        test = stats.fisher_exact if len(table) == 2 else stats.chi2_contingency
        found.append((name, float(test(table)[1])))
    worst = min(found, key=lambda one: one[1], default=None)
    return worst if worst is not None and 2 * worst[1] < 0.05 else None


def _weighted(labels: Sequence[tuple[float, bool]], level: float) -> WeightedRate:
    if not labels:
        return WeightedRate(None, Interval(0.0, 1.0), 0, 0.0)
    total = sum(weight for weight, _ in labels)
    effective = total**2 / sum(weight**2 for weight, _ in labels)
    value = min(1.0, sum(weight for weight, right in labels if right) / total)
    return WeightedRate(value, wilson(value * effective, effective, level), len(labels), effective)
