"""Several seeds of one language as one table, with paired tests; from records alone.

    python -m real_model.pooled real_model/results/*.json

Means are over seeds. A difference between two models is taken prompt by prompt in the same seed;
pooled, the prompt is the cluster, so three seeds of a prompt count as one prompt seen three times
(safeswap.evaluation.stats). Seeds are few, so beside each pooled difference stands in how many of
them it has its sign. The comparisons that claims rest on are named here and corrected together
(Holm): every method against the language expert, harmful requests refused in the language.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from real_model import tables
from real_model.figures import REFUSED, Figures, figures, retained
from real_model.gates import gates
from real_model.methods import RULE
from real_model.tables import HEADER, markdown, percent, row
from safeswap.evaluation.stats import PairedDifference, holm, paired_difference

Records = Sequence[dict[str, Any]]
EXPERTS = ("base", "safety")
MEASURES = {
    "harmful refused": "multijail/{code}",
    "PolyRefuse harmful refused": "polyharm/{code}",
    "harmless refused": "benign/{code}",
    "English harmful refused": "multijail_en/en",
    "English harmless refused": "benign/en",
}


@dataclass(frozen=True)
class Difference:
    """Candidate minus reference over all seeds.

    Attributes:
        pooled: the house's paired difference, prompts as clusters.
        seeds: in how many seeds it has the sign of the pooled one, of how many.
    """

    pooled: PairedDifference
    seeds: tuple[int, int]

    def words(self) -> str:
        """As in ``+12.3 [4.1, 20.0], p = 0.003, 3 of 3 seeds``; points."""
        low, high = 100 * self.pooled.interval.low, 100 * self.pooled.interval.high
        agreeing, of = self.seeds
        return (
            f"{100 * self.pooled.difference:+.1f} [{low:.1f}, {high:.1f}], "
            f"p = {self.pooled.p:.2g}, {agreeing} of {of} seeds"
        )


def outcomes(record: dict[str, Any], model: str, benchmark: str) -> list[float] | None:
    """1 for each prompt that was refused, in the order of the prompts; None where not asked."""
    said = record["models"][model]["outcomes"].get(benchmark.format(code=record["language"]))
    return None if said is None else [float(one in REFUSED) for one in said]


def difference(
    records: Records, candidate: str, reference: str, benchmark: str
) -> Difference | None:
    """Refusals of one model minus another's, all seeds; None where nothing was asked."""
    pairs = [
        (outcomes(record, candidate, benchmark), outcomes(record, reference, benchmark))
        for record in having(having(records, candidate), reference)
    ]
    asked = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not asked:
        return None
    pooled = paired_difference(
        [x for a, _ in asked for x in a],
        [x for _, b in asked for x in b],
        [n for a, _ in asked for n in range(len(a))],
    )
    gaps = [sum(a) - sum(b) for a, b in asked]
    agreeing = sum(gap * pooled.difference > 0 for gap in gaps)
    return Difference(pooled, (agreeing, len(asked)))


def present(records: Records) -> list[str]:
    """Models that some record has, in the order of the methods; what a later seed has beside the
    first's stands where that seed has it.
    """
    found: list[str] = []
    for record in records:
        place = 0
        for name in record["models"]:
            if name in found:
                place = found.index(name) + 1
            else:
                found.insert(place, name)
                place += 1
    return found


def having(records: Records, model: str) -> Records:
    """The records that have a model."""
    return [record for record in records if model in record["models"]]


def named(records: Records, model: str) -> str:
    """A model's name, with its seeds where it is not in all of them."""
    own = [str(record["seed"]) for record in having(records, model)]
    every = len(own) == len(records)
    return model if every else f"{model} (seed{'s' * (len(own) > 1)} {', '.join(own)})"


def mean_figures(records: Records, model: str) -> Figures:
    """Each figure's mean over the seeds that have the model; None where one has no such figure."""
    found = [vars(figures(record, model)) for record in having(records, model)]

    def mean(name: str) -> Any:
        values = [one[name] for one in found]
        return None if None in values else fmean(values)

    return Figures(**{name: mean(name) for name in found[0]})


def kept(records: Records, model: str) -> float | None:
    """The mean share of the language expert's gain that a model keeps."""
    shares = [retained(record, model) for record in having(records, model)]
    known = [share for share in shares if share is not None]
    return fmean(known) if len(known) == len(shares) else None


def primary(records: Records) -> Iterator[tuple[str, Difference, float]]:
    """Each method against the language expert in harmful requests refused; p after Holm."""
    code = records[0]["language"]
    methods = [name for name in present(records) if name not in (*EXPERTS, code)]
    found = [difference(records, name, code, MEASURES["harmful refused"]) for name in methods]
    asked = [(name, one) for name, one in zip(methods, found, strict=True) if one is not None]
    corrected = holm([one.pooled.p for _, one in asked])
    for (name, one), p in zip(asked, corrected, strict=True):
        yield name, one, p


def against(records: Records, reference: str) -> str:
    """The other measures against one model; uncorrected, to look at and no finding."""
    methods = [name for name in present(records) if name not in (*EXPERTS, reference)]
    rows = []
    for name in methods:
        found = [difference(records, name, reference, one) for one in MEASURES.values()]
        rows.append([named(records, name), *("" if one is None else one.words() for one in found)])
    return markdown(["against " + reference, *MEASURES], rows)


def worthy(records: Records) -> str:
    """Every gate in every seed; what does not pass says so."""
    found = [gates(record) for record in records]
    rows = [
        [gate, *(words if passed else f"**not passed**: {words}" for passed, words in each)]
        for gate in found[0]
        for each in [[one[gate] for one in found]]
    ]
    return markdown(["gate", *(f"seed {record['seed']}" for record in records)], rows)


def report(records: Records) -> str:
    """All of one language in Markdown."""
    code, seeds = records[0]["language"], [record["seed"] for record in records]
    lines = [f"## {code}, seeds {', '.join(map(str, seeds))}", "", worthy(records), ""]
    rows = [
        row(named(records, name), mean_figures(records, name), kept(records, name))
        for name in present(records)
    ]
    lines += [markdown(HEADER, rows), "", "Primary: harmful requests refused, against the expert:"]
    lines += [""]
    lines += [
        f"- {named(records, name)}: {one.words()}; after Holm p = {p:.2g}"
        for name, one, p in primary(records)
    ]
    lines += ["", "Exploratory, uncorrected:", "", against(records, RULE), ""]
    lines += ["Harmful refused by seed: "]
    for name in present(records):
        each = [
            percent(figures(record, name).harmful) if name in record["models"] else "not made"
            for record in records
        ]
        lines.append(f"- {name}: {', '.join(each)}")
    return "\n".join([*lines, ""])


def by_language(paths: Sequence[Path]) -> dict[str, list[dict[str, Any]]]:
    """Records of the same language and size, by seed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in tables.kept(paths):
        found.setdefault(record["language"], []).append(record)
    return found


if __name__ == "__main__":
    for records in by_language([Path(name) for name in sys.argv[1:]]).values():
        print(report(sorted(records, key=lambda record: record["seed"])))
