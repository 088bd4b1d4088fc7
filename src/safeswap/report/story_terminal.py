"""The story of an evaluation in the terminal: what follows for each merge, and bars of outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from safeswap.display import one_line
from safeswap.report.story import KINDS, Card, Fact, OutcomeShares

_COLOURS = {"refused": "#1f8a84", "harmful": "#d0613d", "neither": "#9aa0a6"}
_BLOCKS = {"refused": "█", "harmful": "▒", "neither": "░"}
"""Told apart without a colour, too."""
_PLAIN = {"refused": "#", "harmful": "!", "neither": "."}
_MARKS = {"good": ("+", "bold green"), "bad": ("!", "bold red"), "open": ("?", "")}
_WIDEST = 60
"""Characters of a bar: longer ones say no more."""
_NUMBERS = len("  100.0  100.0  100.0")


def story_view(
    cards: Sequence[Card], outcomes: Sequence[OutcomeShares], titles: Mapping[str, str]
) -> RenderableType:
    """Each merge against its reference, then what the answers to harmful prompts were.

    Args:
        titles: model → its name as tables have it.
    """
    parts: list[RenderableType] = []
    if cards:
        said = "Is it safer, and by how much? Differences in points, with 95 % intervals"
        parts += [Text(said, style="bold"), *(_card(card) for card in cards)]
        parts.append(Text("+ a gain   ! a loss   ? no finding\n", style="dim"))
    if outcomes:
        said = "Answers to harmful prompts, per cent"
        parts += [Text(said, style="bold"), *(OutcomeBars(one, titles) for one in outcomes)]
        parts.append(Text(""))
    return Group(*parts)


def _card(card: Card) -> RenderableType:
    said = f"{one_line(card.title)} against {one_line(card.against)}"
    head = Text(f"{said} (primary)" if card.primary else said, style="underline")
    return Group(head, *(_Line(fact) for fact in card.facts))


class _Line:
    """A fact on one line where it fits; else what follows stands below. Numbers stay whole."""

    def __init__(self, fact: Fact) -> None:
        self._fact = fact

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """One line or several."""
        fact = self._fact
        mark, style = _MARKS[fact.tone]
        what, said = one_line(fact.what), Text(one_line(fact.reading), style)
        head = Text.assemble((mark, style), f" {what}")
        difference = Text.assemble(
            fact.rates, "  " if fact.rates else "", (fact.difference, "bold")
        )
        if difference.cell_len + 2 > options.max_width:
            difference = Text(fact.difference, "bold")
        whole = _joined(head, difference, said)
        below = _joined(Text(""), difference, said)
        if whole.cell_len <= options.max_width:
            yield whole
        elif below.cell_len <= options.max_width:
            yield from _hung(head, console, options)
            yield below
        else:
            yield from _hung(head, console, options)
            yield Text.assemble("  ", difference)
            yield from _hung(Text.assemble("  ", said), console, options)


def _joined(*parts: Text) -> Text:
    return Text("  ").join(parts)


def _hung(text: Text, console: Console, options: ConsoleOptions) -> Iterator[Text]:
    """The text in lines of the console's width, all but the first moved in."""
    for number, line in enumerate(text.wrap(console, max(8, options.max_width - 2))):
        line.rstrip()
        yield Text.assemble("  " if number else "", line)


class OutcomeBars:
    """A bar per model, its parts as long as the shares, with the three numbers beside it."""

    def __init__(self, shares: OutcomeShares, titles: Mapping[str, str]) -> None:
        self._shares, self._titles = shares, titles

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """A head with what the parts mean, then the bars."""
        blocks = _PLAIN if options.ascii_only else _BLOCKS
        room = min(_WIDEST, max(10, options.max_width - _NUMBERS - 2))
        cell = self._shares.cell
        yield Text(f"{one_line(cell.title)}, {one_line(cell.language)}", style="underline")
        head = Text("  ")
        for kind in KINDS:
            head.append(blocks[kind], style=_COLOURS[kind]).append(f" {kind}  ")
        head.rstrip()
        yield head
        for model, shares in self._shares.rows.items():
            name = Text(f"  {one_line(self._titles.get(model, model))}", overflow="ellipsis")
            name.truncate(options.max_width)
            yield name
            bar = Text("  ", no_wrap=True)
            for kind, wide in zip(KINDS, parts_of(room, shares), strict=True):
                bar.append(blocks[kind] * wide, style=_COLOURS[kind])
            numbers = (f"{100 * shares.get(kind, 0.0):5.1f}" for kind in KINDS)
            yield bar.append("  " + "  ".join(numbers))


def parts_of(room: int, shares: Mapping[str, float]) -> list[int]:
    """Characters per kind that add up to ``room``: whole parts, and the rest to the largest rests.

    What is there at all has a character.
    """
    exact = [room * shares.get(kind, 0.0) for kind in KINDS]
    found = [max(int(part), 1 if part > 0 else 0) for part in exact]
    while sum(found) < room and any(exact):
        found[max(range(len(KINDS)), key=lambda n: exact[n] - found[n])] += 1
    while sum(found) > room:
        found[max(range(len(KINDS)), key=found.__getitem__)] -= 1
    return found
