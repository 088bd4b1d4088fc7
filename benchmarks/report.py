"""How long does the page of `safeswap report` take, and how much memory?

    python benchmarks/report.py [--answers 100000] [--samples 0 1000]

Writes a results folder of 5 models in 4 languages with two judges' verdicts and so many answers of
some 300 characters, and a profile of 126 layers; then makes the page in a process of its own.
Prints wall time, peak memory and the page's size beside the limits of issue 13: 20 s, 500 MB, and
2 MB without samples.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from explore import made  # a profile of that shape

from safeswap.evaluation.results.store import digest_of

SECONDS, MEGABYTES, PAGE = 20.0, 500.0, 2.0
LANGUAGES = ("sw", "bn", "te", "ko")
MODELS = {
    "base": {"role": "base"},
    "safety": {"role": "safety"},
    **{
        name: {"role": "merged", "reference": "base"}
        for name in ("by-module", "by-layer", "chat-vector")
    },
}
SAYING = "one answer is like any other and says in many words what few would have said"
WORDS = SAYING.split()


def written(folder: Path, answers: int) -> Path:
    """The results folder."""
    prompts = answers // (len(MODELS) * len(LANGUAGES))
    cells = {
        f"harm/{code}": {"title": "Harm", "measures": "unsafe", "items": prompts}
        for code in LANGUAGES
    }
    settings = {
        "format": "safeswap-results/1",
        "generation": {"decoding": "greedy", "max_new_tokens": 512},
        "cells": cells,
        "arms": list(MODELS),
    }
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, about in MODELS.items():
        arm = folder / name
        (arm / "verdicts").mkdir(parents=True)
        model = {"name": name, "source": f"org/{name}", "digest": f"d-{name}", **about}
        (arm / "model.json").write_text(json.dumps(model))
        rows = list(_answers(name, prompts))
        _lines(arm / "responses.jsonl", rows, lambda row: row)
        for judge, strict in (("guard", 0.5), ("rules", 0.45)):
            dice = random.Random(f"{name} {judge}")
            _lines(arm / "verdicts" / f"{judge}.jsonl", rows, _judge(dice, strict))
    return folder


def _answers(model: str, prompts: int) -> Iterator[dict[str, Any]]:
    dice = random.Random(model)
    for code in LANGUAGES:
        for n in range(prompts):
            yield {
                "key": f"harm/{code}/{n}",
                "benchmark": "harm",
                "language": code,
                "id": str(n),
                "prompt": f"prompt {n} in {code}",
                "response": " ".join(dice.choices(WORDS, k=60)),
                "finish_reason": "stop",
            }


def _judge(dice: random.Random, strict: float) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def verdict(row: dict[str, Any]) -> dict[str, Any]:
        unsafe = dice.random() < strict
        return {
            "key": row["key"],
            "verdict": "unsafe" if unsafe else "safe",
            "categories": [],
            "refusal": not unsafe,
            "flags": [],
            "judge_version": "1",
            "response_digest": digest_of([row["prompt"], row["response"]]),
            "raw": "",
        }

    return verdict


def _lines(path: Path, rows: list[Any], made_of: Callable[[Any], Any]) -> None:
    with path.open("w") as file:
        file.writelines(json.dumps(made_of(row)) + "\n" for row in rows)


def timed(folder: Path, samples: int) -> None:
    """Make the page and print what it took."""
    page = folder / f"report-{samples}.html"
    arguments = [folder / "profile.json", folder / "results", "-o", page]
    arguments += ["--samples", samples, "--judge", "guard", "--judge", "rules"]
    begin = time.monotonic()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "safeswap", "report", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak, size = after.ru_maxrss / 1024, page.stat().st_size / 1e6
    print(
        f"{samples} questions in the page: {wall:.1f} s of {SECONDS:g} ({wall / SECONDS:.2f}), "
        f"{cpu:.1f} s of CPU; {peak:.0f} MB of {MEGABYTES:g} ({peak / MEGABYTES:.2f}); "
        f"page {size:.2f} MB (without samples at most {PAGE:g})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--answers", type=int, default=100_000)
    parser.add_argument("--samples", type=int, nargs="+", default=[0, 1000])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made(126, 4, 0).save(folder / "profile.json")
        written(folder / "results", args.answers)
        for samples in args.samples:  # the peak is of all children so far: small pages first
            timed(folder, samples)


if __name__ == "__main__":
    main()
