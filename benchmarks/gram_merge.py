"""Time and memory of a merge by Gram matrices, at the widths of Llama-3.2-1B.

    python benchmarks/gram_merge.py [--work FOLDER] [--layers 1] [--operators gram-add regmean]
                                    [--workers 1]

Makes a synthetic trio (see synthetic.py) and, beside it, a folder of Gram matrices as wide as its
layers' inputs (2,048 and 8,192; low rank and a diagonal, of nothing real), and measures whole
processes of ``safeswap merge``. The widest matrix, an MLP's 2,048 × 8,192 one, decides the peak, so
that one layer says what sixteen would. Goal: a peak below 1.2 GB on one worker.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from blake3 import blake3
from synthetic import make, shapes

import safeswap
from merge import in_turns, report
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.header import build_header
from safeswap.operators.gram_store import ExpertGrams, GramRecord, file_of, write_manifest

LIMIT_RSS_MB = 1200
SEEN = 256
"""Rank of a made-up matrix, without its diagonal."""


def gram_folder(trio: Path, out: Path, layers: int) -> Path:
    """Matrices of everything that ``regmean`` and ``gram-add`` read of the trio."""
    profile = safeswap.make_profile(
        trio / "base", safety=trio / "safety", languages={"l0": trio / "l0"}
    )
    entries = {"safety": "safety", "l0": "l0", "l0@harmful": "l0", "l0@harmless": "l0"}
    out.mkdir(parents=True, exist_ok=True)
    experts = {}
    for number, (entry, role) in enumerate(entries.items()):
        tensors = _written(file_of(out, entry), layers, number)
        about = ExpertGrams(entry, profile.inputs[role].digest, {}, {}, {}, tensors, {})
        experts[entry] = about
    write_manifest(out, experts, "benchmark")
    return out


def _written(path: Path, layers: int, seed: int) -> dict[str, GramRecord]:
    sides = {n: s[1] for n, s in shapes(layers) if ".layers." in n and len(s) == 2}
    header, _ = build_header([(n, DTYPES["F32"], (s, s)) for n, s in sides.items()], {})
    records = {}
    with path.open("wb") as stream:
        stream.write(header)
        for number, (name, side) in enumerate(sides.items()):
            raw = _matrix(side, seed * 1000 + number).tobytes()
            stream.write(raw)
            records[name] = GramRecord(name, "columns", 4000, blake3(raw).hexdigest())
    return records


def _matrix(side: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((SEEN, side), np.float32)
    found = rows.T @ rows / np.float32(SEEN)
    found[np.diag_indices(side)] += np.float32(0.1)
    return found


def merge_command(trio: Path, out: Path, operator: str, grams: Path, workers: int) -> list[str]:
    """The command as a user types it."""
    command = [sys.executable, "-m", "safeswap", "merge", str(trio / "base")]
    command += ["--safety", str(trio / "safety"), "--language", f"l0={trio / 'l0'}"]
    method = ["uniform"] if operator == "regmean" else ["chat-vector", "--set", "gamma=4"]
    command += ["--method", *method, "--operator", operator, "--out", str(out), "--no-figure"]
    return [*command, "--operator-set", f"grams={grams}", "--workers", str(workers)]


def main() -> None:
    """Make the inputs, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="of the inputs (kept); default: temporary")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--operators", nargs="+", default=["gram-add", "regmean"])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        trio, grams, out = work / "trio", work / "grams", work / "out"
        make(trio, options.layers, 1)
        if not (grams / "grams.json").exists():
            gram_folder(trio, grams, options.layers)
        commands = {
            name: merge_command(trio, out, name, grams, options.workers)
            for name in options.operators
        }
        for name, found in zip(commands, in_turns(commands, out, options.runs), strict=True):
            report(f"peak RSS of {name} [MB]", found.resident, LIMIT_RSS_MB)
        shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
