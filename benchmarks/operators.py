"""How fast, how small: `ties` on 1.24 B parameters against mergekit, and every operator on a layer.

    python benchmarks/operators.py [--work FOLDER] [--mergekit PYTHON] [--each] [--runs 1]

Makes a synthetic trio in the shape of Llama-3.2-1B (see synthetic.py) and measures whole processes,
profile, digests, card and all, with warm caches: `safeswap merge --plan` with `ties` (density 0.2)
in every unit, and mergekit 0.1.5 ``ties`` at the same settings, once in float32 as safeswap
computes, once in bfloat16. ``--each`` runs every operator on the embeddings and one layer of that
model. Where others use the machine too, compare CPU times.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from synthetic import make

from merge import in_turns, measured, report
from safeswap.operators import OPERATORS

LIMIT_RSS_MB, LIMIT_MERGEKIT = 1200, 1.0
PAIR = ("safety", "l0")


def plan_file(trio: Path, layers: int, operator: str, place: Path) -> Path:
    """A plan that blends every unit with an operator."""
    units = ["embeddings", "final_norm"]
    units += [f"{n}.{kind}" for n in range(layers) for kind in ("attention", "mlp", "norms")]
    lines = ["format: safeswap-plan/1", f"operator: {operator}", "inputs:"]
    lines += [f"  {role}: {{source: {trio / role}}}" for role in ("base", *PAIR)]
    lines += ["units:", *(f"  {unit}: {{weights: {{safety: 0.5, l0: 0.5}}}}" for unit in units)]
    place.write_text("\n".join(lines) + "\n")
    return place


def merge_command(plan: Path, out: Path) -> list[str]:
    """The command as a user types it."""
    return [sys.executable, "-m", "safeswap", "merge", "--plan", str(plan), "--out", str(out)]


def peer_command(mergekit: str, trio: Path, dtype: str, place: Path, out: Path) -> list[str]:
    """mergekit's `ties` at the settings of safeswap's."""
    lines = ["merge_method: ties", f"base_model: {trio / 'base'}", f"dtype: {dtype}"]
    lines += ["out_dtype: bfloat16", "parameters: {density: 0.2}", "models:"]
    lines += [f"  - {{model: {trio / role}, parameters: {{weight: 0.5}}}}" for role in PAIR]
    place.write_text("\n".join(lines) + "\n")
    return [str(Path(mergekit).parent / "mergekit-yaml"), str(place), str(out)]


def large(work: Path, mergekit: str | None, runs: int) -> None:
    """`ties` on the whole model."""
    trio, out = work / "trio", work / "out"
    make(trio, 16, 1)
    plan = plan_file(trio, 16, "{name: ties, density: 0.2}", work / "ties.yaml")
    measured(merge_command(plan, out), out)  # warms the page cache
    commands = {"safeswap ties": merge_command(plan, out)}
    for dtype in ("float32", "bfloat16") if mergekit else ():
        place = work / f"peer-{dtype}.yaml"
        commands[f"mergekit ties, {dtype}"] = peer_command(str(mergekit), trio, dtype, place, out)
    ours, *peers = in_turns(commands, out, runs)
    report("peak RSS [MB]", ours.resident, LIMIT_RSS_MB)
    for name, peer in zip(list(commands)[1:], peers, strict=True):
        report(f"safeswap / {name}, wall time", ours.wall / peer.wall, LIMIT_MERGEKIT)
        report(f"safeswap / {name}, CPU time", ours.cpu / peer.cpu, LIMIT_MERGEKIT)
    shutil.rmtree(out, ignore_errors=True)


def each(work: Path, runs: int) -> None:
    """Every operator on the embeddings and one layer: 323 M parameters, 61 M of them in matrices
    that are factorized."""
    trio, out = work / "layer", work / "out"
    make(trio, 1, 1)
    commands = {
        name: merge_command(plan_file(trio, 1, name, work / f"{name}.yaml"), out)
        for name in OPERATORS
    }
    in_turns(commands, out, runs)
    shutil.rmtree(out, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for the trio (kept); default: temporary")
    parser.add_argument("--mergekit", help="a Python with mergekit 0.1.5")
    parser.add_argument("--each", action="store_true", help="every operator instead, on one layer")
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if options.each:
            each(work, options.runs)
        else:
            large(work, options.mergekit, options.runs)


if __name__ == "__main__":
    main()
