"""Labels beside points, where they cover neither markers nor each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DISTANCES = (5.0, 8.0, 12.0, 17.0, 23.0, 30.0)
"""From the point to the near edge of the label, in points."""
_DIRECTIONS = 16
_PARTS = tuple(n / 12 for n in range(2, 11))
_FREE = 9.0
"""A label farther than this from its point gets a line to it."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text, the point it belongs to in the axes' own units, and its size in points."""

    text: str
    at: tuple[float, float]
    size: float


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: _Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    @property
    def area(self) -> float:
        return (self.right - self.left) * (self.top - self.bottom)


Line = tuple[tuple[float, float], tuple[float, float]]


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    markers: Iterable[tuple[float, float, float]],
    lines: Iterable[Line] = (),
) -> None:
    """Write each label at the free place nearest to its point; the first ones choose first.

    Sixteen directions and six distances are tried for each. The figure must have its layout: call
    it after ``figure.canvas.draw()``.

    Args:
        markers: x, y in the axes' own units and a radius in points; not to be covered.
        lines: level or upright ones, by their ends in the axes' own units; to be covered only
            where there is no other place.
    """
    pixels = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]

    def spread(one: tuple[float, float], other: tuple[float, float], reach: float) -> _Box:
        ends = axes.transData.transform([one, other])
        low, high = ends.min(axis=0) - reach * pixels, ends.max(axis=0) + reach * pixels
        return _Box(low[0], low[1], high[0], high[1])

    taken = [spread((x, y), (x, y), radius + 0.8) for x, y, radius in markers]
    crossed = [spread(one, other, 0.6) for one, other in lines]
    extent = axes.get_window_extent()
    inside = _Box(extent.x0, extent.y0, extent.x1, extent.y1)
    texts: list[_Box] = []
    for label in labels:
        width, height = (side + 1.5 * pixels for side in _size(axes, label))
        x, y = axes.transData.transform(label.at)
        places = _places((float(x), float(y)), width, height, pixels)
        best = min(
            places,
            key=lambda place: _cost(place, taken, crossed, inside) + _struck(place, texts),
        )
        texts.append(best.box)
        taken += [best.box, *best.leader]
        _write(axes, label, best)


def _write(axes: Axes, label: Label, place: _Place) -> None:
    from matplotlib.patheffects import withStroke

    line: dict[str, Any] | None = None
    if place.distance > _FREE:
        line = {"arrowstyle": "-", "lw": 0.4, "color": "#555555", "shrinkA": 0, "shrinkB": 2}
    x, y = axes.transData.inverted().transform(place.middle)
    written = axes.annotate(
        label.text,
        label.at,
        (float(x), float(y)),
        fontsize=label.size,
        ha="center",
        va="center",
        arrowprops=line,
        zorder=9,
        path_effects=[withStroke(linewidth=1.2, foreground="white", alpha=0.8)],
    )
    written.set_in_layout(False)


def _size(axes: Axes, label: Label) -> tuple[float, float]:
    """Width and height of the text in pixels."""
    text = axes.text(*label.at, label.text, fontsize=label.size)
    box = text.get_window_extent()
    text.remove()
    return box.width, box.height


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a label could stand, in pixels, and how far in points it is from its point."""

    middle: tuple[float, float]
    box: _Box
    distance: float
    start: tuple[float, float]

    @property
    def leader(self) -> list[_Box]:
        """The line to the point as a row of dots, where there is one."""
        if self.distance <= _FREE:
            return []
        x, y = self.start
        near_x = min(max(x, self.box.left), self.box.right)
        near_y = min(max(y, self.box.bottom), self.box.top)
        dots = ((x + part * (near_x - x), y + part * (near_y - y)) for part in _PARTS)
        return [_Box(a - 1, b - 1, a + 1, b + 1) for a, b in dots]


def _places(
    start: tuple[float, float], width: float, height: float, pixels: float
) -> Iterator[_Place]:
    """Everything that is tried, the nearest first."""
    for distance in _DISTANCES:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            x = start[0] + distance * pixels * across + _side(across) * width / 2
            y = start[1] + distance * pixels * up + _side(up) * height / 2
            box = _Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            yield _Place((x, y), box, distance, start)


def _side(part: float) -> int:
    """Whether the label's left or lower edge, its middle, or its other edge is at the distance."""
    return 0 if abs(part) < 0.3 else 1 if part > 0 else -1


def _cost(place: _Place, taken: Sequence[_Box], crossed: Sequence[_Box], inside: _Box) -> float:
    """How much of the label is covered or outside; the distance decides between free places."""
    box = place.box
    covered = sum(box.shared(other) for other in taken)
    lined = sum(box.shared(other) for other in crossed)
    outside = box.area - box.shared(inside)
    return (2 * covered + lined + 4 * outside) / box.area + place.distance / 150


def _struck(place: _Place, labels: Sequence[_Box]) -> float:
    """A line to its point that strikes through another label is as bad as lying on it."""
    dots = place.leader
    return float(any(dot.shared(label) for dot in dots for label in labels))
