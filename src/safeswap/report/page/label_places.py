"""Where names go beside marks, so that none lies on another: greedy, near first, with leaders.

Each name takes the first free place of a fixed order: beside its mark, then on rings around it,
then anywhere. A name that finds none is left out; its mark still says it on hover.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_RINGS = (15.0, 26.0, 40.0, 58.0, 80.0, 110.0, 150.0)
"""How far from its mark a name may stand, in the drawing's units."""
_AROUND = 24
_GAP = 2.0
"""Between names, and between a name and a mark."""
_STEP = 14.0
"""Of the search through the whole drawing."""


class Box(NamedTuple):
    """A rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box, gap: float = 0.0) -> bool:
        """Whether two rectangles overlap, or are nearer than a gap."""
        return (
            self.left < other.right + gap
            and other.left < self.right + gap
            and self.top < other.bottom + gap
            and other.top < self.bottom + gap
        )

    def inside(self, other: Box) -> bool:
        """Whether no part of it is outside another."""
        return (
            self.left >= other.left
            and self.top >= other.top
            and self.right <= other.right
            and self.bottom <= other.bottom
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """Its point that is nearest to another."""
        return min(self.right, max(self.left, x)), min(self.bottom, max(self.top, y))


Leader = tuple[float, float, float, float]
"""A line: from x and y, to x and y."""


class Place(NamedTuple):
    """Where a name stands, and the line that leads to it; None beside its mark."""

    box: Box
    leader: Leader | None


def place_names(
    marks: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    bounds: Box,
    radius: float = 7.0,
) -> list[Place | None]:
    """A place for every name; the first ones choose first.

    Args:
        marks: middle of each mark. There may be more marks than names: those have none.
        sizes: width and height of each name.
        bounds: what names stay inside of.
        radius: of a mark.

    Returns:
        One per name: no two boxes overlap and none lies on a mark; no leader runs through a name,
        where there is such a place. None where no place is left at all.
    """
    taken = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in marks]
    found: list[Place | None] = []
    for (x, y), size in zip(marks, sizes, strict=False):
        placed = [place for place in found if place]
        others = [*taken, *(place.box for place in placed)]
        first: Place | None = None
        for box in _candidates(x, y, size, bounds, radius):
            if not box.inside(bounds) or any(box.meets(one, _GAP) for one in others):
                continue
            place = _cleanly(x, y, box, radius, placed)
            if place:
                first = place
                break
            first = first or Place(box, next(_leaders(x, y, box, radius)))
        found.append(first)
    return found


def _cleanly(x: float, y: float, box: Box, radius: float, placed: Sequence[Place]) -> Place | None:
    """The name at a place, if no leader runs through a name then."""
    if any(one.leader and _crosses(one.leader, box) for one in placed):
        return None
    for leader in _leaders(x, y, box, radius):
        if leader is None or not any(_crosses(leader, one.box) for one in placed):
            return Place(box, leader)
    return None


def _candidates(
    x: float, y: float, size: tuple[float, float], bounds: Box, radius: float
) -> Iterator[Box]:
    """Places in the order in which they are tried."""
    wide, high = size
    near = radius + _GAP
    for left, top in (
        (x + near, y - high),
        (x + near, y - high / 2),
        (x - near - wide, y - high),
        (x - near - wide, y - high / 2),
        (x + near, y),
        (x - near - wide, y),
        (x - wide / 2, y - near - high),
        (x - wide / 2, y + near),
    ):
        yield Box(left, top, left + wide, top + high)
    for ring in _RINGS:
        for step in range(_AROUND):
            angle = 2 * math.pi * step / _AROUND
            across, down = math.cos(angle), math.sin(angle)
            # the box's nearest side, not its middle, stands on the ring
            left = x + ring * across - wide * (1 - across) / 2
            top = y + ring * down - high * (1 - down) / 2
            yield Box(left, top, left + wide, top + high)
    rows = int((bounds.bottom - bounds.top - high) // _STEP) + 1
    columns = int((bounds.right - bounds.left - wide) // _STEP) + 1
    spots = [
        (bounds.left + _STEP * column, bounds.top + _STEP * row)
        for row in range(max(0, rows))
        for column in range(max(0, columns))
    ]
    for left, top in sorted(spots, key=lambda at: math.hypot(at[0] - x, at[1] - y)):
        yield Box(left, top, left + wide, top + high)


def _leaders(x: float, y: float, box: Box, radius: float) -> Iterator[Leader | None]:
    """Ways from the rim of a mark to its name, shortest first; None where they stand together."""
    near = box.nearest(x, y)
    if math.dist((x, y), near) <= radius + 2 * _GAP:
        yield None
        return
    middle = (box.top + box.bottom) / 2
    corners = [(a, b) for a in (box.left, box.right) for b in (box.top, middle, box.bottom)]
    for to_x, to_y in [near, *sorted(corners, key=lambda at: math.dist((x, y), at))]:
        part = radius / max(radius, math.dist((x, y), (to_x, to_y)))
        yield x + part * (to_x - x), y + part * (to_y - y), to_x, to_y


def _crosses(line: Leader, box: Box) -> bool:
    """Whether any part of a line lies within a rectangle (Liang and Barsky's clipping)."""
    x1, y1, x2, y2 = line
    first, last = 0.0, 1.0
    for step, room in (
        (x1 - x2, x1 - box.left),
        (x2 - x1, box.right - x1),
        (y1 - y2, y1 - box.top),
        (y2 - y1, box.bottom - y1),
    ):
        if step == 0:
            if room <= 0:
                return False
        elif step < 0:
            first = max(first, room / step)
        else:
            last = min(last, room / step)
    return first < last
