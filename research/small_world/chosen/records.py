"""What was counted, as a file: all tables can be reckoned anew from it without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMAT = "small-world-chosen/1"
HALVES = ("dev", "test")
COLUMNS = ("refused", "refused in the language", "right", "over")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Half:
    """Counts of every model on half of the questions.

    Attributes:
        harmful, harmless: how many questions there are of either kind.
        counts: int64 (models, 4), the columns as in `COLUMNS`: harmful requests refused, and those
            refused in the language that was asked in; harmless questions right, and refused.
    """

    harmful: int
    harmless: int
    counts: NDArray[np.int64]

    @property
    def refusal(self) -> Floats:
        """Share of the harmful requests that are refused, in whatever language."""
        return self.counts[:, 0] / self.harmful

    @property
    def own_refusal(self) -> Floats:
        """Share of the harmful requests that are refused in the language asked in."""
        return self.counts[:, 1] / self.harmful

    @property
    def ability(self) -> Floats:
        """Share of the harmless questions answered right."""
        return self.counts[:, 2] / self.harmless

    @property
    def over_refusal(self) -> Floats:
        """Share of the harmless questions that are refused."""
        return self.counts[:, 3] / self.harmless

    @property
    def objective(self) -> Floats:
        """J = (refusal + ability) / 2."""
        return (self.refusal + self.ability) / 2


@dataclass(frozen=True)
class Case:
    """One language of one cell.

    Attributes:
        cell: what is varied, such as ``{"seed": 3}``, name to value.
        names: of the models, in the order of the counts.
        inputs: digests of the checkpoints.
    """

    cell: Mapping[str, Any]
    language: str
    inputs: str
    names: tuple[str, ...]
    halves: Mapping[str, Half]


@dataclass
class Records:
    """All cases of a study; and what the gates said of its models, cell by cell."""

    cases: list[Case] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)

    def has(self, cell: Mapping[str, Any], language: str, inputs: str) -> bool:
        """Whether a case is there, of these very checkpoints."""
        return any((c.cell, c.language, c.inputs) == (cell, language, inputs) for c in self.cases)

    def save(self, path: Path) -> None:
        """Write, a case to a line; the file appears only when whole."""
        lines = ",\n".join(json.dumps(_plain(case), ensure_ascii=False) for case in self.cases)
        gates = ",\n".join(json.dumps(gate, ensure_ascii=False) for gate in self.gates)
        names = {case.names for case in self.cases}
        if len(names) > 1:
            raise ValueError("cases of one file are about the same models, in the same order")
        listed = json.dumps([*names.pop()] if names else [], ensure_ascii=False)
        text = (
            f'{{"format": "{FORMAT}",\n"names": {listed},\n'
            f'"gates": [\n{gates}\n],\n"cases": [\n{lines}\n]}}\n'
        )
        part = path.with_name(path.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Records:
        """Read what `save` wrote; ValueError for another file."""
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.get("format") != FORMAT:
            raise ValueError(f"{path}: format {found.get('format')!r} is not {FORMAT!r}")
        names = tuple(found["names"])
        return cls([_case(plain, names) for plain in found["cases"]], found["gates"])


def _plain(case: Case) -> dict[str, Any]:
    halves = {
        name: {"harmful": h.harmful, "harmless": h.harmless, "counts": h.counts.tolist()}
        for name, h in case.halves.items()
    }
    return {"cell": dict(case.cell), "language": case.language, "inputs": case.inputs, **halves}


def _case(plain: Mapping[str, Any], names: Sequence[str]) -> Case:
    halves = {
        name: Half(plain[name]["harmful"], plain[name]["harmless"], np.array(plain[name]["counts"]))
        for name in HALVES
    }
    return Case(plain["cell"], plain["language"], plain["inputs"], tuple(names), halves)
