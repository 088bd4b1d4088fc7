"""The page's drawings for a paper: the very SVG of the page, painted by matplotlib.

Nothing is drawn twice: each drawing is made once, in ``svg.py``'s few elements, and what is read
here are those elements. Text becomes outlines, so that no font has to be there where the file is
shown. Colours are told apart by whoever cannot see some of them, and by their lightness in grey;
where that is not enough a hatch, a dash or a mark tells.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from rich.cells import cell_len

from safeswap.errors import OutputError, SafeswapError
from safeswap.io.files import save_inside
from safeswap.report.page.svg import drawing, element, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_log = logging.getLogger("safeswap.report")
INCH = 7.0 / 900
"""An inch on paper per unit of a drawing: the widest fill a page, and 12 units are 6.7 points."""
DPI = 300
FILLS: Mapping[str, str] = {
    "safety": "#8f2a17",
    "language": "#5a9fd4",
    "blend": "#e8dcae",
    "mix": "#7b5aa6",
    "base": "#ffffff",
    "refused": "#78bab3",
    "harmful": "#a83e22",
    "neither": "#f0f0f0",
    "merged": "#7b5aa6",
    "other": "#3aa6a6",
    "letter": "#000000",
}
"""By class; light enough apart to be told in grey, but ``mix``, which is hatched."""
SERIES: Mapping[str, tuple[str, str, str]] = {
    "safety": ("#8f2a17", "-", "o"),
    "series0": ("#1f5f99", "--", "s"),
    "series1": ("#2f8f5b", "-.", "^"),
    "series2": ("#8159a8", ":", "D"),
    "series3": ("#a8780f", (0, (6, 2, 1, 2, 1, 2)), "v"),  # type: ignore[dict-item]
    "series4": ("#1f8a8a", (0, (8, 3)), "P"),  # type: ignore[dict-item]
    "series5": ("#8a5a44", (0, (2, 4)), "X"),  # type: ignore[dict-item]
}
"""Colour, dash and mark of each line."""
_STROKES = {"grid": ("#dddddd", 0.5), "zero": ("#555555", 0.7), "arm": ("#9a9a9a", 0.8)}
_STROKES |= {"tau": ("#000000", 0.8), "leader": ("#555555", 0.5), "front": ("#7b5aa6", 1.2)}
_DASHED = ("tau", "front")
_EDGE, _HATCH = "#666666", "#a58cc4"
_INK, _SOFT = "#000000", "#444444"
_NO_XML = re.compile("[\ufffe\uffff]")
_SHIFT = re.compile(r"translate\(([-\d.]+) ([-\d.]+)\)")
_LETTER = 7.2
"""Room for a letter of a key; those of a title are larger and bold."""
_KEY = 14.0
"""Height and width of a key in a legend, in the drawing's units."""


@dataclass(frozen=True)
class PaperFigure:
    """A drawing of the page with what stands beside it there.

    Attributes:
        name: of its files, without a suffix.
        title: above it.
        chart: its SVG, as `safeswap.report.page.svg.drawing` makes it.
        keys: class, letter and meaning of each colour; of lines the letter is empty.
    """

    name: str
    title: str
    chart: str
    keys: Sequence[tuple[str, str, str]] = ()


def save_figures(figures: Sequence[PaperFigure], folder: Path) -> list[Path]:
    """Write each figure as SVG and as PNG of 300 dots per inch.

    Returns:
        What was written.

    Raises:
        SafeswapError: matplotlib is not installed.
        OutputError: the folder cannot be written, or has a link under the name of a figure.
    """
    check_matplotlib()
    from matplotlib import rc_context

    written = []
    try:
        folder.mkdir(exist_ok=True)
        with (
            _boxes_said(),
            rc_context(
                {"svg.fonttype": "path", "svg.hashsalt": "safeswap", "hatch.linewidth": 0.6}
            ),
        ):
            for one in figures:
                painted = paint(titled(one))
                for suffix, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
                    drawn = BytesIO()
                    painted.savefig(drawn, format=suffix, dpi=DPI, metadata=metadata)
                    written.append(save_inside(folder, f"{one.name}.{suffix}", drawn.getvalue()))
    except OSError as error:
        raise OutputError(
            f"--figures {folder}: cannot be written ({error.strerror}). Free some space, or choose "
            "another folder."
        ) from error
    return written


