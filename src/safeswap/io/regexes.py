"""Regular expressions that somebody else wrote, matched for a bounded time.

Python's ``re`` may take for ever over a few characters (``(a+)+$``). While it matches it heeds
signals, so a timer of processor time ends it. Signals reach the main thread only, where the command
line does all its work; in another thread nothing is bounded.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from safeswap.errors import EvaluationError

SECONDS = 5.0
"""Of processor time, for one expression on one text; honest ones take a thousandth of a second."""


@contextmanager
def time_limit(pattern: str) -> Iterator[None]:
    """End what is done with a pattern after `SECONDS`.

    Raises:
        EvaluationError: the time is over; shows the beginning of the pattern.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: object) -> None:
        raise EvaluationError(
            f"the regular expression {pattern[:80]!r} takes too long: more than {SECONDS:g} s for "
            "one text. Write it without a repetition inside a repetition, such as (a+)+."
        )

    kept = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, kept)


class BoundedPattern:
    """A compiled pattern whose every use is bounded; otherwise as ``re.Pattern`` is."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.inner = pattern

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        return _bounded(found, str(self.inner.pattern)) if callable(found) else found


class BoundedRe:
    """The module ``re`` with every function bounded; for code that would use it unbounded."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(re, name)
        if name not in _FUNCTIONS:
            return found

        def act(pattern: Any, *arguments: Any, **named: Any) -> Any:
            inner = pattern.inner if isinstance(pattern, BoundedPattern) else pattern
            done = _bounded(found, str(getattr(inner, "pattern", inner)))(
                inner, *arguments, **named
            )
            return BoundedPattern(done) if isinstance(done, re.Pattern) else done

        return act


_FUNCTIONS = frozenset(
    ("compile", "search", "match", "fullmatch", "findall", "finditer", "split", "sub", "subn")
)


def _bounded(act: Callable[..., Any], pattern: str) -> Callable[..., Any]:
    def bounded(*arguments: Any, **named: Any) -> Any:
        with time_limit(pattern):
            done = act(*arguments, **named)
            return iter(list(done)) if act.__name__ == "finditer" else done

    return bounded
