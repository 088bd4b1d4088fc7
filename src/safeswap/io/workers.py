"""Chunks of work on several threads, in bytes, with progress and a clean stop."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")

CHUNK_ELEMENTS = 1 << 22
"""Elements of a chunk: the unit of scheduling, of resuming and of digests."""
BLOCK_ELEMENTS = 1 << 17
"""Elements worked on at a time: few enough for the buffers to stay in a cache, enough for Python's
part to be small."""


def default_workers() -> int:
    """As many threads as this process may use cores, at most eight."""
    return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4))


def chunks_of(elements: int) -> Iterator[tuple[int, int]]:
    """The fixed grid [begin, end) over a tensor's elements; one empty chunk for an empty tensor."""
    for begin in range(0, max(elements, 1), CHUNK_ELEMENTS):
        yield begin, min(begin + CHUNK_ELEMENTS, elements)


def run_chunks(
    chunks: Sequence[Work],
    act: Callable[[Work], Result],
    *,
    workers: int,
    advance: Callable[[int], None],
    size: Callable[[Work], int],
) -> list[Result]:
    """Act on every chunk; the results come in the order of the chunks, whatever the workers did.

    Args:
        act: called on one of ``workers`` threads; working memory comes from
            :func:`safeswap.io.buffers.buffer`.
        advance: told ``size(chunk)`` after each chunk, from the calling thread only.

    Raises:
        Whatever ``act`` raised first; KeyboardInterrupt is passed on once all workers have stopped.
    """
    results: list[Any] = [None] * len(chunks)
    queue = iter(range(len(chunks)))
    lock, stop, finished = threading.Lock(), threading.Event(), threading.Semaphore(0)
    failures: list[BaseException] = []
    done = [0] * workers

    def work(worker: int) -> None:
        try:
            while not stop.is_set():
                with lock:
                    index = next(queue, None)
                if index is None:
                    break
                results[index] = act(chunks[index])
                done[worker] += size(chunks[index])
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            finished.release()

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(workers)]
    told = 0
    try:
        for thread in threads:
            thread.start()
        running = workers
        while running:
            if finished.acquire(timeout=0.1):
                running -= 1
            advance(sum(done) - told)
            told = sum(done)
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:  # an interrupt may come before all have started
                thread.join()
    if failures:
        raise failures[0]
    return results


def shown_bytes(nbytes: int) -> str:
    """A size as people read it: ``980 bytes``, ``13.0 kB``, ``2.47 GB``."""
    value, units = float(nbytes), iter(("kB", "MB", "GB", "TB"))
    if nbytes < 1000:
        return f"{nbytes} bytes"
    unit = ""
    while value >= 999.5:
        value, unit = value / 1000, next(units, "PB")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


@contextmanager
def progress_bar(title: str, total: int, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar in bytes with rate and time left on a terminal's stderr; silent anywhere else, and
    where there is nothing to do."""
    if quiet or not total or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    rate = (TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, *rate, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)
