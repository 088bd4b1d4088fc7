"""Whole shards that leave this machine while others are being made.

The merge knows when a shard is whole; where it goes then, and how, is another's to know
(`safeswap.publish`).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import sleep
from typing import Protocol

from safeswap.checkpoint.shards import Layout
from safeswap.checkpoint.staging import Staging
from safeswap.merge.prepare import Chunk, MergeJob

WAITING = 2
"""Whole shards that may lie here and wait; while so many do, no further one is begun."""


class Shipping(Protocol):
    """Takes the files of an output away, one by one, and shows them when all are there.

    ``name`` is a file's path below the output's root, with ``/``.

    Attributes:
        local: what the output is called on this disk while it grows.
        address: where it goes, for people.
    """

    local: Path
    address: str

    def begin(self, staging: Staging) -> None:
        """Find what an earlier run of the same job sent, and go on from there."""
        ...

    def is_sent(self, name: str) -> bool:
        """Whether all of a file lies there since an earlier run, by size and digest."""
        ...

    def send(self, name: str, path: Path, keep: int) -> None:
        """Send a whole file, in the background; then all but its first ``keep`` bytes let go."""
        ...

    def unsent(self) -> int:
        """How many files wait to be sent, or are being sent.

        Raises:
            OutputError: one could not be sent.
        """
        ...

    def stop(self) -> None:
        """Send nothing more; what was sent stays for a resume."""
        ...

    def commit(self, folder: Path) -> None:
        """Send the rest of a folder, and show all of it under its name.

        Raises:
            OutputError: it could not be sent or shown.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


def bytes_here(layouts: Sequence[Layout], *, leaving: bool) -> int:
    """Bytes of weights that lie on this disk at once: all; or, where whole shards leave, those that
    wait, and those in work (two of each output where it goes from one to the next).
    """
    if not leaving:
        return sum(layout.nbytes for layout in layouts)
    most = WAITING + 2
    sizes = [sorted(shard.size for shard in layout.shards)[-most:] for layout in layouts]
    return sum(map(sum, sizes))


def finish(staging: Staging, shipping: Shipping | None) -> None:
    """Give a whole output its name: here, or where it is shipped to.

    Raises:
        OutputError: as :meth:`Staging.commit` and :meth:`Shipping.commit`.
    """
    if shipping is None:
        staging.commit()
        return
    shipping.commit(staging.folder)
    staging.discard()


class WholeShards:
    """Counts what each shard still lacks, and sends it when that is nothing.

    Args:
        jobs, chunks: all of a run.
        staging: where shards grow, and which chunks an earlier run finished.
    """

    def __init__(
        self, jobs: Sequence[MergeJob], chunks: Sequence[Chunk], staging: Staging, to: Shipping
    ) -> None:
        self._to, self._staging = to, staging
        self._shards_of = _shards_of(jobs)
        self._header = {
            _name(job, shard.name): len(shard.header) for job in jobs for shard in job.layout.shards
        }
        self._left: Counter[str] = Counter(
            name for chunk in chunks for name in self._shards_of[chunk.job, chunk.name]
        )
        # one whose chunks are not all in the journal is made anew: its digests are not known
        unknown = {
            name
            for chunk in chunks
            if chunk.key not in staging.finished
            for name in self._shards_of[chunk.job, chunk.name]
        }
        self.sent = frozenset(n for n in self._left if n not in unknown and to.is_sent(n))
        self._begun: set[str] = set()
        self._lock, self._stopped = threading.Lock(), threading.Event()

    def is_sent(self, chunk: Chunk) -> bool:
        """Whether everything of a chunk lies there already."""
        return self._shards_of[chunk.job, chunk.name] <= self.sent

    def begin(self, chunk: Chunk) -> None:
        """Wait for room before a shard is begun. Those that wait for room were all counted whole,
        and are sent without this thread, so that it does not wait for ever.

        Raises:
            OutputError: a shard could not be sent.
        """
        shards = self._shards_of[chunk.job, chunk.name]
        while self._to.unsent() >= WAITING and not shards <= self._begun:
            if self._stopped.wait(0.05):
                return
        with self._lock:
            self._begun |= shards

    def done(self, chunk: Chunk) -> None:
        """Count a chunk as written, and send what is whole now."""
        for name in self._shards_of[chunk.job, chunk.name]:
            with self._lock:
                self._left[name] -= 1
                whole = self._left[name] == 0
            if whole and name not in self.sent:
                self._to.send(name, self._staging.folder / name, self._header[name])

    def finish(self) -> None:
        """Wait until all that is whole is sent.

        Raises:
            OutputError: a shard could not be sent.
        """
        while self._to.unsent():
            sleep(0.05)

    def stop(self) -> None:
        """Nobody waits for room any more."""
        self._stopped.set()


def _name(job: MergeJob, shard: str) -> str:
    return f"{job.folder}/{shard}" if job.folder else shard


def _shards_of(jobs: Sequence[MergeJob]) -> Mapping[tuple[int, str], frozenset[str]]:
    """(number of the job, tensor) → the files that it is written to: parts may be in several."""
    return {
        (number, name): frozenset(
            _name(job, job.layout.place[output.name][0].name) for output in job.outputs(name)
        )
        for number, job in enumerate(jobs)
        for name in job.family.names
    }
