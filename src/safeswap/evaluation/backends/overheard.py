"""What an engine's processes write to standard error while it starts: passed on, and kept.

vLLM starts a model in processes of its own. Where that fails, its error here says no more than "see
root cause above": the cause is a line in their log, which they write to the same standard error.
"""

from __future__ import annotations

import os
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread

KEPT = 400
"""Lines: more than the tracebacks of a worker and of the engine above it."""
_RAISED = re.compile(r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception)): (\S.*)$")
_ELSEWHERE = re.compile(r"initialization failed|see (?:the )?(?:stack trace|root cause)", re.I)
_DRAIN_SECONDS = 2.0


@contextmanager
def overheard() -> Iterator[deque[str]]:
    """The last lines that this process and those it starts write to standard error.

    What is written still goes where it went. Processes that were started meanwhile keep writing
    through here for as long as they live. Empty where there is no standard error to listen to.
    """
    lines: deque[str] = deque(maxlen=KEPT)
    try:
        own = os.dup(2)
    except OSError:  # closed
        yield lines
        return
    read, write = os.pipe()
    thread = Thread(target=_pass_on, args=(read, os.dup(own), lines), daemon=True)
    thread.start()
    sys.stderr.flush()
    os.dup2(write, 2)
    os.close(write)
    try:
        yield lines
    except BaseException:
        _restore(own)
        thread.join(_DRAIN_SECONDS)  # the last lines may be those that count
        raise
    else:
        _restore(own)


def root_cause(lines: Iterable[str]) -> str:
    """The first error in a log that does not send its reader to another one; "" where none is."""
    for line in lines:
        found = _RAISED.search(line)
        if found is not None and not _ELSEWHERE.search(line):
            return f"{found[1]}: {found[2].strip()}"
    return ""


def _restore(own: int) -> None:
    sys.stderr.flush()
    os.dup2(own, 2)
    os.close(own)


def _pass_on(read: int, own: int, lines: deque[str]) -> None:
    """Copy until the last writer has ended."""
    rest = b""
    with open(read, "rb", buffering=0) as heard, open(own, "wb", buffering=0) as out:
        while block := heard.read(1 << 16):
            with suppress(OSError):  # the terminal is gone; the engine must not wait for it
                out.write(block)
            *whole, rest = (rest + block).split(b"\n")
            lines.extend(line.decode("utf-8", "replace") for line in whole)
            rest = rest[-(1 << 16) :]
