"""Heat maps over τ and α: unsafe and right answers, one row per method and granularity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.splits import Part
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import ROLE_TITLES
from safeswap.operators import Operation
from safeswap.report.ablation.grid import (
    candidates,
    in_language,
    operator_words,
    points_of,
)
from safeswap.report.ablation.table import QUESTIONS
from safeswap.report.plan_figure import COLOURS, canvas
from safeswap.selectors.words import in_points, in_words, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap, Normalize

    from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate

_PANELS: Mapping[Measure, str] = {
    Measure.UNSAFE: COLOURS["safety"],
    Measure.ACCURACY: COLOURS["language"],
}
"""What is drawn, and in which colour."""
_CELL = 0.27
"""Height of a cell, in inches."""
_WIDTH = 6.9
_SMALL, _MEDIUM = 6.5, 7.5


_Key = tuple[str, str, str]
"""Method, operator and every setting but τ and α."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What one method was measured at, all settings but τ and α being the same.

    Attributes:
        title: the method, and the settings that tell this grid from others.
        relative: τ is a fraction of the mean share.
        cells: (τ, α) → the candidate; cells of one and the same table have the same candidate.
    """

    title: str
    relative: bool = False
    cells: dict[tuple[float, float], CandidateResult] = field(default_factory=dict)

    @property
    def taus(self) -> list[float]:
        """The thresholds, ascending."""
        return sorted({tau for tau, _ in self.cells})

    @property
    def alphas(self) -> list[float]:
        """The parts of safety in a blend, ascending."""
        return sorted({alpha for _, alpha in self.cells})


def grids(found: Sequence[CandidateResult]) -> list[Grid]:
    """The grids of one language's candidates that have two cells or more, in the order measured."""
    cells: dict[_Key, dict[tuple[float, float], CandidateResult]] = {}
    about: dict[_Key, dict[str, Any]] = {}
    operators: dict[_Key, Operation] = {}
    given = {name for one in found for name in one.settings}
    for one in candidates(found):
        for place in points_of(one):
            settings = dict(place.settings)
            tau, alpha = settings.pop("tau", None), settings.pop("alpha", None)
            if tau is None or alpha is None or place.operator is None:
                continue
            key = (place.method, _identity(place.operator), str(sorted(settings.items())))
            cells.setdefault(key, {}).setdefault((float(tau), float(alpha)), one)
            about.setdefault(key, settings)
            operators.setdefault(key, place.operator)
    kept = [key for key, own in cells.items() if len(own) > 1]
    made = []
    for key in kept:
        method, operator = key[0], operators[key]
        others = [about[other] for other in kept if other[:2] == key[:2]]
        differing = {
            name: value
            for name, value in about[key].items()
            if name in given and any(other.get(name) != value for other in others)
        }
        granularity = about[key].get("by")
        title = f"{method} by {granularity}" if granularity else method
        for said in ("by", "tau_relative"):  # here, and on the axis
            differing.pop(said, None)
        words = operator_words(operator)
        joined = "" if words == ["linear"] else " ".join(words)
        title = ", ".join(part for part in (title, joined, in_words(differing)) if part)
        made.append(Grid(title, bool(about[key].get("tau_relative")), cells[key]))
    return made


def _identity(operator: Operation) -> str:
    """One text for operators that do the same: 1 and 1.0 are one setting, in whatever order."""
    plain = {
        name: float(value) if isinstance(value, int | float) else value
        for name, value in operator.settings.items()
    }
    return f"{operator.name} {sorted(plain.items())}"


