"""Logits of a batch's last places: of a slice of its hidden states, and of a copy of those rows.

    python benchmarks/short_logits.py [--words 262144] [--width 640] [--texts 8] [--kept 61]

What scores of choices and fits do many times over, in the shape of Gemma 3 270M. Prints both times
and their ratio, the best of three rounds taken in turns. A tensor of places (``logits_to_keep``)
makes the copy; a number makes the slice.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch.nn import functional


def main() -> None:
    """Time both in turns, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--words", type=int, default=262144)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--length", type=int, default=100)
    parser.add_argument("--kept", type=int, default=61)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    chosen = parser.parse_args()
    kind = getattr(torch, chosen.dtype)
    head = torch.randn(chosen.words, chosen.width).to(kind)
    states = torch.randn(chosen.texts, chosen.length, chosen.width).to(kind)
    places = torch.arange(chosen.length - chosen.kept, chosen.length)
    best = {"slice": float("inf"), "copy": float("inf")}
    with torch.inference_mode():
        for _ in range(3):
            for name in best:
                begun = time.perf_counter()
                rows = states[:, -chosen.kept :] if name == "slice" else states[:, places]
                functional.linear(rows, head)
                best[name] = min(best[name], time.perf_counter() - begun)
    print(f"torch {torch.__version__}, {chosen.dtype}, {torch.get_num_threads()} threads")
    print(f"slice {best['slice']:.2f} s, copy {best['copy']:.2f} s: "
          f"{best['slice'] / best['copy']:.1f} times")  # fmt: skip


if __name__ == "__main__":
    main()
