"""Do the intervals of a sampled profile hold as often as they say, and how much must be read?

    python benchmarks/sample.py [--trios 400] [--trio FOLDER --language NAME]

Makes synthetic trios: 12 layers with seven projections of 1,000 blocks of four rows. What training
did to a row is drawn from one of several distributions, up to tails so heavy that the variance is
infinite. Of each trio 2 % are read, and all intervals of a table must hold together with 99 %.
Prints how often they did, with a Wilson interval, beside the limit. With ``--trio`` a folder with
``base``, ``safety`` and the language expert is profiled whole and by samples in the same run.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from safeswap.anatomy import anatomy_of
from safeswap.checkpoint.family import open_family
from safeswap.plan.sampled import Wish, sample_family, uncertain
from safeswap.profile import measure_family
from safeswap.profile.sample import TensorSample
from safeswap.selectors.certainty import estimate, intervals_of
from safeswap.selectors.share_difference import decide

LAYERS, BLOCKS, READ, ROWS, CONFIDENCE = 12, 1000, 20, 4, 0.99
PAIRS = (("base", "base"), ("safety", "safety"), ("sw", "sw"), ("safety", "sw"))
ROWS_OF: dict[str, Callable[[Any, Any], Any]] = {
    "equal": lambda dice, shape: np.ones(shape),
    "χ², 50 degrees": lambda dice, shape: dice.chisquare(50, shape),
    "lognormal, σ = 1": lambda dice, shape: dice.lognormal(0, 1, shape),
    "lognormal, σ = 2": lambda dice, shape: dice.lognormal(0, 2, shape),
    "Pareto, α = 2.5": lambda dice, shape: dice.pareto(2.5, shape) + 1,
    "Pareto, α = 1.5 (infinite variance)": lambda dice, shape: dice.pareto(1.5, shape) + 1,
}


def family() -> Any:
    """As much of a family as the estimates look at."""
    names = ["self_attn." + n for n in "qkvo"] + ["mlp." + n for n in ("gate", "up", "down")]
    shapes = {
        f"model.layers.{layer}.{n}_proj.weight": (64, 64) for layer in range(LAYERS) for n in names
    }
    shapes |= {"model.embed_tokens.weight": (64, 64), "model.norm.weight": (64,)}
    return SimpleNamespace(anatomy=anatomy_of(shapes), languages=("sw",))


def made(kind: str, seed: int, trio: Any) -> tuple[Any, Any]:
    """A trio's blocks: those that are read, and all."""
    dice = np.random.default_rng(seed)
    tables: dict[int, dict[str, TensorSample]] = {READ: {}, BLOCKS: {}}
    none = np.zeros(len(PAIRS))
    for name, placement in trio.anatomy.placements.items():
        if placement.role != "projection":
            continue
        values = np.zeros((BLOCKS, len(PAIRS)))
        values[:, 0] = dice.chisquare(50, (BLOCKS, ROWS)).sum(axis=1)
        for column in (1, 2):
            rows = ROWS_OF[kind](dice, (BLOCKS, ROWS)).sum(axis=1)
            values[:, column] = math.exp(dice.normal(0, 0.3)) * rows
        for count, table in tables.items():
            table[name] = TensorSample(BLOCKS, 1, BLOCKS, PAIRS, values[:count], none)
    part, whole = (SimpleNamespace(family=trio, tensors=table) for table in tables.values())
    return part, whole


def simulate(kind: str, trios: int) -> tuple[int, float, float]:
    """How many trios had all intervals hold; the part of single ones; half width by mean |d|."""
    trio, held, single, width = family(), 0, [], []
    for seed in range(trios):
        part, whole = made(kind, seed, trio)
        found = intervals_of(part, 1 - CONFIDENCE)["sw"]["module"].values()
        truth = estimate(whole, "sw", "module").difference
        inside = [i.low <= d <= i.high for i, d in zip(found, truth, strict=True)]
        held += all(inside)
        single.append(np.mean(inside))
        width.append(np.mean([i.high - i.low for i in found]) / 2 / np.mean(np.abs(truth)))
    return held, float(np.mean(single)), float(np.mean(width))


def wilson(hits: int, n: int) -> tuple[float, float]:
    """A 95 % interval of a part."""
    z, p = 1.96, hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def compare(folder: Path, language: str) -> None:
    """Samples of real files against the profile of all weights."""
    trio = open_family(folder / "base", folder / "safety", {language: folder / language})
    begin = time.perf_counter()
    exact = measure_family(trio)
    whole = time.perf_counter() - begin
    print(f"\n{folder}: all weights {whole:.1f} s")
    print("by      wish                read      time   ratio  uncertain  hold  wrong")
    for by in ("module", "layer"):
        truth = decide(exact, language, by=by, tau=0.001, tau_relative=False)
        for wish in (Wish(budget=0.02, by=by), Wish(until_certain=True, by=by)):
            begin = time.perf_counter()
            found = sample_family(trio, wish)
            spent = time.perf_counter() - begin
            assert found.sample is not None
            intervals = found.sample.intervals[language][by]
            hold = sum(i.low <= truth[k].difference <= i.high for k, i in intervals.items())
            left = uncertain(found, language, by, 0.001)
            now = decide(found, language, by=by, tau=0.001, tau_relative=False)
            wrong = sum(now[k].decision != truth[k].decision for k in truth if k not in left)
            part = found.sample.bytes_read / found.sample.bytes_all
            name = "--budget 2%" if wish.budget else "--until-certain 99%"
            print(
                f"{by:7} {name:19}{part:6.2%} {spent:7.2f} s {spent / whole:6.3f}"
                f" {len(left):6} of {len(truth)} {hold:5} {wrong:5}"
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trios", type=int, default=400)
    parser.add_argument("--trio", type=Path)
    parser.add_argument("--language", default="sw")
    given = parser.parse_args()
    print(f"{given.trios} trios a row, {READ} of {BLOCKS} blocks read; limit {CONFIDENCE:.0%}")
    print(f"{'rows':37}all hold [95 %]         one holds  half width / mean |d|")
    for kind in ROWS_OF:
        held, single, width = simulate(kind, given.trios)
        low, high = wilson(held, given.trios)
        all_held = f"{held / given.trios:6.1%} [{low:.1%}, {high:.1%}]"
        verdict = "" if high >= CONFIDENCE else "  BELOW"
        print(f"{kind:37}{all_held}  {single:8.2%} {width:10.2f}{verdict}")
    if given.trio:
        compare(given.trio, given.language)


if __name__ == "__main__":
    main()
