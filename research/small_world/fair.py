"""Fairer worlds, crossed: what of the small world decides its verdict on rules of norms?

    python -m small_world.fair --out DIR --records FILE [--worlds 0 1] [--bases 0 1]
        [--refusals word content] [--embeddings frozen free] [--norms own matched]
    python -m small_world.fair --records FILE

Every world, base and way to refuse has a base of its own, trained from scratch; its experts (one
seed) train the layers only or everything. ``matched`` scales the safety expert's task vector to the
norm of the language expert's before anything is merged. All worlds have 42 items in each dangerous
category, of which 63 are never shown to the safety expert and are asked for once each. Every family
has its scale chosen on dev (`small_world.chosen`).

What exists is kept, so that an interrupted run continues; the gates of every cell are measured,
kept and printed with the tables, also where they fail. The second command prints from FILE alone.

The world shows a mechanism; it is no evidence about large models.
"""

from __future__ import annotations

import argparse
import itertools
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from safeswap.demo.world import SMALL_LANGUAGES, World
from small_world.chosen.__main__ import collect
from small_world.chosen.choice import compared
from small_world.chosen.measure import Trio
from small_world.chosen.records import Case, Records
from small_world.chosen.tables import compared_table
from small_world.gates import check_gates
from small_world.train import BASE, train_base, train_experts

REFERENCE = "share-difference"
EXPERT_SEED = 0
DANGEROUS_ITEMS = 42
VARIANT = ("refusal", "embeddings", "norms")
UNIT = ("world", "base")


@dataclass(frozen=True)
class Cell:
    """One base and its experts.

    Attributes:
        world, base: seeds.
        refusal: "word" or "content", how a refusal is told.
        embeddings: "frozen" or "free" in the experts.
    """

    world: int
    base: int
    refusal: str
    embeddings: str

    @property
    def key(self) -> dict[str, Any]:
        """As in the records."""
        return {name: getattr(self, name) for name in ("world", "base", "refusal", "embeddings")}

    def made_of(self) -> World:
        """The world that the models live in."""
        by_content = self.refusal == "content"
        return World(
            self.world,
            dangerous_items=DANGEROUS_ITEMS,
            wordings=1,
            refuses_by_content=by_content,
        )

    def trained(self, out: Path, steps: int) -> tuple[Path, dict[str, Path]]:
        """Base and experts, trained as far as they are not there."""
        folder = out / f"world-{self.world}-{self.refusal}-base-{self.base}"
        world, frozen = self.made_of(), self.embeddings == "frozen"
        base = train_base(world, folder, self.base, replace(BASE, steps=steps))
        return base, train_experts(world, folder, EXPERT_SEED, layers_only=frozen)

    def trios(self, base: Path, experts: Mapping[str, Path], norms: str) -> Iterator[Trio]:
        """The three languages; with the safety expert scaled to each where norms are matched."""
        for code in SMALL_LANGUAGES:
            language, safety = experts[code], experts["safety"]
            if norms == "matched":
                safety = matched(base, safety, language, safety.with_name(f"safety-as-{code}"))
            key = {**self.key, "norms": norms}
            yield Trio(key, self.made_of(), code, base, safety, language, EXPERT_SEED)


def matched(base: Path, safety: Path, language: Path, out: Path) -> Path:
    """The safety expert with its task vector as long as the language expert's, stored in bf16.

    Norms are of all tensors together. A folder that is there is kept.
    """
    from safetensors.torch import load_file, save_file

    if out.is_dir():
        return out
    start, safe, spoken = (
        load_file(folder / "model.safetensors") for folder in (base, safety, language)
    )
    scale = _length(start, spoken) / _length(start, safe)
    made = {
        name: (weight.float() + scale * (safe[name].float() - weight.float())).to(weight.dtype)
        for name, weight in start.items()
    }
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(safety, part)
    save_file(made, part / "model.safetensors", metadata={"format": "pt"})
    part.rename(out)
    return out


def _length(base: Mapping[str, torch.Tensor], expert: Mapping[str, torch.Tensor]) -> float:
    """‖t‖ over all tensors."""
    squares = ((expert[n].double() - w.double()).square().sum() for n, w in base.items())
    return math.sqrt(sum(float(square) for square in squares))


def gates_of(cell: Cell, base: Path, experts: Mapping[str, Path]) -> dict[str, Any]:
    """All gates of a cell, as the records keep them."""
    found = check_gates(base, experts, cell.made_of())
    return {
        "cell": cell.key,
        "gates": [[gate.name, gate.figures, bool(gate.holds)] for gate in found],
    }


def report(records: Records) -> str:
    """Gates, then a table for every variant; the unit of the tests is world × base."""
    parts = []
    for found in records.gates:
        failing = [f"{name}: {figures}" for name, figures, holds in found["gates"] if not holds]
        said = "; ".join(failing) or "all hold"
        parts.append(f"{_said(found['cell'])}: {len(failing)} of {len(found['gates'])} gates fail"
                     f" ({said})")  # fmt: skip
    variants = dict.fromkeys(tuple(case.cell[name] for name in VARIANT) for case in records.cases)
    for variant in variants:
        own = [c for c in records.cases if tuple(c.cell[name] for name in VARIANT) == variant]
        units = {unit_of(case) for case in own}
        title = ", ".join(f"{name} {value}" for name, value in zip(VARIANT, variant, strict=True))
        parts.append(f"**{title}** ({len(units)} of world × base, {len(own)} languages in all)")
        parts.append(compared_table(compared(own, unit_of, REFERENCE)))
    return "\n\n".join(parts)


def unit_of(case: Case) -> tuple[Any, ...]:
    """What the tests count once."""
    return tuple(case.cell[name] for name in UNIT)


def _said(cell: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in cell.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and measure what is missing, cell by cell, then print."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.fair",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, help="folder for the checkpoints")
    parser.add_argument("--records", type=Path, required=True, help="the counts, JSON")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0, 1], metavar="N")
    parser.add_argument("--bases", type=int, nargs="+", default=[0, 1], metavar="N")
    for name, words in (
        ("refusals", ["word", "content"]),
        ("embeddings", ["frozen", "free"]),
        ("norms", ["own", "matched"]),
    ):
        parser.add_argument(f"--{name}", nargs="+", choices=words, default=words)
    parser.add_argument("--base-steps", type=int, default=BASE.steps, help="of the base's training")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    records = Records.load(chosen.records) if chosen.records.exists() else Records()
    if chosen.out:
        crossed = (chosen.refusals, chosen.worlds, chosen.bases, chosen.embeddings)
        for refusal, world, base, embeddings in itertools.product(*crossed):
            run(Cell(world, base, refusal, embeddings), chosen, records)
    if not records.cases:
        parser.error(f"{chosen.records} has no counts yet: give --out")
    print(report(records))


def run(cell: Cell, chosen: argparse.Namespace, records: Records) -> None:
    """One cell: train, gates, measure."""
    begun = time.monotonic()
    base, experts = cell.trained(chosen.out, chosen.base_steps)
    print(f"{_said(cell.key)}: trained, {time.monotonic() - begun:.0f} s", flush=True)
    if all(found["cell"] != cell.key for found in records.gates):
        records.gates.append(gates_of(cell, base, experts))
        records.save(chosen.records)
    for norms in chosen.norms:
        collect([*cell.trios(base, experts, norms)], records, chosen.records)


if __name__ == "__main__":
    main()
