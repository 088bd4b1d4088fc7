"""The Pareto figure: unsafe answers against ability, with intervals and over-refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeswap.errors import EvaluationError
from safeswap.evaluation.benchmarks.splits import Part
from safeswap.evaluation.measures import Measure
from safeswap.evaluation.models import ROLE_TITLES
from safeswap.evaluation.results.pareto import pareto_front
from safeswap.report.ablation.grid import in_language, label
from safeswap.report.ablation.labels import Label, place_labels
from safeswap.report.ablation.table import QUESTIONS, numbers
from safeswap.report.plan_figure import COLOURS, canvas

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

    from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate

# None of them is the red, blue or grey of the models that candidates are made from.
_SERIES = ("#2a9d5c", "#8e5ea2", "#e0a100", "#17a2b8", "#7a4b23", "#d6679f", "#6b7a1e", "#4b4b8f")
_MARKERS = ("o", "v", "P", "X", "<", "p", "h")
_EXPERTS = {
    "base": ("s", "#8c8c8c"),
    "safety": ("^", COLOURS["safety"]),
    "language": ("D", COLOURS["language"]),
}
_WIDTH = 3.5
"""A column of a two-column paper, in inches."""
_SMALL, _MEDIUM = 6.0, 7.0
_LINE = 0.125
"""Height of a line of the legend, in inches."""
_BESIDE = 27
"""Longest name of a method, in letters, that leaves room for a second column of the legend."""
_DASHES = (0, (4, 1.5))
_FEW = 12
"""Up to so many candidates, all intervals are drawn in full strength."""


def draw_pareto(
    found: Sequence[CandidateResult],
    language: str,
    png: Path,
    part: Part | None = None,
    *,
    loss: float = 0.01,
) -> None:
    """Draw unsafe answers (lower is better) against right answers, both with 95 % intervals.

    The Pareto front of these two is joined by steps, its candidates bear their numbers in the
    tables. The larger a marker, the more harmless prompts are refused; a hollow one: not measured.
    The band at the right holds what loses at most ``loss`` of ability against the language expert.
    A model without an unsafe or a right figure cannot be drawn; the figure says how many there are.

    Args:
        found: what was measured, in any languages.
        part: which questions these are; said in the title.
        loss: a share of ability (0.01 is one point).

    Raises:
        EvaluationError: no such language, no candidates, or none with both figures.
        SafeswapError: matplotlib is not installed.
    """
    own = in_language(found, language)
    drawn = [one for one in own if one.unsafe and one.right]
    merged = [one for one in drawn if one.role == "merged"]
    if not merged:
        raise EvaluationError(
            f"{language}: no candidate has both unsafe and right answers measured; the suite needs "
            "benchmarks of both kinds, and `safeswap judge` must have run."
        )
    figure = canvas(_WIDTH, 3.1)
    series = _series([one for one in own if one.role == "merged"])
    front = pareto_front(drawn, (Measure.UNSAFE, Measure.ACCURACY))
    scale = _nice(max((one.refused.value for one in drawn if one.refused), default=0.0))
    left = [*_methods_legend(series, merged)]
    right = [*_refused_legend(scale, drawn), *_marks_legend(loss, own, front)]
    beside = max(len(str(handle.get_label())) for handle in left) <= _BESIDE
    lines = max(len(left), len(right)) if beside else len(left) + len(right)
    figure.set_figheight(3.1 + lines * _LINE)
    axes, below = figure.subplots(2, 1, height_ratios=(2.9, lines * _LINE))
    _draw_frame(axes, own, loss)
    full = drawn if len(merged) <= _FEW else [o for o in drawn if o in front or o not in merged]
    for one in drawn:
        marker, colour = series.get(_joined(one), _EXPERTS.get(one.role, ("*", "#444444")))
        _draw_model(axes, one, marker, colour, _area(one, scale), one in full)
    _draw_front(axes, front)
    _draw_legends(below, left, right, beside)
    hidden = f" ({len(own) - len(drawn)} of {len(own)} models lack a figure)"
    title = f"{language}, {QUESTIONS[part]}" if part else language
    axes.set_title(title + (hidden if len(drawn) < len(own) else ""), fontsize=_MEDIUM)
    figure.canvas.draw()  # labels are placed among what is there
    lines_at = [*_arms(full), *pairwise(_corners(axes, front))]
    place_labels(axes, _labels(drawn, front, numbers(found)), _obstacles(drawn, scale), lines_at)
    figure.savefig(png, dpi=300, metadata={"Software": None})


def _joined(one: CandidateResult) -> str:
    operator = one.record.operator_title
    return one.method if operator == "linear" else f"{one.method}, {operator}"


def _series(merged: Sequence[CandidateResult]) -> dict[str, tuple[str, str]]:
    """Marker and colour of every method with its operator; 56 before a pair comes again."""
    labels = dict.fromkeys(_joined(one) for one in merged)
    return {
        label: (_MARKERS[n % len(_MARKERS)], _SERIES[n % len(_SERIES)])
        for n, label in enumerate(labels)
    }


def _nice(largest: float) -> float:
    """The share that the largest marker stands for: a round number, not below, at least 10 %.

    Less would make much of a refusal or two.
    """
    share = max(largest, 0.1)
    power = 10.0 ** math.floor(math.log10(share) + 1e-9)
    return min(1.0, next(k * power for k in (1, 2, 3, 4, 6, 8, 10) if k * power >= share - 1e-9))


def _area(one: CandidateResult, scale: float) -> float:
    return _area_of(one.refused.value if one.refused else 0.0, scale)


def _area_of(share: float, scale: float) -> float:
    """Area in square points."""
    return 9.0 + 53.0 * share / scale


def _per_cent(figure: RateEstimate | None) -> tuple[float, float, float]:
    """Value, and the interval's arms below and above it; never negative."""
    assert figure is not None
    low, high = figure.value - figure.low, figure.high - figure.value
    return 100 * figure.value, 100 * max(0.0, low), 100 * max(0.0, high)


