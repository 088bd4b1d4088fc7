"""What a user would do instead of merging, beside the study's own methods.

    python -m real_model.alternatives --data DATA --out WORK --language th --seed 2

Run from ``research/``, after the study itself has made that cell. The same command goes on where it
was stopped; ``--only`` does some of the steps.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from real_model import fetch, prepare, records, tables
from real_model.__main__ import KEPT
from real_model.alternatives import record, tuning
from real_model.alternatives.rivals import AFTER_TUNING, PREFILLED, STEPS, STRESSED, Cell
from real_model.corpora import Corpora
from real_model.languages import NAMES
from real_model.run import Study


def said(args: argparse.Namespace) -> str:
    """What will be taken, before it is."""
    asked, steps = set(args.only), tuning.HARMLESS_STEPS[args.size]
    trained = 0
    if asked & {"fine-tuned", PREFILLED, AFTER_TUNING}:
        trained += sum(ceiling.steps for ceiling in tuning.CEILINGS.values())
    if AFTER_TUNING in asked:
        trained += steps * (1 + len(STRESSED))
    return (
        f"{', '.join(args.only)}: {trained} steps of training (two free cores take 6 seconds for "
        "each, and 13 GB of memory), 5 GB of disk until the end, and the answers. No network."
    )


def refuse_unmade(cell: Cell) -> None:
    """Leave where the study has not made what the rivals are compared with."""
    study = cell.study
    made = study.cell(cell.code, cell.seed) / "results" / "fit-own" / "verdicts"
    if not made.is_dir():
        sys.exit(
            f"{study.work} holds no answers of {cell.code}, seed {cell.seed}. Run the study first: "
            f"python -m real_model --data {study.data} --out {study.work} "
            f"--languages {cell.code} --seeds {cell.seed} --size {study.size}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the public files")
    parser.add_argument("--out", type=Path, required=True, help="where the study was made")
    codes = [code for code in NAMES if code != "en"]
    parser.add_argument("--language", required=True, choices=codes, metavar="CODE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=tuple(prepare.SIZES), default="short")
    parser.add_argument("--device", choices=("cpu", "auto"), default="auto")
    parser.add_argument("--only", nargs="+", choices=tuple(STEPS), default=list(STEPS))
    parser.add_argument("--keep", action="store_true", help="do not remove weights at the end")
    parser.add_argument("--records", type=Path, default=KEPT / "alternatives")
    args = parser.parse_args()
    if absent := fetch.missing(args.data):
        sys.exit(
            f"{args.data} lacks {len(absent)} files, such as {absent[0]['file']}. Fetch them: "
            f"python -m real_model.fetch --data {args.data}"
        )
    study = Study(args.out, args.size, args.device, 1.0, args.data)
    cell = Cell(study, args.language, args.seed)
    refuse_unmade(cell)
    print(said(args), flush=True)
    args.records.mkdir(parents=True, exist_ok=True)
    for name, step in STEPS.items():
        if name in args.only:
            step(cell)
    found = record.read(cell, Corpora(args.data))
    print(tables.cell(found), flush=True)
    records.write(args.records / f"{cell.code}-{cell.seed}.json", found)
    if not args.keep and set(args.only) == set(STEPS):
        shutil.rmtree(cell.root / "models", ignore_errors=True)


if __name__ == "__main__":
    main()