def draw_heat_maps(
    found: Sequence[CandidateResult], language: str, png: Path, part: Part | None = None
) -> None:
    """Draw unsafe and right answers over τ and α, for every method that was measured at several.

    A row of two panels for each method, operator, granularity and what else differs; one colour
    scale per figure for all of them. Cells of one and the same table have no line between them;
    what was not measured is hatched. With one value of τ or α a grid is a strip.

    Args:
        found: what was measured, in any languages.
        part: which questions these are; said in the title.

    Raises:
        EvaluationError: no such language, no candidates, or none at two values of τ or α.
        SafeswapError: matplotlib is not installed.
    """
    own = in_language(found, language)
    maps = grids(own)
    if not maps:
        raise EvaluationError(
            f"{language}: no method is measured at two values of tau or alpha, so there is no heat "
            "map. Give the sweep's grid lists of them, as tau: [0, 0.001, 0.01]."
        )
    heights = [len(grid.alphas) * _CELL + 0.74 for grid in maps]
    figure = canvas(_WIDTH, sum(heights) + 1.35)
    from matplotlib.cm import ScalarMappable

    axes = figure.subplots(len(maps), 2, height_ratios=heights, squeeze=False)
    for column, kind in enumerate(_PANELS):
        colours, scale = _colours(maps, kind)
        for grid, row in zip(maps, axes, strict=True):
            _draw(row[column], grid, kind, colours, scale)
            row[column].set_ylabel("" if column else "α, safety's part", fontsize=_SMALL)
            title = row[column].set_title("" if column else grid.title, loc="left", pad=13)
            title.set(fontsize=_MEDIUM, fontweight="bold")
        if scale is not None:
            shared = ScalarMappable(scale, colours)
            below: dict[str, Any] = {"location": "bottom", "aspect": 40, "shrink": 0.9}
            bar = figure.colorbar(shared, ax=list(axes[:, column]), **below)
            bar.set_label(f"{_panel_title(kind)}\n{_inputs(own, kind)}", fontsize=_SMALL)
            bar.ax.tick_params(labelsize=_SMALL, length=2)
            bar.outline.set_visible(False)
    title = f"{language}, {QUESTIONS[part]}" if part else language
    figure.suptitle(title, fontsize=_MEDIUM + 1)
    figure.supxlabel(_legend(maps), fontsize=_SMALL, color="#444444")
    figure.savefig(png, dpi=300, metadata={"Software": None})


def _panel_title(kind: Measure) -> str:
    return f"{kind.words}, % ({kind.direction})"


def _value(one: CandidateResult, kind: Measure) -> float | None:
    figure = one.figure(kind)
    return None if figure is None else 100 * figure.value


