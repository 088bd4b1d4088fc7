"""Every family at the scale that does best on dev, over several expert seeds.

    python -m small_world.chosen --models DIR --records FILE --expert-seeds 0 1 2 3 4 5 6 7
    python -m small_world.chosen --records FILE

The first measures what FILE lacks of the checkpoints that `python -m small_world.train --out DIR`
wrote (an interrupted run continues) and prints the tables; the second prints them from FILE alone.
FILE holds counts only: it is small, and every choice can be made again from it.

The world shows a mechanism; it is no evidence about large models.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from safeswap.demo.world import SMALL_LANGUAGES, default_world
from small_world.chosen.choice import compared, highest_objective
from small_world.chosen.families import GRAM_ADD, all_options
from small_world.chosen.measure import Trio, measured
from small_world.chosen.records import Case, Records
from small_world.chosen.tables import compared_table, scales_table, unit_table


def collect(trios: Sequence[Trio], records: Records, path: Path) -> None:
    """Measure what is missing, and write after every language."""
    for trio in trios:
        if records.has(trio.cell, trio.code, trio.inputs):
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            records.cases.append(measured(trio, all_options(), Path(scratch)))
        records.save(path)
        took = time.monotonic() - begun
        print(f"{dict(trio.cell)} {trio.code}: {took:.0f} s", flush=True)


def trios_of(models: Path, seed: int) -> list[Trio]:
    """The three languages of an expert seed of the default world."""
    folder = models / f"seed-{seed}"
    return [
        Trio(
            {"seed": seed}, default_world(), code, models / "base",
            folder / "safety", folder / code, seed,
        )
        for code in SMALL_LANGUAGES
    ]  # fmt: skip


def report(cases: Sequence[Case]) -> str:
    """All tables."""
    by_seed = [*sorted(cases, key=lambda case: (case.cell["seed"], case.language))]
    rows = compared(by_seed, lambda case: case.cell["seed"], GRAM_ADD)
    free = compared(by_seed, lambda case: case.cell["seed"], GRAM_ADD, highest_objective)
    parts = (
        "Scale: most refusals on dev within one point of ability. All figures on test.",
        compared_table(rows),
        unit_table(by_seed, "seed"),
        scales_table(rows),
        "Scale: highest J on dev.",
        compared_table(free),
    )
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, reckon and print."""
    parser = argparse.ArgumentParser(
        prog="python -m small_world.chosen",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", type=Path, help="what train --out wrote")
    parser.add_argument("--records", type=Path, required=True, help="the counts, JSON")
    parser.add_argument("--expert-seeds", type=int, nargs="+", default=[0], metavar="N")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    records = Records.load(chosen.records) if chosen.records.exists() else Records()
    if chosen.models:
        for seed in chosen.expert_seeds:
            trios = trios_of(chosen.models, seed)
            for folder in (trios[0].base, trios[0].safety, *(trio.language for trio in trios)):
                if not folder.is_dir():
                    parser.error(
                        f"no checkpoint at {folder}; train it with `python -m small_world.train "
                        f"--out {chosen.models} --expert-seeds {seed}`"
                    )
            collect(trios, records, chosen.records)
    if not records.cases:
        parser.error(f"{chosen.records} has no counts yet: give --models")
    print(report(records.cases))


if __name__ == "__main__":
    main()
