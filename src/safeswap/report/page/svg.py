"""Small drawings in the page itself: SVG as text, coloured by the page's own classes.

No colour stands here: a class names what something is, and the style says how that looks in the
dark, in the light and on paper.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from safeswap.tables import plain

LEFT, RIGHT, TOP, BOTTOM = 64.0, 12.0, 14.0, 34.0
"""Margins around what is drawn, in the drawing's own units, which are pixels where it fits."""
_MOST_MARKS = 1600
"""Points with a text of their own; beyond, lines alone are drawn, and the table has the numbers."""


def escaped(text: object) -> str:
    """Text on one line in which nothing is markup, for content and attributes alike."""
    return html.escape(plain(str(text)))


def element(tag: str, *inside: str, **attributes: object) -> str:
    """An element; names of attributes with ``_`` for ``-`` (``class_`` is ``class``), those that
    are None left out, and numbers to a tenth.

    ``inside`` is markup that was made here; texts go through `words`.
    """
    named = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{named}>{''.join(inside)}</{tag}>" if inside else f"<{tag}{named}/>"


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}".removesuffix(".0")
    return escaped(value)


def words(text: object, x: float, y: float, class_: str = "", anchor: str = "start") -> str:
    """A text at a place."""
    anchored = None if anchor == "start" else anchor
    return element("text", escaped(text), x=x, y=y, class_=class_ or None, text_anchor=anchored)


def title(text: object) -> str:
    """What is shown when a pointer rests on the element that this stands in."""
    return element("title", escaped(text))


def without_titles(markup: str) -> str:
    """A drawing with its label alone, without texts on hover: a page's script tells them."""
    label, end, rest = markup.partition("</title>")
    return label + end + re.sub(r"<title>[^<]*</title>", "", rest)


def drawing(width: float, height: float, label: str, parts: Iterable[str], class_: str = "") -> str:
    """A whole drawing; readers that do not see it are told its label."""
    name = element("title", escaped(label))
    return element(
        "svg",
        name,
        *parts,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        role="img",
        class_=f"chart {class_}".strip(),
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A line over the layers.

    Attributes:
        name: of the series, in the legend and beside each number.
        style: the class that says its colour and dash.
        values: one per layer; nan where there is none.
        digits: of a number as it is told.
    """

    name: str
    style: str
    values: Sequence[float]
    digits: int = 4


def nice_step(span: float, about: int = 4) -> float:
    """1, 2 or 5 times a power of ten, so that a span has about so many steps."""
    if not span > 0 or not math.isfinite(span):
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    return next((n * power for n in (1, 2, 5) if span / (n * power) <= about), 10 * power)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers from low to high."""
    step = nice_step(high - low, about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def line_chart(
    label: str,
    lines: Sequence[Line],
    layers: Sequence[str],
    *,
    width: float = 900.0,
    height: float = 220.0,
    from_zero: bool = True,
) -> str:
    """Lines over the layers with a mark per number, whose text stands on hover.

    Args:
        label: what the axis counts.
        layers: names of the layers, in their order.
        from_zero: the axis begins at 0 where no number is below.
    """
    found = [value for line in lines for value in line.values if math.isfinite(value)]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    low = min(low, 0.0) if from_zero else low
    room = 0.05 * (high - low or 1.0)
    low, high = (low if low == 0.0 and from_zero else low - room), high + room
    across = (width - LEFT - RIGHT) / max(1, len(layers))

    def x(at: int) -> float:
        return LEFT + across * (at + 0.5)

    def y(value: float) -> float:
        return TOP + (height - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [*_axis(ticks(low, high), y, width), *layer_axis(layers, x, height - BOTTOM + 16)]
    if low < 0 < high:
        parts.append(element("line", x1=LEFT, x2=width - RIGHT, y1=y(0), y2=y(0), class_="zero"))
    marked = len(found) <= _MOST_MARKS
    for line in lines:
        points = [
            (at, x(at), y(value)) for at, value in enumerate(line.values) if math.isfinite(value)
        ]
        for run in _runs(points):
            path = " ".join(f"{px:.1f},{py:.1f}" for _, px, py in run)
            parts.append(element("polyline", points=path, class_=f"line {line.style}"))
        for at, px, py in points if marked else ():
            told = title(f"layer {layers[at]}, {line.name}: {line.values[at]:.{line.digits}f}")
            parts.append(element("circle", told, cx=px, cy=py, r=3.0, class_=line.style))
    return drawing(width, height, label, parts, "lines")


def _axis(numbers: Sequence[float], y: Callable[[float], float], width: float) -> list[str]:
    parts = []
    for number in numbers:
        at = y(number)
        parts.append(element("line", x1=LEFT, x2=width - RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(words(f"{number:.6g}", LEFT - 8, at + 4, "tick", "end"))
    return parts


def layer_axis(layers: Sequence[str], x: Callable[[int], float], y: float) -> list[str]:
    """Names of about sixteen layers below a drawing; ``x``: number of a layer → its middle."""
    step = max(1, math.ceil(len(layers) / 16))
    return [words(layers[at], x(at), y, "tick", "middle") for at in range(0, len(layers), step)]


def _runs(points: Sequence[tuple[int, float, float]]) -> Iterable[list[tuple[int, float, float]]]:
    """Neighbours, so that no line crosses a layer without a number."""
    run: list[tuple[int, float, float]] = []
    for point in points:
        if run and point[0] != run[-1][0] + 1:
            yield run
            run = []
        run.append(point)
    if run:
        yield run