@contextmanager
def _boxes_said() -> Iterator[None]:
    """Say once that letters without a font became boxes; matplotlib says it for each of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    if any("missing from font" in str(one.message) for one in caught):
        _log.warning("figures: some letters have no font on this machine, and are boxes")


def check_matplotlib() -> None:
    """Refuse before any work.

    Raises:
        SafeswapError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise SafeswapError(
            "--figures draws with matplotlib: install safeswap[figures], or leave --figures out."
        ) from None


def titled(figure: PaperFigure) -> str:
    """A figure's drawing with its title and keys above it, as SVG of the same few elements."""
    root = _tree(figure.chart)
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    parts, top = [words(figure.title, 2.0, 14.0, "title")], 24.0
    texts = [_LETTER * (cell_len(text) + 5) for _, _, text in figure.keys]
    width = max(width, 1.25 * _LETTER * cell_len(figure.title), *texts)
    x = 2.0
    for (kind, letter, text), wide in zip(figure.keys, texts, strict=True):
        if x + wide > width and x > 2.0:
            x, top = 2.0, top + _KEY + 5
        parts += _key(kind, letter, x, top)
        parts.append(words(text, x + _KEY + 6, top + 11, "name"))
        x += wide
    top += _KEY + 12 if figure.keys else 4
    inner = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    parts.append(element("g", inner, transform=f"translate(0 {top:.1f})"))
    return drawing(width, height + top, figure.title, parts)


def _key(kind: str, letter: str, x: float, y: float) -> list[str]:
    if kind in SERIES and not letter:
        ends = f"{x:.1f},{y + _KEY / 2:.1f} {x + _KEY + 4:.1f},{y + _KEY / 2:.1f}"
        middle = {"cx": x + _KEY / 2 + 2, "cy": y + _KEY / 2}
        return [
            element("polyline", points=ends, class_=f"line {kind}"),
            element("circle", **middle, r=3.0, class_=kind),
        ]
    inside = [element("rect", x=x, y=y, width=_KEY, height=_KEY)]
    inside += [words(letter, x + _KEY / 2, y + 11, "letter", "middle")] if letter.strip() else []
    return [element("g", *inside, class_=f"unit {kind}")]