def _colours(maps: Sequence[Grid], kind: Measure) -> tuple[Colormap, Normalize | None]:
    """From white to the kind's colour, over all grids; no scale where nothing is measured.

    It spans at least the widest interval: what chance alone can do is not to look like a contrast.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list(kind, ["#ffffff", _PANELS[kind]])
    every = [o for g in maps for o in g.cells.values()]
    figures: list[RateEstimate] = [figure for o in every if (figure := o.figure(kind)) is not None]
    if not figures:
        return colours, None
    low, high = min(f.value for f in figures), max(f.value for f in figures)
    short = max(0.0, max(f.high - f.low for f in figures) - (high - low)) / 2
    room = 0.08 * (high - low)  # the lowest value is not to look like paper
    return colours, Normalize(100 * (low - short - room), 100 * (high + short))


def _draw(
    axes: Axes, grid: Grid, kind: Measure, colours: Colormap, scale: Normalize | None
) -> None:
    from matplotlib.patches import Rectangle

    taus, alphas = grid.taus, grid.alphas
    for column, tau in enumerate(taus):
        for row, alpha in enumerate(alphas):
            one = grid.cells.get((tau, alpha))
            value = None if one is None else _value(one, kind)
            corner = (column - 0.5, row - 0.5)
            if value is None or scale is None:
                missing = Rectangle(corner, 1, 1, facecolor="#f4f4f4", edgecolor="#bbbbbb", lw=0)
                missing.set_hatch("////")
                axes.add_patch(missing)
                continue
            colour = colours(scale(value))
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor=colour, lw=0.3))
            text = axes.text(column, row, f"{value:.1f}", ha="center", va="center")
            text.set(fontsize=_SMALL, color=_ink(colour))
    _draw_borders(axes, grid)
    axes.set_xlim(-0.5, len(taus) - 0.5)
    axes.set_ylim(-0.5, len(alphas) - 0.5)
    written = shown if grid.relative else in_points
    axes.set_xticks(range(len(taus)), [written(tau) for tau in taus])
    axes.set_yticks(range(len(alphas)), [shown(alpha) for alpha in alphas])
    unit = "mean shares" if grid.relative else "points"
    axes.set_xlabel(f"τ [{unit}]{steps(taus)}", fontsize=_SMALL)
    axes.tick_params(length=0, labelsize=_SMALL)
    axes.spines[:].set_visible(False)
    above: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(_panel_title(kind), (0, 1), (0, 3), fontsize=_SMALL, **above)


def _ink(ground: Sequence[float]) -> str:
    """Black or white, whichever has more contrast by WCAG 2's relative luminance."""
    linear = [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in ground[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#ffffff" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05 else "#000000"


def _draw_borders(axes: Axes, grid: Grid) -> None:
    """Lines between neighbours that are not the very same table."""
    taus, alphas = grid.taus, grid.alphas
    for column, tau in enumerate(taus):
        for row, (below, above) in enumerate(pairwise(alphas)):
            if _differ(grid, (tau, below), (tau, above)):
                axes.plot([column - 0.5, column + 0.5], [row + 0.5] * 2, color="white", lw=1.2)
    for row, alpha in enumerate(alphas):
        for column, (left, right) in enumerate(pairwise(taus)):
            if _differ(grid, (left, alpha), (right, alpha)):
                axes.plot([column + 0.5] * 2, [row - 0.5, row + 0.5], color="white", lw=1.2)


def _differ(grid: Grid, one: tuple[float, float], other: tuple[float, float]) -> bool:
    here, there = grid.cells.get(one), grid.cells.get(other)
    return here is None or here is not there


def steps(values: Sequence[float]) -> str:
    """What must be said of an axis whose steps are all drawn alike: even, by factors, or neither.

    Factors count as even from 2 to 10 within one grid's ``1, 2, 5`` or ``1, 3, 10``: the largest
    is at most 1.7 × the smallest.
    """
    positive = [value for value in values if value > 0]
    if len(values) < 3:
        return ""
    differences = [b - a for a, b in pairwise(values)]
    if math.isclose(min(differences), max(differences), rel_tol=1e-6):
        return ""
    factors = [b / a for a, b in pairwise(positive)]
    if len(factors) > 1 and max(factors) <= 1.7 * min(factors):
        return "  (0, then logarithmic)" if len(positive) < len(values) else "  (logarithmic)"
    return "  (steps not to scale)"


def _inputs(own: Sequence[CandidateResult], kind: Measure) -> str:
    """The figures of the models the candidates were made from, to compare with."""
    known = [
        f"{title} {value:.1f}"
        for role, title in ROLE_TITLES.items()
        for one in own
        if one.role == role and (value := _value(one, kind)) is not None
    ]
    return " · ".join(known)


def _legend(maps: Sequence[Grid]) -> str:
    """How wide the intervals are, and what hatches and missing lines mean, where there are any."""
    every = [one for grid in maps for one in grid.cells.values()]
    parts = []
    wide = {
        kind: max(
            (
                max(figure.high - figure.value, figure.value - figure.low)
                for one in every
                if (figure := one.figure(kind)) is not None
            ),
            default=None,
        )
        for kind in _PANELS
    }
    said = [f"{kind} ±{100 * half:.1f}" for kind, half in wide.items() if half is not None]
    if said:
        parts.append(f"95 % intervals, at the widest: {', '.join(said)} points.")
    if any(len({id(o) for o in g.cells.values()}) < len(g.cells) for g in maps):
        parts.append("No line between cells: the very same table.")
    full = all(len(g.cells) == len(g.taus) * len(g.alphas) for g in maps)
    if not full or any(one.figure(kind) is None for one in every for kind in _PANELS):
        parts.append("Hatched: not measured.")
    return " ".join(parts)
