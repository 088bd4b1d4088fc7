"""Cells per minute: candidates exchanged in memory against candidates written and loaded.

    python benchmarks/sweep.py [--work FOLDER] [--layers 16] [--cells 12]

Makes a synthetic trio in the shape of Llama-3.2-1B (see synthetic.py; --layers makes it smaller)
and takes the same neighbouring cells of a τ × α grid to a model that is ready to answer, in two
ways in turns: exchanged in place (`HotSwapModel`, what `safeswap sweep` does), and written by the
merge and loaded by transformers (`ReloadedModel`, what it would be without). Answering is left
out: it is the same for both. Both models must hold the same weights after every cell. The page
cache is warm; the first load of `HotSwapModel` is counted, spread over the cells.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from synthetic import make

import safeswap
from safeswap.checkpoint.family import open_family
from safeswap.demo import models_folder
from safeswap.evaluation.backends import BackendOptions
from safeswap.plan import Plan
from safeswap.search.hotswap import HotSwapModel, ReloadedModel

LIMIT_RATIO = 2.0
ROLE = "l0"


def cells(profile: safeswap.Profile, count: int) -> Iterator[Plan]:
    """Neighbours in a grid: α changes fastest, as in a sweep's order."""
    differences = sorted(
        abs(row.difference or 0.0)
        for row in safeswap.make_plan(profile).units.values()
        if row.difference is not None
    )
    for number in range(count):
        tau = differences[(number // 3) * len(differences) // max(1, count // 3 + 1)]
        yield safeswap.make_plan(profile, tau=tau, alpha=(0.3, 0.5, 0.7)[number % 3])


def checksum(model: Any) -> list[float]:
    """Numbers that another weight would change."""
    return [float(p.float().sum()) for p in model.state_dict().values()]


def main() -> None:
    """Measure both ways and print the ratio against the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, help="a folder with room for 10 GB")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--cells", type=int, default=12)
    chosen = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="safeswap-bench-", dir=chosen.work) as work:
        trio = Path(work) / "trio"
        make(trio, chosen.layers, 1)
        for role in ("base", "safety", ROLE):  # a tokenizer, or no model is loaded
            for file in (models_folder() / "base").glob("token*"):
                (trio / role / file.name).write_bytes(file.read_bytes())
        compare(trio, Path(work), chosen.cells)


def compare(trio: Path, work: Path, count: int) -> None:
    """The same cells both ways, in turns."""
    experts = {"safety": trio / "safety", "languages": {ROLE: trio / ROLE}}
    profile = safeswap.make_profile(trio / "base", **experts)  # type: ignore[arg-type]
    options = BackendOptions(dtype="bfloat16", device="cpu")
    begin = time.perf_counter()
    inside = HotSwapModel(open_family(trio / "base", **experts), ROLE, options)  # type: ignore[arg-type]
    opening = time.perf_counter() - begin
    outside = ReloadedModel("hf", options, work)
    spent = {"in memory": opening, "written and loaded": 0.0}
    touched, different = 0, 0
    with torch.inference_mode():
        for plan in cells(profile, count):
            begin = time.perf_counter()
            touched += inside.apply(plan)
            spent["in memory"] += time.perf_counter() - begin
            mine = checksum(inside.loaded.model)
            begin = time.perf_counter()
            with outside.answering(plan) as responder:
                spent["written and loaded"] += time.perf_counter() - begin
                different += mine != checksum(responder.model)
    if different:
        sys.exit(f"{different} of {count} cells differ between the two ways")
    size = sum(p.nbytes for p in inside.loaded.model.parameters())
    print(f"{count} cells of a model of {size / 1e9:.2f} GB; weights equal after each")
    print(f"first load in memory: {opening:.1f} s; touched per cell: {touched / count / size:.0%}")
    for name, seconds in spent.items():
        rate = f"{60 * count / seconds:7.1f} cells per minute"
        print(f"{name:20} {rate} ({seconds / count:.2f} s each)")
    ratio = spent["written and loaded"] / spent["in memory"]
    verdict = "reached" if ratio >= LIMIT_RATIO else "NOT reached"
    print(f"ratio: {ratio:.2f} × (goal: at least {LIMIT_RATIO:g} ×: {verdict})")


if __name__ == "__main__":
    main()
