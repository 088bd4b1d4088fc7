"""Heat maps in the terminal: a row per module and expert, a character per layer.

The map is as wide as the terminal and no wider: layers that do not fit stand in a block below.
Each cell says its value twice, by the height of its block and by its colour, so that nothing is
lost with NO_COLOR, in a file, or to whoever cannot tell the colours apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.console import Console, ConsoleOptions
from rich.style import Style
from rich.text import Text

from safeswap.display import one_line

_SHADES = "▁▂▃▄▅▆▇█"
_PLAIN_SHADES = ".:-=+*#@"
"""For terminals whose encoding has no blocks."""
_NAMES = (12, 8)
"""Letters of an expert's name beside its row, and where room is scarce; of longer ones the middle
is left out."""
_SHORT_KINDS = {"attention": "attn", "cross_attention": "x-attn", "shared_experts": "shared"}
"""Modules where room is scarce."""
_EIGHT = 8
"""Every eighth layer has its number above it, and blocks of layers are of whole eights."""
_FAINT = ColorTriplet(0x8A, 0x8F, 0x94)
"""What a small value's colour tends to: a grey that is seen on black and on white."""

Mark = tuple[str, str]
"""A character and its style."""


@dataclass(frozen=True)
class HeatRow:
    """One row of a map.

    Attributes:
        kind: the module, at the left.
        name: whose values these are; may be empty.
        marks: a character and its style per layer.
    """

    kind: str
    name: str
    marks: Sequence[Mark]


def bars(values: Sequence[float], largest: float, colour: str) -> list[Mark]:
    """A block per value, its height and colour by the value's part of the largest.

    Args:
        values: nan where there is none, which is left empty.
        colour: of the largest, ``#rrggbb``.
    """
    return [_bar(value, largest, colour) for value in values]


def _bar(value: float, largest: float, colour: str) -> Mark:
    if not math.isfinite(value):
        return " ", ""
    part = min(1.0, max(0.0, value / largest)) if largest else 0.0
    step = int(len(_SHADES) * part + 1e-9)  # a half is a half, whatever the last bit says
    return _SHADES[min(len(_SHADES) - 1, step)], _blended(colour, part)


def _blended(colour: str, part: float) -> str:
    full = Color.parse(colour).triplet or _FAINT
    mixed = (round(a + (b - a) * part) for a, b in zip(_FAINT, full, strict=True))
    return ColorTriplet(*mixed).hex


def on_colour(letter: str, colour: str) -> Mark:
    """A letter on its colour, black or white by what can be read there."""
    red, green, blue = Color.parse(colour).triplet or _FAINT
    light = 0.299 * red + 0.587 * green + 0.114 * blue > 150
    return letter, f"{'#000000' if light else '#ffffff'} on {colour}"


def short_names(names: Sequence[str], longest: int = _NAMES[0]) -> dict[str, str]:
    """Names that fit beside a row, told apart: of a long one the middle is left out.

    Where that would make two alike, a number stands in the place of what is left out.
    """
    found: dict[str, str] = {}
    for name in names:
        shown, number = _cut(one_line(name), longest, "…"), 1
        while shown in found.values():
            number += 1
            shown = _cut(one_line(name), longest, f"…{number}…")
        found[name] = shown
    return found


def _cut(name: str, longest: int, gap: str) -> str:
    if cell_len(name) <= longest and gap == "…":
        return name
    room = max(0, longest - cell_len(gap))
    head = set_cell_size(name, room - room // 2).rstrip()
    at = len(name)
    while at and cell_len(name[at - 1 :]) <= room // 2:
        at -= 1
    return f"{head}{gap}{name[at:]}"


class HeatMap:
    """Rows over the layers, with the layers' numbers above and lines of explanation below.

    Args:
        layers: labels of the layers, in their order.
        rows: of the map.
        notes: what the map shows, below it.
    """

    def __init__(
        self, layers: Sequence[str], rows: Sequence[HeatRow], notes: Sequence[str] = ()
    ) -> None:
        self._layers, self._rows, self._notes = layers, rows, notes

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """The map in as few blocks of layers as the width allows; names are cut if that helps."""
        labels = [_labels(self._rows, _NAMES[0], {}), _labels(self._rows, _NAMES[1], _SHORT_KINDS)]
        rooms = [options.max_width - cell_len(own[0]) - 1 for own in labels]
        blocks = [_blocks(len(self._layers), room) for room in rooms]
        best = 1 if len(blocks[1]) < len(blocks[0]) else 0
        wide = cell_len(labels[best][0])
        for first, last in blocks[best]:
            ruler = _ruler(first, last, options.max_width - wide - 1)
            yield _line(f"{'layer':>{wide}} {ruler}".rstrip(), "dim")
            for label, row in zip(labels[best], self._rows, strict=True):
                text = _line(f"{label} ", "")
                for mark, style in row.marks[first:last]:
                    text.append(_plain(mark) if options.ascii_only else mark, style=style)
                yield text
        for note in self._notes:
            yield Text(one_line(note), style="dim")


def _labels(rows: Sequence[HeatRow], longest: int, short: Mapping[str, str]) -> list[str]:
    """What stands left of each row, all of one width; at least as wide as the word above it."""
    names = short_names(list(dict.fromkeys(row.name for row in rows if row.name)), longest)
    kinds = [one_line(short.get(row.kind, row.kind)) for row in rows]
    first = max(map(cell_len, kinds), default=0)
    second = max(map(cell_len, names.values()), default=0)
    found = [_padded(kind, first) for kind in kinds]
    if names:
        called = (names.get(row.name, "") for row in rows)
        found = [
            f"{kind} {_padded(name, second)}" for kind, name in zip(found, called, strict=True)
        ]
    return [_padded(label, len("layer")) for label in found]


def _line(text: str, style: str) -> Text:
    return Text(text, style=style, no_wrap=True, overflow="crop")


def _padded(text: str, wide: int) -> str:
    return " " * max(0, wide - cell_len(text)) + text


def _plain(mark: str) -> str:
    if mark in _SHADES:
        return _PLAIN_SHADES[_SHADES.index(mark)]
    return mark if mark.isascii() else "."


def _blocks(layers: int, room: int) -> list[tuple[int, int]]:
    """First layer and the one after the last of each block, of as many whole eights as fit."""
    count = -(-layers // max(_EIGHT, room - room % _EIGHT)) if room < layers else 1
    step = max(_EIGHT, -(-layers // count))
    step += -step % _EIGHT if count > 1 else 0  # so that the numbers above stay multiples of eight
    return [(first, min(first + step, layers)) for first in range(0, layers, step)]


def _ruler(first: int, last: int, room: int) -> str:
    """The place of every eighth layer, above its column; a number that has no room is left out."""
    told = [at for at in range(first, last, _EIGHT) if at - first + len(str(at)) <= room]
    return "".join(f"{at:<{_EIGHT}}" for at in told).rstrip()


def swatch(letter: str, colour: str) -> Text:
    """A letter on its colour, for a legend."""
    mark, style = on_colour(letter, colour)
    return Text(mark, style=Style.parse(style))
