"""A diagnosis in the terminal: the grade with its reasons, refusals, and a map over the layers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from safeswap.display import visible
from safeswap.report.heat_terminal import HeatMap, HeatRow, bars
from safeswap.report.plan_figure import COLOURS, LANGUAGE_COLOURS
from safeswap.roles import BASE, SAFETY
from safeswap.search.diagnose.record import Diagnosis, Grade
from safeswap.search.diagnose.separation import Estimate
from safeswap.tables import Cell, Column, Row, Table
from safeswap.tables.terminal import as_rich

_GRADES: dict[Grade, str] = {
    "likely": "likely to work",
    "open": "open: it may work or not",
    "unlikely": "unlikely to work",
}
_MARKS = {True: "+", False: "-", None: "?"}


def diagnosis_view(found: Diagnosis, *, layers: bool = False) -> RenderableType:
    """One language: grade, reasons, what is not known, a table of refusals, a map over the layers.

    Args:
        layers: every layer's figures as a table, too.
    """
    every: list[RenderableType] = [as_rich(_layers(found)), Text("")] if layers else []
    return Group(
        Text(visible(f"{found.language}: {_GRADES[found.grade]}"), style="bold"),
        _reasons(found),
        Text(""),
        as_rich(_refusals(found)),
        Text(""),
        _map(found),
        Text(""),
        *every,
        *map(Text, _rest(found)),
    )


def _reasons(found: Diagnosis) -> Grid:
    """A row for each reason; + speaks for a merge, - against it, ? is undecided."""
    rows = [(_MARKS[one.holds], one.name, one.text) for one in found.reasons]
    rows.append(("", "how", found.way))
    rows += [("", "not known", text) for text in found.unknown]
    rate = found.measured
    said = f"{rate.worked} of {rate.tried} pairs tried that had this grade (see the docs)"
    rows += [("", "worked", said)]
    grid = Grid.grid(padding=(0, 1))
    for row in rows:
        grid.add_row(*(Text(visible(cell)) for cell in row))
    return grid


def _refusals(found: Diagnosis) -> Table:
    rows = [
        Row.of(
            one.role,
            one.language,
            _figure(one.harmful, 100, 0, "no such requests were given"),
            _figure(one.harmless, 100, 0),
            _figure(one.ranking, 1, 2, "no harmful requests were given"),
        )
        for one in found.refusing
    ]
    columns = (
        Column("model", align="left"),
        Column("asked in", align="left"),
        Column("harmful"),
        Column("harmless"),
        Column("AUC"),
    )
    title = "Answers that open as refusals do, % (95 % intervals)"
    return Table(title, columns, tuple(rows))


def _map(found: Diagnosis) -> HeatMap:
    """AUC from 0.5 (empty) to 1 (full), and cosines from 0 to 1, over the language expert's
    layers.
    """
    every = found.layers
    language = found.language

    def aucs(values: list[Estimate | None]) -> list[float]:
        return [math.nan if one is None else one.value - 0.5 for one in values]

    ours, theirs = LANGUAGE_COLOURS[0], COLOURS[SAFETY]
    rows = [
        HeatRow("AUC", "English", bars(aucs([one.english for one in every]), 0.5, ours)),
        HeatRow("AUC", language, bars(aucs([one.language for one in every]), 0.5, ours)),
        HeatRow("AUC", "transfer", bars(aucs([one.transfer for one in every]), 0.5, ours)),
        HeatRow("cosine", SAFETY, bars([one.safety_cosine for one in every], 1.0, theirs)),
        HeatRow("cosine", language, bars(_known(found), 1.0, theirs)),
        HeatRow("cosine", "halves", bars([one.halves for one in every], 1.0, theirs)),
    ]
    notes = (
        f"layers of the {language} expert; AUC from 0.5 (low) to 1 (high): English, {language}, "
        f"and {language} by English's direction",
        "cosines from 0 to 1, of English's direction: with the safety expert's, with that of "
        f"{language}, and of two halves of the texts",
    )
    return HeatMap([str(one.layer) for one in every], rows, notes)


def _known(found: Diagnosis) -> list[float]:
    cosines = [one.language_cosine for one in found.layers]
    return [math.nan if one is None else one for one in cosines]


def _layers(found: Diagnosis) -> Table:
    columns = (
        Column("layer"),
        Column("English", "AUC"),
        Column(found.language, "AUC"),
        Column("transfer", "AUC"),
        Column(SAFETY, "cosine with"),
        Column(found.language, "cosine with"),
        Column("halves", "cosine with"),
        Column("base, safety", "cosine of"),
    )
    rows = [
        Row.of(
            f"{one.layer}{' *' if one.layer == found.layer else ''}",
            *(_plain(e.value if e else None) for e in (one.english, one.language, one.transfer)),
            _plain(one.safety_cosine),
            _plain(one.language_cosine),
            _plain(one.halves),
            _plain(one.base_cosine),
        )
        for one in found.layers
    ]
    notes = ("* the layer that the verdict goes by",)
    return Table(f"Layers of the {found.language} expert", columns, tuple(rows), notes)


def _rest(found: Diagnosis) -> Iterator[str]:
    """Spelling, likelihoods and collisions: figures that decide nothing."""
    language, known, alone = found.language, found.knowledge, found.spelling
    if alone.transfer is not None and alone.language is not None:
        yield (
            f"by spelling alone AUC is {alone.english.value:.2f} in English, "
            f"{alone.language.value:.2f} in {language}, and {alone.transfer.value:.2f} from "
            "English to it"
        )
    yield (
        f"log-likelihood of answers in {language}, nats a token: {BASE} {known.base:.2f}, "
        f"{SAFETY} {known.safety:.2f}, {language} {known.expert:.2f} ({BASE}: "
        f"{known.per_letter:.2f} nats lost a letter)"
    )
    colliding = [one.unit for one in found.units if one.collides]
    cosines = [one.cosine for one in found.units]
    said = f"the experts collide in {len(colliding)} of {len(cosines)} attentions and MLPs"
    names = f" ({', '.join(colliding[:6])}{', …' if len(colliding) > 6 else ''})"
    yield (
        f"{said}{names if colliding else ''}; cosines of their updates "
        f"{min(cosines):.2f} to {max(cosines):.2f}"
    )


def _figure(one: Estimate | None, scale: float, digits: int, why: str = "") -> Cell:
    if one is None:
        return Cell.missing(why)
    return Cell.figure(one.value, one.low, one.high, scale=scale, digits=digits)


def _plain(value: float | None) -> Cell:
    if value is None:
        return Cell.missing("no harmful requests in the language were given")
    return Cell.figure(value, scale=1, digits=2)
