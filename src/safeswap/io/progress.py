"""Progress bars, in bytes or in items, with rate and time left; one switch for all of them.

Bars are off until somebody turns them on, as the command line does: a library writes nothing that
was not asked for. They go to a terminal's stderr, and nowhere else.

>>> from safeswap.io import progress
>>> with progress.switched(True):                                          # doctest: +SKIP
...     profile = safeswap.make_profile("base", safety="safety", languages={"sw": "swahili"})
"""

from __future__ import annotations

import os
import sys
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
def items_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more items are done."""
    if not _shown(total):
        yield _uncounted
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
    if not _shown(total):
        yield _uncounted
        return
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with _bar(title, total, *columns) as advance:
        yield advance


def _shown(total: int) -> bool:
    """A bar within another one is not: what it counts is a part of what the other one counts."""
    return _Switch.on and not _Switch.showing and total > 0 and sys.stderr.isatty()


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