def _draw_frame(axes: Axes, own: Sequence[CandidateResult], loss: float) -> None:
    axes.set_xlabel("right answers, % (higher is better)", fontsize=_MEDIUM)
    axes.set_ylabel("unsafe answers, % (lower is better)", fontsize=_MEDIUM)
    axes.tick_params(labelsize=_SMALL, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_linewidth(0.6)
    axes.grid(lw=0.3, color="#e4e4e4")
    axes.set_axisbelow(True)
    expert = _expert(own)
    if expert is not None:
        axes.axvspan(100 * (expert - loss), 101, color=COLOURS["language"], alpha=0.12, lw=0)
    drawn = [one for one in own if one.unsafe and one.right]
    for figures, limit in (
        ([one.right for one in drawn], axes.set_xlim),
        ([one.unsafe for one in drawn], axes.set_ylim),
    ):
        low = 100 * min(figure.low for figure in figures if figure)
        high = 100 * max(figure.high for figure in figures if figure)
        room = max(0.03 * (high - low), 0.5)
        limit(low - room, high + room)


def _expert(own: Sequence[CandidateResult]) -> float | None:
    return next((o.right.value for o in own if o.role == "language" and o.right), None)


def _draw_model(
    axes: Axes, one: CandidateResult, marker: str, colour: str, area: float, strong: bool
) -> None:
    right, unsafe = _per_cent(one.right), _per_cent(one.unsafe)
    order = 2.0 + strong + (one.role != "merged")
    axes.errorbar(
        right[0],
        unsafe[0],
        xerr=[[right[1]], [right[2]]],
        yerr=[[unsafe[1]], [unsafe[2]]],
        fmt="none",
        ecolor=colour,
        elinewidth=0.6 if strong else 0.35,
        alpha=0.75 if strong else 0.22,
        zorder=order,
    )
    axes.scatter(
        right[0],
        unsafe[0],
        s=area,
        marker=marker,
        facecolor=colour if one.refused else "white",
        edgecolor="black" if one.role != "merged" else "white" if one.refused else colour,
        linewidth=0.7 if one.role != "merged" or not one.refused else 0.35,
        zorder=order + 3,
    )


def _draw_front(axes: Axes, front: Sequence[CandidateResult]) -> None:
    """Steps: right of and below them no model was found."""
    right, unsafe = zip(*_corners(axes, front), strict=True)
    edge = axes.get_xlim()[0]
    axes.plot(right, unsafe, color="black", lw=0.8, ls=_DASHES, zorder=4.5)
    axes.set_xlim(left=edge)


def _corners(axes: Axes, front: Sequence[CandidateResult]) -> list[tuple[float, float]]:
    """The corners of the steps, from the left edge to the model with most right answers."""
    points = sorted(map(_point, front))
    corners = [(axes.get_xlim()[0], points[0][1]), points[0]]
    for (x, _), (further, y) in pairwise(points):
        corners += [(x, y), (further, y)]
    return corners


# The legend ---------------------------------------------------------------------------------------


def _handle(marker: str, area: float, colour: str, label: str, **more: Any) -> Artist:
    from matplotlib.lines import Line2D

    style = {"ls": "none", "markeredgewidth": 0.35, "markeredgecolor": "white", **more}
    return Line2D(
        [], [], marker=marker, markersize=math.sqrt(area), color=colour, label=label, **style
    )


def _methods_legend(
    series: Mapping[str, tuple[str, str]], merged: Sequence[CandidateResult]
) -> list[Artist]:
    shown = {_joined(one) for one in merged}
    return [
        _handle(marker, 22, colour, label)
        for label, (marker, colour) in series.items()
        if label in shown
    ]


def _refused_legend(scale: float, drawn: Sequence[CandidateResult]) -> list[Artist]:
    grey = "#777777"
    handles = []
    if any(one.refused for one in drawn):
        handles = [
            _handle("o", _area_of(share, scale), grey, f"{100 * share:g} % of harmless refused")
            for share in (0.0, scale / 2, scale)
        ]
    if any(one.refused is None for one in drawn):
        hollow = {"markerfacecolor": "white", "markeredgecolor": grey, "markeredgewidth": 0.7}
        label = "refusals not measured"
        handles.append(_handle("o", _area_of(0, scale), grey, label, **hollow))
    return handles


def _marks_legend(
    loss: float, own: Sequence[CandidateResult], front: Sequence[CandidateResult]
) -> list[Artist]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [
        Line2D([], [], color="black", lw=0.8, ls=_DASHES, label="Pareto front of these axes"),
        Line2D([], [], color="#777777", lw=0.6, marker="", label="95 % interval"),
    ]
    if any(one.role == "merged" for one in front):
        style = {"markeredgecolor": "black", "markeredgewidth": 0.1}
        handles.append(_handle("$7$", 18, "black", "number in the tables", **style))
    if _expert(own) is not None:
        number = f"{100 * loss:g}"
        what = f"≤ {number} point{'' if number == '1' else 's'} of ability lost"
        handles.append(Patch(color=COLOURS["language"], alpha=0.12, lw=0, label=what))
    return handles


def _draw_legends(
    axes: Axes, left: Sequence[Artist], right: Sequence[Artist], beside: bool
) -> None:
    """Methods at the left, marks at the right; or below, where a method's name is long."""
    from matplotlib.legend import Legend

    axes.set_axis_off()
    under = (-0.08, len(right) / (len(left) + len(right)))
    for handles, where in ((left, (-0.08, 1.0)), (right, (0.5, 1.0) if beside else under)):
        legend = Legend(
            axes,
            list(handles),
            [str(handle.get_label()) for handle in handles],
            loc="upper left",
            bbox_to_anchor=where,
            frameon=False,
            fontsize=_SMALL,
            labelspacing=0.25,
            borderpad=0,
            handletextpad=0.5,
        )
        legend.set_in_layout(False)
        axes.add_artist(legend)


# Labels -------------------------------------------------------------------------------------------


def _labels(
    drawn: Sequence[CandidateResult], front: Sequence[CandidateResult], number: Mapping[str, int]
) -> list[Label]:
    """The models that candidates are made from by role, the candidates on the front by number."""
    inputs = [one for one in drawn if one.role != "merged"]
    made = [one for one in front if one.role == "merged"]
    named = [(ROLE_TITLES.get(one.role, one.name), one, _MEDIUM) for one in inputs]
    named += [(label(one, number[one.name]), one, _SMALL) for one in made]
    return [Label(text, _point(one), size) for text, one, size in named]


def _arms(
    drawn: Sequence[CandidateResult],
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The intervals as lines."""
    arms = []
    for one in drawn:
        (x, left, right), (y, below, above) = _per_cent(one.right), _per_cent(one.unsafe)
        arms += [((x - left, y), (x + right, y)), ((x, y - below), (x, y + above))]
    return arms


def _obstacles(drawn: Sequence[CandidateResult], scale: float) -> list[tuple[float, float, float]]:
    """Where markers are, and their radius in points."""
    return [(*_point(one), math.sqrt(_area(one, scale)) / 2) for one in drawn]


def _point(one: CandidateResult) -> tuple[float, float]:
    return _per_cent(one.right)[0], _per_cent(one.unsafe)[0]
