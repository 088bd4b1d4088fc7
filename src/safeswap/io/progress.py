"""Progress bars, in bytes or in items, with rate and time left; one switch for all of them.

Bars are off until somebody turns them on, as the command line does: a library writes nothing that
was not asked for. They go to a terminal's stderr; where stderr is a file or a pipe, a line of text
comes every half a minute instead.

>>> from safeswap.io import progress
>>> with progress.switched(True):                                          # doctest: +SKIP
...     profile = safeswap.make_profile("base", safety="safety", languages={"sw": "swahili"})
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from safeswap.display import one_line

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

SILENCED = "SAFESWAP_NO_PROGRESS"
"""The environment variable that keeps all bars off, whatever it is set to but nothing and 0."""


class _Switch:
    """Whether bars are shown, in the whole process, and whether one is on the screen now."""

    on = False
    showing = False
    suffix = ""


def enable() -> None:
    """Show bars from now on, unless ``SAFESWAP_NO_PROGRESS`` is set."""
    _Switch.on = os.environ.get(SILENCED, "") in ("", "0")


def disable() -> None:
    """Show no bars from now on."""
    _Switch.on = False


@contextmanager
def switched(on: bool) -> Iterator[None]:
    """Bars on or off within a ``with``; afterwards as before."""
    before = _Switch.on
    if on:
        enable()
    else:
        disable()
    try:
        yield
    finally:
        _Switch.on = before


@contextmanager
def suffixed(text: str) -> Iterator[None]:
    """Within the block every title ends so: which model of how many."""
    before, _Switch.suffix = _Switch.suffix, text
    try:
        yield
    finally:
        _Switch.suffix = before


EVERY = 30.0
"""Seconds between two lines where stderr is no terminal."""


class _Lines:
    """A line now and then, where a bar would fill a log file."""

    def __init__(self, title: str, total: int, shown: Callable[[float], str]) -> None:
        self._title, self._total, self._shown = title, total, shown
        self._done, self._begun = 0, time.monotonic()
        self._said = self._begun

    def advance(self, count: int) -> None:
        """Count; say a line when the last one is `EVERY` seconds old."""
        self._done += count
        now = time.monotonic()
        if now - self._said < EVERY:
            return
        self._said = now
        rate = self._done / (now - self._begun)
        left = f", {_clock((self._total - self._done) / rate)} left" if self._done else ""
        print(
            f"{one_line(self._title)}: {self._shown(self._done)} of {self._shown(self._total)}, "
            f"{self._shown(rate)}/s{left}",
            file=sys.stderr,
            flush=True,
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextmanager
def _lines(
    title: str, total: int, shown: Callable[[float], str]
) -> Iterator[Callable[[int], None]]:
    _Switch.showing = True
    try:
        yield _Lines(title, total, shown).advance
    finally:
        _Switch.showing = False


@contextmanager
def items_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more items are done."""
    title += _Switch.suffix
    if not _shown(total):
        yield _uncounted
        return
    if not sys.stderr.isatty():
        with _lines(
            title, total, lambda value: f"{value:.3g}" if value % 1 else f"{value:.0f}"
        ) as tell:
            yield tell
        return
    from rich.progress import MofNCompleteColumn, ProgressColumn, Task, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        """Items per second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "")

    with _bar(title, total, MofNCompleteColumn(), Rate(), TimeRemainingColumn()) as advance:
        yield advance


@contextmanager
def bytes_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more bytes are done."""
    title += _Switch.suffix
    if not _shown(total):
        yield _uncounted
        return
    if not sys.stderr.isatty():
        with _lines(title, total, lambda value: shown_bytes(round(value))) as tell:
            yield tell
        return
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _bar(title, total, *columns) as advance:
        yield advance


def _shown(total: int) -> bool:
    """A bar within another one is not: what it counts is a part of what the other one counts."""
    return _Switch.on and not _Switch.showing and total > 0


def _uncounted(count: int) -> None:
    """Where no bar is shown."""


@contextmanager
def _bar(title: str, total: int, *columns: ProgressColumn) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    first: Any = (TextColumn("{task.description}", markup=False), BarColumn())
    _Switch.showing = True
    try:
        with Progress(*first, *columns, console=Console(stderr=True)) as progress:
            task = progress.add_task(one_line(title), total=total)
            yield lambda count: progress.advance(task, count)
    finally:
        _Switch.showing = False


def shown_bytes(nbytes: int) -> str:
    """A size as people read it: ``980 bytes``, ``13.0 kB``, ``2.47 GB``."""
    value, units = float(nbytes), iter(("kB", "MB", "GB", "TB"))
    if nbytes < 1000:
        return f"{nbytes} bytes"
    unit = ""
    while value >= 999.5:
        value, unit = value / 1000, next(units, "PB")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"
