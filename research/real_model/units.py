"""What each unit does, and how the rule's table stands among random ones; forward passes only.

    python -m real_model.units --out WORK --language ko --seed 0

For each of the profile's attentions and MLPs:

* **in**: the language expert with this unit from the safety expert (what a swap of it alone does);
* **out**: the chat vector (γ = 1) with the safety update left out of this unit.

A unit's effect is the change against the model without the swap, or against the whole chat vector
with its sign turned, so that a positive effect on selectivity always speaks for safety's part in
the unit. Beside them stand the readouts of whole tables: the cell's own plans that only weigh, and
20 random ones with the counts of the paper's. All is kept beside the cell's record as
``CODE-SEED-units.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from real_model.__main__ import KEPT
from real_model.methods import RULE
from real_model.readouts import Reading, Readouts
from real_model.run import Study
from safeswap import api
from safeswap.anatomy import anatomy_of
from safeswap.profile import Profile

RANDOM_TABLES = 20
# Other settings of the rule, and of the vector that is added: a name, and options of a plan.
VARIANTS: dict[str, dict[str, Any]] = {
    "paper-by-layer": {"by": "layer"},
    "paper-tau-0": {"tau": 0.0},
    "inverted-tau-0": {"method": "inverted", "tau": 0.0},
    "paper-alpha-0.25": {"alpha": 0.25},
    "paper-alpha-0.75": {"alpha": 0.75},
    **{
        f"chat-vector-{gamma:g}": {"method": "chat-vector", "gamma": gamma}
        for gamma in (0.25, 0.5, 1.5)
    },
    **{f"random-{seed}": {"method": "random", "seed": seed} for seed in range(RANDOM_TABLES)},
}

Weights = Mapping[str, torch.Tensor]
Table = Mapping[str, Sequence[float]]


def read(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a checkpoint by name, as they are computed with."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return {name: value.detach() for name, value in model.named_parameters()}


def units_of(weights: Weights) -> dict[str, list[str]]:
    """Unit to the names of its tensors."""
    found = anatomy_of({name: tuple(value.shape) for name, value in weights.items()})
    units: dict[str, list[str]] = {}
    for name, placed in found.placements.items():
        units.setdefault(placed.unit, []).append(name)
    return units


class Trio:
    """Base, safety expert and language expert, and one live model that takes any weights."""

    def __init__(self, base: Path, safety: Path, expert: Path) -> None:
        self.base, self.safety, self.expert = read(base), read(safety), read(expert)
        self.units = units_of(self.base)
        self.modules = [unit for unit in self.units if unit.endswith((".attention", ".mlp"))]
        self.model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
        self._live = dict(self.model.named_parameters())
        self._table: dict[str, tuple[float, ...]] = {}

    def take(self, table: Table) -> Any:
        """The live model with base + Σ weight · task vector, unit by unit; returned."""
        for unit, weights in table.items():
            if self._table.get(unit) != tuple(weights):
                for name in self.units[unit]:
                    self._live[name].data.copy_(self._joined(name, *weights))
                self._table[unit] = tuple(weights)
        return self.model

    def _joined(self, name: str, safety: float, expert: float) -> torch.Tensor:
        base = self.base[name].float()
        moved = safety * (self.safety[name].float() - base) + expert * (
            self.expert[name].float() - base
        )
        return (base + moved).to(self.base[name].dtype)

    def everywhere(self, safety: float, expert: float) -> dict[str, Sequence[float]]:
        """The table that weighs every unit alike."""
        return dict.fromkeys(self.units, (safety, expert))

    def moved(self, table: Table) -> float:
        """‖W − W_expert‖ / ‖W_base‖ of the model that a table gives, over attentions and MLPs."""
        update = size = 0.0
        for unit in self.modules:
            safety, expert = table[unit]
            for name in self.units[unit]:
                base = self.base[name].float()
                change = safety * (self.safety[name].float() - base)
                change += (expert - 1) * (self.expert[name].float() - base)
                update += float(change.square().sum())
                size += float(base.square().sum())
        return (update / size) ** 0.5


def effects(trio: Trio, readouts: Readouts) -> Iterator[tuple[str, Reading, Reading]]:
    """Unit, its effect put in, its effect left out."""
    plain, chat = trio.everywhere(0, 1), trio.everywhere(1, 1)
    without = readouts.of(trio.take(plain))
    put_in = {unit: readouts.of(trio.take({**plain, unit: (1, 0)})) for unit in trio.modules}
    added = readouts.of(trio.take(chat))
    for unit in trio.modules:
        left_out = readouts.of(trio.take({**chat, unit: (0, 1)}))
        yield unit, put_in[unit] - without, added - left_out


def tables(trio: Trio, record: Mapping[str, Any], profile: Path) -> Iterator[tuple[str, Table]]:
    """Name and weights of every table to be read; the last is as long an update as the rule's."""
    for name, plan in record["plans"].items():
        if not name.startswith("gram") and name != "ties":  # these do more than weigh
            yield name, plan
    known = Profile.load(profile)
    for name, options in VARIANTS.items():
        plan = api.make_plan(known, **options)
        yield name, {unit: tuple(row.weights.values()) for unit, row in plan.units.items()}
    length = trio.moved(record["plans"][RULE]) / trio.moved(trio.everywhere(1, 1))
    yield "chat-vector-equal-norm", trio.everywhere(length, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--language", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=Path, default=KEPT)
    args = parser.parse_args()
    study, cell = Study(args.out, "short", "cpu", 1.0), f"{args.language}-{args.seed}"
    record = json.loads((args.records / f"{cell}.json").read_text("utf-8"))
    trio = Trio(
        study.base, study.expert("safety", args.seed), study.expert(args.language, args.seed)
    )
    tokenizer = AutoTokenizer.from_pretrained(study.base)
    readouts = Readouts(tokenizer, study.suite(args.language), args.language)
    whole = {
        "base": trio.everywhere(0, 0),
        "safety": trio.everywhere(1, 0),
        args.language: trio.everywhere(0, 1),
    }
    found: dict[str, Any] = {"tables": {}, "units": {}}
    profile = study.cell(args.language, args.seed) / "profile.json"
    for name, table in [*whole.items(), *tables(trio, record, profile)]:
        reading = readouts.of(trio.take({**trio.everywhere(0, 1), **table}))
        found["tables"][name] = {**reading.rounded(), "moved": round(trio.moved(table), 6)}
        print(name, found["tables"][name], flush=True)
    for unit, inside, outside in effects(trio, readouts):
        found["units"][unit] = {"in": inside.rounded(), "out": outside.rounded()}
        print(unit, found["units"][unit], flush=True)
    (args.records / f"{cell}-units.json").write_text(json.dumps(found) + "\n", "utf-8")


if __name__ == "__main__":
    main()
