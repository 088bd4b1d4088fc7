"""A range of a remote file, whatever the network does: tried again, and gone on with.

What fails for the moment is tried again after a while that doubles, with chance in it so that many
clients do not come back at once; a server that says when (``Retry-After``) is obeyed. What came
before a connection broke off is kept: the next request begins at the byte that was reached.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from time import sleep, time
from typing import Protocol, TypeVar

from safeswap.errors import CheckpointError

Answer = TypeVar("Answer")

TRIES = 6
"""Requests in a row that may bring nothing (``PROGRESS`` bytes) before a read fails."""
PROGRESS = 1 << 16
CONNECTIONS = 8
"""Requests at once."""
WAY_OUT = "Use --download: it fetches the whole files into the cache, and goes on from there."
CHANGED = "It changed while it was read. Run the command again."
FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0
"""Seconds; a server that asks for more than the last is not waited for."""


class TransientError(Exception):
    """What may go well the next time.

    Attributes:
        wait: seconds that the server asks for; None where it says nothing.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Origin(Protocol):
    """One remote file, as its store gives it.

    Attributes:
        where: its address, for messages; without secrets.
        size: bytes.
        version: what tells that it is the same file still (ETag, generation, commit and digest);
            empty where the server says nothing of the kind.
        sha256: its digest (hex), where the store knows it.
    """

    @property
    def where(self) -> str:
        """Its address, for messages."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def version(self) -> str:
        """What tells that it is the same file still."""

    @property
    def sha256(self) -> str | None:
        """Its digest, where the store knows it."""

    def stream(self, begin: int, end: int) -> Iterator[bytes]:
        """One request for bytes ``begin`` to ``end``; the answer may stop early.

        Raises:
            TransientError: it may go well the next time.
            CheckpointError: the file changed, is gone, or may not be read.
        """
        ...

    def refuse_changed(self) -> None:
        """Ask the store once more what the file is.

        Raises:
            CheckpointError: it is another one now, or gone.
        """
        ...


def fetch_range(origin: Origin, begin: int, end: int, take: Callable[[memoryview], object]) -> None:
    """Fetch bytes ``begin`` to ``end`` in order, in as many requests as it needs.

    Args:
        take: given the bytes as they come, none twice, none left out.

    Raises:
        CheckpointError: too many requests in a row brought nothing; or as ``Origin.stream``.
    """
    at, failed = begin, 0
    while at < end:
        before, wait = at, None
        try:
            for block in origin.stream(at, end):
                part = memoryview(block)[: end - at]  # an endless body is not read to its end
                take(part)
                at += len(part)
                if at == end:
                    return
            reason = f"the answer ended {end - at} bytes early"
        except TransientError as error:
            reason, wait = str(error), error.wait
        failed = 0 if at - before >= PROGRESS else failed + 1
        if failed or wait:
            give_up(origin.where, failed, f"{reason}, at byte {at}", wait)


def small_file(origin: Origin, limit: int) -> bytes:
    """A small file whole.

    Raises:
        CheckpointError: it has more than ``limit`` bytes, or cannot be fetched.
    """
    if origin.size > limit:
        raise CheckpointError(
            f"{origin.where}: has {origin.size} bytes, which no file of its kind has."
        )
    found = bytearray()
    fetch_range(origin, 0, origin.size, found.extend)
    return bytes(found)


def tried(where: str, ask: Callable[[], Answer]) -> Answer:
    """What ``ask`` gives, tried again as above.

    Raises:
        CheckpointError: too many tries failed; or what ``ask`` raises.
    """
    failed = 0
    while True:
        try:
            return ask()
        except TransientError as error:
            failed += 1
            give_up(where, failed, str(error), error.wait)


def give_up(where: str, failed: int, reason: str, wait: float | None) -> None:
    """Wait before the next try, or give up.

    Args:
        failed: tries in a row so far.
        wait: seconds that the server asked for.

    Raises:
        CheckpointError: too many failed, or the server asks for too long a while.
    """
    again = "What came is kept: run the same command again to go on."
    if wait is not None and wait > LONGEST_WAIT:
        raise CheckpointError(
            f"{where}: the server asks to come back in {wait:.0f} seconds ({reason}). Wait that "
            "long. What came is kept: the same command then goes on."
        )
    if failed >= TRIES:
        raise CheckpointError(
            f"{where}: failed {failed} times in a row ({reason}). Check the connection. {again}"
        )
    own = min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, failed - 1)) * random.uniform(0.5, 1.0)
    sleep(own if wait is None else max(own, wait))


def seconds_of(retry_after: str | None) -> float | None:
    """Seconds that a ``Retry-After`` asks for: a number, or a date (RFC 9110, 10.2.3)."""
    if retry_after is None:
        return None
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (ValueError, OverflowError):
        return None