def _tree(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(_NO_XML.sub("", svg))


def paint(svg: str) -> Figure:
    """A drawing as a figure of matplotlib, in its own size on paper."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    root = _tree(svg)
    width, height = (float(root.get(side, "0")) for side in ("width", "height"))
    figure = Figure(figsize=(width * INCH, height * INCH), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for order, (item, classes, shift) in enumerate(_items(root, (), (0.0, 0.0))):
        _Painter(axes, item, classes, shift, order).paint()
    return figure


def _items(
    parent: ElementTree.Element, classes: tuple[str, ...], shift: tuple[float, float]
) -> Iterator[tuple[ElementTree.Element, tuple[str, ...], tuple[float, float]]]:
    """Every element that is painted, with the classes that it is in, and how far it is moved."""
    for child in parent:
        own = (*classes, *child.get("class", "").split())
        if child.tag == "g":
            found = _SHIFT.fullmatch(child.get("transform", ""))
            moved = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
            yield from _items(child, own, (shift[0] + moved[0], shift[1] + moved[1]))
        elif child.tag != "title":
            yield child, own, shift


class _Painter:
    """One element on the axes."""

    def __init__(
        self,
        axes: Axes,
        item: ElementTree.Element,
        classes: Sequence[str],
        shift: tuple[float, float],
        order: int,
    ) -> None:
        self._axes, self._item, self._classes = axes, item, classes
        self._dx, self._dy = shift
        self._order = order

    def paint(self) -> None:
        """Put it on the axes; an element of another kind is an error of ours."""
        getattr(self, f"_{self._item.tag}")()

    def _number(self, name: str) -> float:
        moved = {"x": self._dx, "y": self._dy}.get(name.strip("c12"), 0.0)
        return float(self._item.get(name, "0")) + moved

    def _points(self) -> tuple[list[float], list[float]]:
        pairs = [pair.split(",") for pair in self._item.get("points", "").split()]
        xs, ys = ([float(pair[at]) for pair in pairs] for at in (0, 1))
        return [x + self._dx for x in xs], [y + self._dy for y in ys]

    def _fill(self) -> str:
        named = (FILLS[name] for name in reversed(self._classes) if name in FILLS)
        return next(named, "#888888")

    def _faced(self) -> dict[str, Any]:
        """How an area looks: an edge where it is light, a hatch where grey would not tell it."""
        fill = self._fill()
        hatch = "///" if "mix" in self._classes else None
        edge = _EDGE if lightness(fill) > 80 else _HATCH if hatch else fill
        return {
            "facecolor": fill,
            "edgecolor": edge,
            "linewidth": 0.4,
            "hatch": hatch,
            "zorder": self._order,
        }

    def _rect(self) -> None:
        from matplotlib.patches import Rectangle

        at = (self._number("x"), self._number("y"))
        wide, high = (float(self._item.get(side, "0")) for side in ("width", "height"))
        self._axes.add_patch(Rectangle(at, wide, high, **self._faced()))

    def _circle(self) -> None:
        series = next((SERIES[name] for name in self._classes if name in SERIES), None)
        colour, _, mark = series or (self._fill(), "", "o")
        if "model" in self._classes:
            colour, mark = self._fill(), "o"
        size = 2 * float(self._item.get("r", "3")) * INCH * 72
        at = ([self._number("cx")], [self._number("cy")])
        self._axes.plot(*at, mark, color=colour, ms=size, mew=0, zorder=self._order)

    def _polygon(self) -> None:
        xs, ys = self._points()
        faced = self._faced()
        faced["edgecolor"] = _EDGE
        self._axes.fill(xs, ys, **faced)

    def _polyline(self) -> None:
        xs, ys = self._points()
        if "front" in self._classes:
            colour, width = _STROKES["front"]
            self._axes.plot(xs, ys, "--", color=colour, lw=width, zorder=self._order)
            return
        colour, dash, _ = next(SERIES[name] for name in self._classes if name in SERIES)
        self._axes.plot(xs, ys, linestyle=dash, color=colour, lw=1.1, zorder=self._order)

    def _line(self) -> None:
        name = next(name for name in self._classes if name in _STROKES)
        colour, width = _STROKES[name]
        ends = [[self._number(f"{axis}{end}") for end in "12"] for axis in "xy"]
        dash = "--" if name in _DASHED else "-"
        self._axes.plot(*ends, linestyle=dash, color=colour, lw=width, zorder=self._order)

    def _text(self) -> None:
        from matplotlib.patheffects import withStroke

        kind = self._classes[-1] if self._classes else ""
        size = {"tick": 11.0, "letter": 11.0, "title": 13.0}.get(kind, 12.0)
        colour = _SOFT if kind == "tick" else _INK
        if kind == "letter":
            colour = "white" if lightness(self._behind()) < 55 else "black"
        anchors = {"middle": "center", "end": "right"}
        family = fonts(self._item.text or "")
        written = self._axes.text(
            self._number("x"),
            self._number("y"),
            self._item.text or "",
            fontsize=size * INCH * 72,
            color=colour,
            ha=anchors.get(self._item.get("text-anchor", ""), "left"),
            va="baseline",
            weight="bold" if kind in ("letter", "title") and family == [_OWN] else "normal",
            family=family,
            parse_math=False,
            zorder=self._order,
        )
        if kind == "name":  # lines may run behind it
            written.set_path_effects([withStroke(linewidth=1.5, foreground="white")])

    def _behind(self) -> str:
        """The colour that a letter stands on."""
        named = (FILLS[n] for n in reversed(self._classes) if n in FILLS and n != "letter")
        return next(named, "#ffffff")


def lightness(colour: str) -> float:
    """L* of a colour, from 0 for black to 100 for white: what is left of it in grey."""
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    root: float = light ** (1 / 3) if light > 0.008856 else 7.787 * light + 16 / 116
    return 116 * root - 16


def fonts(text: str) -> list[str]:
    """The fonts a text is set in: matplotlib's own, and for a letter that it lacks one that is
    installed and has it.
    """
    found = [_OWN]
    for letter in dict.fromkeys(text):
        if not letter.isascii() and not any(ord(letter) in _letters(name) for name in found):
            found += [name for name in _installed() if ord(letter) in _letters(name)][:1]
    return found


_OWN = "DejaVu Sans"


@cache
def _installed() -> list[str]:
    from matplotlib import font_manager

    return sorted(name for name in font_manager.get_font_names() if name.startswith("Noto Sans"))


@cache
def _letters(font: str) -> frozenset[int]:
    """The code points that a font has glyphs for."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(font)).get_charmap())
