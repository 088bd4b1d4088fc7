"""How long every verb takes to answer ``--help``: a person who asks should not have to wait.

Whole processes, the median of several runs each; the limit is 0.3 s.

    python benchmarks/startup.py --runs 5
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

import click

from safeswap.cli import main

LIMIT = 0.3


def verbs(group: click.Group, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every verb, those of groups included."""
    found = []
    for name, command in group.commands.items():
        words = (*before, name)
        found.append(words)
        if isinstance(command, click.Group):
            found += verbs(command, words)
    return found


def seconds(words: tuple[str, ...]) -> float:
    """Wall time of one process."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "safeswap", *words, "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run() -> None:
    """Print a line per verb."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    for words in [(), *verbs(main)]:
        taken = [seconds(words) for _ in range(runs)]
        late = "" if median(taken) < LIMIT else f"  over {LIMIT} s"
        name = " ".join(("safeswap", *words))
        print(f"{name:<26} {median(taken):.2f} s ({min(taken):.2f} to {max(taken):.2f}){late}")


if __name__ == "__main__":
    run()
