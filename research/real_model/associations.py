"""Does the rule's number say what a unit does? Tables from what ``real_model.units`` kept.

    python -m real_model.associations real_model/results/*-units.json

Per cell: Spearman's rank correlation, over attentions and MLPs, between the difference of shares d
that the paper's rule decides by (positive: the unit is a larger part of the safety expert's update)
and what the unit does; and where the rule's own table stands among random tables that give as many
units to each expert. With 36 units a correlation of 0.33 is p = 0.05.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from real_model.figures import figures
from real_model.methods import RULE
from real_model.tables import markdown

DIGITS = {"selectivity": 3}  # a difference of probabilities; the others are in nats
READOUTS = ("refusing", "overrefusing", "english", "selectivity", "ability")


def correlations(
    shares: Mapping[str, Sequence[float]], units: Mapping[str, Any]
) -> dict[tuple[str, str], tuple[float, float]]:
    """(``in`` or ``out``, readout) to Spearman's ρ with d, and its p."""
    names = [name for name in units if name in shares]
    d = [shares[name][2] for name in names]
    found = {}
    for way in ("in", "out"):
        for readout in READOUTS:
            effect = [units[name][way][readout] for name in names]
            one = spearmanr(d, effect)
            found[way, readout] = float(one.statistic), float(one.pvalue)
    return found


def agreement(
    record: Mapping[str, Any], tables: Mapping[str, Mapping[str, float]]
) -> dict[str, tuple[float, int]]:
    """Readout to Spearman's ρ with what the same models answered, and how many models both have."""
    names = [name for name in record["models"] if name in tables]
    answered = {name: figures(record, name) for name in names}
    said = {
        "refusing": [answered[name].harmful for name in names],
        "english": [answered[name].english for name in names],
        "ability": [-answered[name].nats for name in names],
    }
    return {
        readout: (
            float(spearmanr([tables[name][readout] for name in names], values).statistic),
            len(names),
        )
        for readout, values in said.items()
    }


def standing(tables: Mapping[str, Mapping[str, float]], name: str = RULE) -> dict[str, int]:
    """For each readout, how many of the random tables a table exceeds; and how many there are."""
    random = [values for key, values in tables.items() if key.startswith("random-")]
    found = {
        readout: sum(tables[name][readout] > values[readout] for values in random)
        for readout in READOUTS
    }
    return {**found, "of": len(random)}


def readout_rows(tables: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """A row for every table; of the random ones, the range."""
    rows = [
        [name, *(_said(values[one], one) for one in READOUTS), f"{100 * values['moved']:.2f}"]
        for name, values in tables.items()
        if not name.startswith("random-")
    ]
    random = [values for key, values in tables.items() if key.startswith("random-")]
    ends = [
        (_said(min(v[one] for v in random), one), _said(max(v[one] for v in random), one))
        for one in READOUTS
    ]
    return [*rows, ["random", *(f"{low} to {high}" for low, high in ends), ""]]


def _said(value: float, readout: str) -> str:
    return f"{value:.{DIGITS.get(readout, 2)}f}"


def _rank(rho: float, p: float) -> str:
    """None where a readout is the same for every unit."""
    return "n/a" if rho != rho else f"{rho:+.2f} (p = {p:.2g})"


def report(cell: str, record: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """All of one cell in Markdown."""
    pairs = correlations(record["shares"], found["units"])
    header = ["a unit from the safety expert", *READOUTS]
    rows = [
        [words, *(_rank(*pairs[way, one]) for one in READOUTS)]
        for way, words in (("in", "put in"), ("out", "left out, sign turned"))
    ]
    lines = [f"## {cell}", "", markdown(header, rows), ""]
    for name in (RULE, "inverted"):
        stands = standing(found["tables"], name)
        beaten = ", ".join(f"{one} {stands[one]}" for one in READOUTS)
        lines.append(f"- {name} exceeds of {stands['of']} random tables: {beaten}")
    for readout, (rho, models) in agreement(record, found["tables"]).items():
        lines.append(f"- {readout} ranks {models} models as their answers do: ρ = {rho:.2f}")
    lines += ["", markdown(["table", *READOUTS, "moved, %"], readout_rows(found["tables"])), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        kept = path.with_name(path.name.replace("-units", ""))
        print(
            report(
                path.stem.removesuffix("-units"),
                json.loads(kept.read_text("utf-8")),
                json.loads(path.read_text("utf-8")),
            )
        )
