"""Which of a report's drawings become files, under which names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from safeswap.report.page.depth import depth_of
from safeswap.report.page.paper import PaperFigure, save_figures
from safeswap.report.page.prepared import Prepared
from safeswap.report.page.strip import legend, strip
from safeswap.report.story import KINDS

_ROOM, _LEAST = 760.0, 5.0
"""Width of a map's cells together, and of one at least: what a page of a paper holds."""
_LONGEST = 60
"""Letters of a file's name."""


def write_figures(prepared: Prepared, folder: Path) -> list[Path]:
    """Write all drawings of a report as SVG and PNG.

    Returns:
        What was written.

    Raises:
        SafeswapError: matplotlib is not installed.
        OutputError: the folder cannot be written.
    """
    return save_figures(list(_apart(figures_of(prepared))), folder)


def figures_of(prepared: Prepared) -> Iterator[PaperFigure]:
    """Decisions of each merge, norms and cosines over depth, outcomes, safety against ability."""
    for run in prepared.runs.merges:
        title = prepared.names[run.path]
        chart = strip(run.plan, room=_ROOM, least=_LEAST)
        yield PaperFigure(f"decisions-{title}", f"Decisions, {title}", chart, legend(run.plan))
    for profile in prepared.profiles:
        found = depth_of(profile)
        keys = [(style, "", name) for style, name in found["series"]]
        for title, chart in found["charts"]:
            yield PaperFigure(f"depth-{title}", title, chart, keys)
    for group in prepared.groups:
        for title, chart in group.outcomes:
            keys = [(kind, " ", kind) for kind in KINDS]
            name = f"outcomes-{title}"
            yield PaperFigure(name, f"Answers to harmful prompts, %: {title}", chart, keys)
        for title, chart in group.trades:
            yield PaperFigure(f"trade-{title}", f"Safety against ability, {title}", chart)


def _apart(figures: Iterator[PaperFigure]) -> Iterator[PaperFigure]:
    """The same with names that are files' names, no two alike."""
    seen: dict[str, int] = {}
    for one in figures:
        slug = re.sub(r"[^a-z0-9]+", "-", one.name.lower()).strip("-")[:_LONGEST].rstrip("-")
        seen[slug] = seen.get(slug, 0) + 1
        name = slug if seen[slug] == 1 else f"{slug}-{seen[slug]}"
        yield PaperFigure(name, one.title, one.chart, one.keys)
