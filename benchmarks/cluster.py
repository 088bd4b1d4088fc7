"""Workers on a cluster of this machine against one: efficiency, and what a chunk costs.

    python benchmarks/cluster.py [--workers 1 2 8] [--chunks 128] [--seconds 0.5]

The engine is paced: a chunk of 16 chats takes so many seconds of sleep, so that cores do not limit
it. What is measured is the product's own path (`open_backend` with a cluster, `respond`), workers
up, rows handed over. Efficiency is the bound, chunks · seconds / workers, by what it took; goal 0.9
with two and with eight workers. A chunk's overhead is what it took beyond the bound, times workers,
per chunk; goal 50 ms.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from safeswap.cluster import ClusterOptions
from safeswap.evaluation.backends import (
    BackendKind,
    BackendOptions,
    Chat,
    Reply,
    TemplateOptions,
    open_backend,
    register,
)

CHATS = 16
GOAL, GOAL_MS = 0.9, 50


@dataclass(frozen=True)
class PacedOptions(TemplateOptions):
    """Seconds that a chat takes."""

    pace: float = 0.0


class PacedBackend:
    """Sleeps, and answers."""

    def __init__(self, source: str, options: PacedOptions) -> None:
        self.pace = options.pace
        self.description: dict[str, Any] = {"backend": "paced", "dtype": "none"}

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """All, after their time."""
        time.sleep(self.pace * len(chats))
        for number in range(len(chats)):
            yield number, Reply("done", 1, 1, "stop")

    def harness(self) -> Any:
        """None."""
        raise NotImplementedError

    def close(self) -> None:
        """Nothing to let go."""


def measured(workers: int, chunks: int, seconds: float, source: str) -> float:
    """Seconds that all chats took, workers being up."""
    cluster = ClusterOptions("local", workers=workers, cpus=0.01, gpus=0, chunk=CHATS)
    options = BackendOptions(cluster=cluster, more={"pace": seconds / CHATS})
    engine = open_backend(source, "paced", options)
    try:
        chat = Chat(({"role": "user", "content": "?"},), 1)
        warm = [chat] * CHATS * workers
        assert len(list(engine.respond(warm))) == len(warm)
        begun = time.perf_counter()
        asked = [chat] * CHATS * chunks
        assert len(list(engine.respond(asked))) == len(asked)
        return time.perf_counter() - begun
    finally:
        engine.close()


def main() -> None:
    """Measure each number of workers, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--chunks", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=0.5)
    chosen = parser.parse_args()
    register(BackendKind("paced", "Sleeps and answers.", PacedOptions, PacedBackend))
    print("| workers | seconds | efficiency | overhead of a chunk, ms |\n| --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as source:
        for workers in chosen.workers:
            took = measured(workers, chosen.chunks, chosen.seconds, source)
            bound = math.ceil(chosen.chunks / workers) * chosen.seconds
            each = 1000 * (took - bound) * workers / chosen.chunks
            good = "" if bound / took >= GOAL and each < GOAL_MS else " (goal missed)"
            print(f"| {workers} | {took:.2f} | {bound / took:.3f} | {each:.1f}{good} |", flush=True)


if __name__ == "__main__":
    main()
