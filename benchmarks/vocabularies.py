"""What it costs that rows are matched by token, against the same trio with one vocabulary.

    python benchmarks/vocabularies.py [--out FOLDER] [--layers 4] [--runs 3]

A trio in the shape of Llama-3.2-1B (`synthetic.py`; 4 of its 16 layers, so that embeddings are more
than half of it) with 128,000 tokens, merged from checks to commit in turns: with one vocabulary,
with 300 tokens added by the language expert, and with all of its tokens in another order. Prints
the medians and their ratio to the first; the limits are 1.6 and 4.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import synthetic
from safetensors.numpy import load_file, save_file

from safeswap import api

TABLE = "model.embed_tokens.weight"
TOKENS, ADDED, HEIGHT = 128_000, 300, 128_256
LIMITS = {"grown": 1.6, "moved": 4.0}


def write_tokenizer(folder: Path, ids: np.ndarray, added: int = 0) -> None:
    """A tokenizer.json with a token per id, and more that only this one has."""
    table = {f"token {n}": int(row) for n, row in enumerate(ids)}
    table |= {f"neno {n}": HEIGHT + n for n in range(added)}
    model = {"type": "WordLevel", "vocab": table}
    (folder / "tokenizer.json").write_text(json.dumps({"model": model, "added_tokens": []}))


def make(folder: Path, layers: int) -> None:
    """The trio, and the language expert with each of the vocabularies."""
    synthetic.make(folder, layers, 1)
    same = np.arange(TOKENS)
    for role in ("base", "safety", "l0"):
        write_tokenizer(folder / role, same)
    for name in LIMITS:
        if (folder / name).exists():
            continue
        shutil.copytree(folder / "l0", folder / name)
        order = np.random.default_rng(0).permutation(TOKENS) if name == "moved" else same
        added = ADDED if name == "grown" else 0
        write_tokenizer(folder / name, order, added)
        for file in sorted((folder / name).glob("*.safetensors")):
            held = load_file(file)
            if TABLE in held:
                rows = held[TABLE].copy()
                rows[order] = held[TABLE][:TOKENS]
                held[TABLE] = np.concatenate([rows, rows[:added]]).astype(ml_dtypes.bfloat16)
                save_file(held, file, metadata={"format": "pt"})
        config = json.loads((folder / name / "config.json").read_text())
        config["vocab_size"] = HEIGHT + added
        (folder / name / "config.json").write_text(json.dumps(config))


def seconds(folder: Path, language: str) -> float:
    """One merge, from checks to commit."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    api.merge(
        folder / "base",
        safety=folder / "safety",
        languages={"sw": folder / language},
        out=out,
        figure=False,
    )
    return time.perf_counter() - begin


def main() -> None:
    """Make the trio, merge in turns, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "safeswap-rows")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args()
    make(given.out, given.layers)
    kinds = ("l0", *LIMITS)
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for run in range(given.runs + 1):  # the first warms the cache
        for kind in kinds:
            taken = seconds(given.out, kind)
            times[kind] += [taken] if run else []
    plain = statistics.median(times["l0"])
    print(f"one vocabulary: {plain:.2f} s")
    for kind, limit in LIMITS.items():
        found = statistics.median(times[kind])
        print(f"{kind}: {found:.2f} s, {found / plain:.2f} times it (limit {limit})")


if __name__ == "__main__":
    main()
