"""The study on a real model, from packages and public files to the table.

    python -m real_model --data DATA --out WORK [--languages sw] [--seeds 0] [--size short]

Run from ``research/``. What it needs and will take is printed first; it installs and fetches
nothing by itself. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from real_model import fetch, packages, prepare, records, tables
from real_model.answers import chat_answers, few_shot_answers, stored
from real_model.corpora import Corpora
from real_model.languages import NAMES, language
from real_model.methods import METHODS
from real_model.run import Study, one

KEPT = Path(__file__).parent / "results"
MINUTES = {"short": 40, "whole": 190}
"""Of one language and one seed on two free cores; two fits take 17 of them, the safety expert 6."""


def said(args: argparse.Namespace) -> str:
    """What will be taken, before it is."""
    cells = len(args.languages) * len(args.seeds)
    return (
        f"{cells} cells (language × seed) of size {args.size!r}: about "
        f"{cells * MINUTES[args.size]} minutes on two free cores, 6 GB of disk, 11 GB of memory. "
        "No network is used. The base is Gemma 3 270M (terms: ai.google.dev/gemma/terms)."
    )


def load(folder: Path) -> tuple[object, object]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval().to(device)
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


def make_inputs(study: Study, corpora: Corpora, codes: list[str]) -> None:
    """Base, mixes and suites."""
    packages.base(study.base)
    teacher = packages.teacher(study.work / "teacher")
    data = study.work / "data"
    data.mkdir(parents=True, exist_ok=True)

    def english(prompts: list[str]) -> dict[str, str]:
        return stored(
            data / "answers-en.jsonl", prompts, lambda: chat_answers(*load(teacher), prompts)
        )

    if not (data / "safety.yaml").is_file():
        prepare.safety_mix(corpora, english, data)
    for code in codes:
        texts = language(code)

        def own(prompts: list[str], code: str = code, texts: dict = texts) -> dict[str, str]:
            return stored(
                data / f"answers-{code}.jsonl",
                prompts,
                lambda: few_shot_answers(*load(study.base), prompts, texts),
            )

        if not (data / f"{code}.yaml").is_file():
            prepare.language_mix(corpora, code, own, data)
        suite = study.suite(code)
        if not (suite / "suite.yaml").is_file():
            prepare.suite(corpora, code, prepare.SIZES[study.size], suite)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the public files")
    parser.add_argument("--out", type=Path, required=True, help="where everything is made")
    parser.add_argument("--languages", nargs="+", default=["sw"], choices=NAMES, metavar="CODE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--size", choices=tuple(prepare.SIZES), default="short")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--device", choices=("cpu", "auto"), default="auto")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], choices=[m.name for m in METHODS], metavar="METHOD"
    )
    parser.add_argument("--keep", action="store_true", help="do not remove merged weights")
    parser.add_argument("--records", type=Path, default=KEPT, help="where counts are kept")
    args = parser.parse_args()
    if lacking := packages.missing():
        sys.exit(f"missing: {', '.join(lacking)}. Install them: {packages.INSTALL}")
    corpora = Corpora(args.data)
    if absent := fetch.missing(args.data):
        sys.exit(
            f"{args.data} lacks {len(absent)} files, such as {absent[0]['file']}. Fetch them: "
            f"python -m real_model.fetch --data {args.data}"
        )
    print(said(args), flush=True)
    study = Study(
        args.out, args.size, args.device, args.epochs, args.data, frozenset(args.leave_out)
    )
    make_inputs(study, corpora, args.languages)
    args.records.mkdir(exist_ok=True)
    for seed in args.seeds:
        for code in args.languages:
            results = one(study, code, seed, args.keep)
            record = records.read(study, code, seed, results, corpora)
            print(tables.cell(record), flush=True)
            records.write(args.records / f"{code}-{seed}.json", record)


if __name__ == "__main__":
    main()
