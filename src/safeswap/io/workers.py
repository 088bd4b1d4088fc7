"""Chunks of work on several threads, in bytes, with a clean stop."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from safeswap.io.blas import one_thread

Work = TypeVar("Work")
Result = TypeVar("Result")

CHUNK_ELEMENTS = 1 << 22
"""Elements of a chunk: the unit of scheduling, of resuming and of digests."""
AHEAD_BYTES = 64 << 20
"""Bytes of chunks that are announced before their turn, where they come from elsewhere."""
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
    stopped: Callable[[], None] = lambda: None,
    ahead: Callable[[Work], None] | None = None,
) -> list[Result]:
    """Act on every chunk; the results come in the order of the chunks, whatever the workers did.

    Args:
        act: called on one of ``workers`` threads; working memory comes from
            :func:`safeswap.io.buffers.buffer`.
        advance: told ``size(chunk)`` after each chunk, from the calling thread only.
        stopped: called once nothing more is begun, so that what ``act`` waits for lets go of it.
        ahead: told each chunk `AHEAD_BYTES` before its turn, in order, so that its bytes are on
            their way; None where all bytes lie here.

    Raises:
        Whatever ``act`` raised first; KeyboardInterrupt is passed on once all workers have stopped.
    """
    results: list[Any] = [None] * len(chunks)
    queue = iter(range(len(chunks)))
    lock, stop, finished = threading.Lock(), threading.Event(), threading.Semaphore(0)
    failures: list[BaseException] = []
    done = [0] * workers
    announced = None if ahead is None else _Announced(chunks, ahead, size)

    def work(worker: int) -> None:
        try:
            while not stop.is_set():
                with lock:
                    index = next(queue, None)
                if index is None:
                    break
                if announced is not None:
                    announced.reach(index)
                results[index] = act(chunks[index])
                done[worker] += size(chunks[index])
        except BaseException as error:
            failures.append(error)
            stop.set()
        finally:
            finished.release()

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(workers)]
    told = 0
    with one_thread():
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
            stopped()
            for thread in threads:
                if thread.ident is not None:  # an interrupt may come before all have started
                    thread.join()
    if failures:
        raise failures[0]
    return results


class _Announced:
    """Which chunks were announced: all up to `AHEAD_BYTES` beyond the one whose turn it is."""

    def __init__(
        self,
        chunks: Sequence[Work],
        ahead: Callable[[Work], None],
        size: Callable[[Work], int],
    ) -> None:
        self._chunks, self._ahead, self._size = chunks, ahead, size
        self._lock = threading.Lock()
        self._told = self._begun = self._bytes = 0

    def reach(self, index: int) -> None:
        """It is this chunk's turn."""
        with self._lock:
            for begun in range(self._begun, index + 1):
                self._bytes -= self._size(self._chunks[begun])
            self._begun = max(self._begun, index + 1)
            while self._told < len(self._chunks) and self._bytes < AHEAD_BYTES:
                self._bytes += self._size(self._chunks[self._told])
                self._ahead(self._chunks[self._told])
                self._told += 1
