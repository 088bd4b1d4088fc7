"""The figures: each expert's share of its update per unit, their difference, what was decided.

Run as ``python -m safeswap.report.plan_figure PLAN PNG [PLAN PNG …] [PROFILE]`` it draws in a
process of its own.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeswap import profile as profiles
from safeswap.anatomy import kind_of, label_of, layer_labels, layer_of
from safeswap.anatomy.units import MODULE_KINDS, PART_KINDS
from safeswap.errors import OutputError, SafeswapError
from safeswap.plan import Plan, PlannedUnit
from safeswap.plan.mixtures import decisions_of, experts_of, folded
from safeswap.roles import SAFETY
from safeswap.selectors.share_difference import statistics
from safeswap.selectors.words import describe, in_points, threshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from safeswap.profile import Profile

COLOURS = {
    "safety": "#c8553d",
    "language": "#2f6690",
    "blend": "#b7a57a",
    "mix": "#7d5ba6",
    "base": "#d9d9d9",
}
LANGUAGE_COLOURS = ("#2f6690", "#4f9d69", "#8f6bb3", "#c99a2e", "#3aa6a6", "#8a5a44")
_INCH_PER_LAYER = 0.26


def colour_name(plan: Plan, unit: str) -> str:
    """``safety``, ``language``, ``blend``, ``mix`` or ``base``: what a unit's colour stands for."""
    decision = plan.units[unit].decision
    return "language" if decision == plan.language else decision


def decision_colour(plan: Plan, unit: str) -> str:
    """The colour of a unit's decision; white where the plan has no such unit."""
    return COLOURS[colour_name(plan, unit)] if unit in plan.units else "#ffffff"


def panels_of(plan: Plan) -> dict[str, list[str]]:
    """What has shares of its own → its units by layer: ``layer``, or ``attention`` and ``mlp``."""
    plan = _folded(plan)
    kinds = {
        kind: [f"{layer}.{kind}" for layer in layer_labels(plan.units)]
        for kind in _kinds(plan.units, MODULE_KINDS)
    }
    shares = {k: [_shares(plan, unit) for unit in units] for k, units in kinds.items()}
    if not any(any(row) for row in shares.values()):
        return {}
    if plan.selector.get("by") == "layer" or _alike([*shares.values()]):
        layers = layer_labels(plan.units)  # decided by layer: one number for all of it
        first = {label_of(u): u for u in reversed([*plan.units]) if kind_of(u) in MODULE_KINDS}
        return {"layer": [first[layer] for layer in layers]}
    return {kind: units for kind, units in kinds.items() if any(shares[kind])}


def _folded(plan: Plan) -> Plan:
    """The plan with one row for what is one mlp, where it decides experts apart."""
    return replace(plan, units=folded(plan))


def _alike(rows: Sequence[Sequence[Any]]) -> bool:
    return len(rows) > 1 and all(row == rows[0] for row in rows)


def _kinds(units: Iterable[str], kinds: Sequence[str]) -> list[str]:
    """Those of ``kinds`` that units are of."""
    present = {kind_of(unit) for unit in units}
    return [kind for kind in kinds if kind in present]


def _layers(units: Mapping[str, Any] | Sequence[str]) -> int:
    return len(layer_labels(units))


def _shares(plan: Plan, unit: str) -> Mapping[str, float]:
    row = plan.units.get(unit)
    return (row.shares if row else None) or {}


def draw(plan: Plan, png: Path, profile: Profile | None = None) -> None:
    """Draw shares, their differences with ±τ, and the decisions per unit.

    A plan of the same weights everywhere has no map of decisions: its one decision is said, the
    differences have the colour of who moved more, and with a profile the norms are drawn, too.

    Raises:
        SafeswapError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    panels, uniform = panels_of(plan), plan.is_uniform
    kinds = _kinds(plan.units, (*MODULE_KINDS, *PART_KINDS, "norms"))
    whole = _folded(plan)
    heights = [2.1, 1.5] * len(panels)
    normed = uniform and profile is not None
    heights += [2.1] if normed else []
    heights += [] if uniform else [0.42 * len(kinds) + 0.2]
    layers = _layers(plan.units)
    figure = _figure(layers, heights)
    axes = figure.subplots(len(heights), 1, height_ratios=heights, sharex=True, squeeze=False)[:, 0]
    for number, (title, units) in enumerate(panels.items()):
        top, below = axes[2 * number : 2 * number + 2]
        for expert in plan.experts:
            values = [100 * _shares(whole, unit).get(expert, math.nan) for unit in units]
            _line(top, values, _expert_colour(expert), expert)
        _name(top, f"{title}\nshare of update [%]")
        _differences(below, whole, units, decided=plan.units)
    if panels:
        axes[0].legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 0.98))
    if normed and profile is not None:
        _norms(axes[-1], plan, profile, layers)
    if uniform:
        _layer_axis(axes[-1], layers)
        axes[-1].set_xlabel(f"layer\n{_one_decision(plan)}", fontsize=9)
    else:
        _decisions(axes[-1], plan, kinds, layers)
    figure.suptitle(f"safety and {plan.language}: {_title(plan)}", fontsize=11)
    _save(figure, png)


def _expert_colour(expert: str) -> str:
    return COLOURS["safety" if expert == SAFETY else "language"]


def _norms(axes: Axes, plan: Plan, profile: Profile, layers: int) -> None:
    """How far each expert moved each module, relative to the base's norm."""
    for expert in plan.experts:
        norms = statistics(profile, expert, "module")
        for kind, style in (("attention", "o-"), ("mlp", "s--")):
            values = [norms.get(f"{layer}.{kind}", math.nan) for layer in range(layers)]
            _line(axes, values, _expert_colour(expert), f"{expert}, {kind}", style)
    axes.set_ylim(bottom=0)
    _name(axes, "norm of update,\nrelative to base")
    axes.legend(frameon=False, ncols=4, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.96))


def _one_decision(plan: Plan) -> str:
    """What all units have, and those outside the layers where they have something else."""

    def said(row: PlannedUnit) -> str:
        return ", ".join(f"{weight:g} × {expert}" for expert, weight in row.weights.items())

    inside = next(row for unit, row in plan.units.items() if layer_of(unit) is not None)
    others = [
        f"{kind_of(unit)}: {said(row)}"
        for unit, row in plan.units.items()
        if row.weights != inside.weights
    ]
    return "; ".join([f"every unit: {said(inside)}", *others])


def draw_profile(profile: Profile, png: Path) -> None:
    """Draw every expert's shares by module, and how far safety and each language agree.

    Raises:
        SafeswapError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    from safeswap.selectors.common import unit_cosines

    labels, kinds = layer_labels(profile.units), _kinds(profile.units, MODULE_KINDS)
    layers = len(labels)
    heights = [2.2] * (len(kinds) + 1)
    figure = _figure(layers, heights)
    axes = figure.subplots(len(heights), 1, sharex=True)
    colours = {SAFETY: COLOURS["safety"]} | {
        language: LANGUAGE_COLOURS[number % len(LANGUAGE_COLOURS)]
        for number, language in enumerate(profile.languages)
    }
    for expert, colour in colours.items():
        norms = statistics(profile, expert, "module")
        total = math.fsum(norms.values()) or 1.0
        for panel, kind in zip(axes, kinds, strict=False):
            found = [norms.get(f"{layer}.{kind}", math.nan) for layer in labels]
            values = [100 * norm / total for norm in found]
            _line(panel, values, colour, expert)
            _name(panel, f"{kind}\nshare of update [%]")
    for language in profile.languages:
        cosines = unit_cosines(profile, language, "module")
        for kind, style in zip(kinds, ("o-", "s--", "^:", "d-."), strict=False):
            values = [cosines.get(f"{layer}.{kind}", math.nan) for layer in labels]
            _line(axes[-1], values, colours[language], f"{language}, {kind}", style)
    axes[-1].axhline(0, lw=0.6, color="#888888")
    _name(axes[-1], "cosine of the\ntask vectors\nwith safety's")
    for panel in (axes[0], axes[-1]):
        panel.legend(frameon=False, ncols=8, loc="lower right", bbox_to_anchor=(1.0, 0.96))
    _layer_axis(axes[-1], layers)
    names = ", ".join(profile.languages)
    figure.suptitle(f"how far safety and {names} moved from the base, by module", fontsize=11)
    _save(figure, png)


def canvas(width: float, height: float, *, fixed: bool = False) -> Figure:
    """An empty figure of a size in inches that lays itself out, unless its margins are ``fixed``.

    Raises:
        SafeswapError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure  # not pyplot: it takes longer to import
    except ImportError:
        raise SafeswapError(
            "drawing needs matplotlib: install safeswap[figures], or leave the figure (--png) out."
        ) from None
    figure = Figure(figsize=(width, height), layout=None if fixed else "constrained")
    FigureCanvasAgg(figure)
    return figure


def _figure(layers: int, heights: Sequence[float]) -> Figure:
    left, right, top, bottom = 1.0, 0.15, 0.75, 1.0
    width = max(7.0, 2.6 + _INCH_PER_LAYER * layers)
    height = top + bottom + sum(heights)
    figure = canvas(width, height, fixed=True)
    # margins in inches; a layout worked out by matplotlib takes as long as the drawing itself
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)
    figure.subplots_adjust(hspace=0.24)
    return figure


def _save(figure: Figure, png: Path) -> None:
    try:
        figure.savefig(png, dpi=150, format="png", metadata={"Software": None})
    except OSError as error:
        png.unlink(missing_ok=True)
        raise OutputError(
            f"{png}: cannot be written ({error.strerror}). Free some space, or choose another file."
        ) from error


def _line(axes: Axes, values: Sequence[float], colour: str, label: str, style: str = "o-") -> None:
    axes.plot(range(len(values)), values, style, ms=3.5, lw=1.4, color=colour, label=label)


def _name(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, fontsize=9)
    inches = axes.get_window_extent().width / axes.figure.dpi
    axes.yaxis.set_label_coords(-0.5 / inches, 0.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", lw=0.4, color="#dddddd")
    axes.set_axisbelow(True)


def _differences(
    axes: Axes, plan: Plan, units: Sequence[str], *, decided: Mapping[str, PlannedUnit]
) -> None:
    """``decided``: the plan's own rows; an mlp's shares may be the sums of several."""
    rows = [plan.units.get(unit) for unit in units]
    found = [row.difference if row else None for row in rows]
    values = [math.nan if d is None else 100 * d for d in found]
    if plan.is_uniform:  # nothing was decided: the colour says who moved more
        colours = [COLOURS["safety" if value > 0 else "language"] for value in values]
    else:
        colours = [decision_colour(plan, unit) for unit in units]
    axes.bar(range(len(units)), values, 0.8, color=colours)
    axes.axhline(0, lw=0.6, color="#888888")
    summed = any(unit in plan.units and unit not in decided for unit in units)
    tau = None if summed else threshold(plan.selector, list(decided))
    if tau is not None:
        for sign in (1, -1):
            axes.axhline(sign * 100 * tau, lw=0.8, ls="--", color="#444444")
    _name(axes, "safety − language\n[points]" + ("" if tau is None else f", ±τ: {in_points(tau)}"))


def _decisions(axes: Axes, plan: Plan, kinds: Sequence[str], layers: int) -> None:
    from matplotlib.patches import Patch

    labels = layer_labels(plan.units)
    cells = [(layer - 0.46, 0.92) for layer in range(layers)]
    for number, kind in enumerate(kinds):
        if kind == "experts":
            _expert_decisions(axes, plan, labels, number)
            continue
        colours = [decision_colour(plan, f"{layer}.{kind}") for layer in labels]
        axes.broken_barh(cells, (number - 0.42, 0.84), facecolors=colours)
    axes.set_ylim(len(kinds) - 0.5, -0.5)
    axes.set_yticks(range(len(kinds)), kinds)
    axes.tick_params(axis="y", length=0)
    axes.spines[:].set_visible(False)
    _layer_axis(axes, layers)
    outside = [unit for unit in plan.units if layer_of(unit) is None]
    text = ", ".join(f"{kind_of(unit)}: {plan.units[unit].decision}" for unit in outside)
    axes.set_xlabel(f"layer\n{text}", fontsize=9)
    met = {colour_name(plan, unit) for unit in plan.units}
    handles = [
        Patch(color=colour, label=plan.language if name == "language" else name)
        for name, colour in COLOURS.items()
        if name in met
    ]
    axes.figure.legend(handles=handles, frameon=False, ncols=5, loc="lower center")


def _expert_decisions(axes: Axes, plan: Plan, labels: Sequence[str], number: int) -> None:
    """Each layer's cell, divided as its experts were decided."""
    experts = experts_of(plan)
    for layer, label in enumerate(labels):
        units, below = experts.get(label, []), number + 0.42
        for decision, count in decisions_of(plan, units).items():
            height = 0.84 * count / len(units)
            colour = COLOURS["language" if decision == plan.language else decision]
            below -= height
            axes.broken_barh([(layer - 0.46, 0.92)], (below, height), facecolors=[colour])


def _title(plan: Plan) -> str:
    """What filled the table, in one line."""
    return describe(plan.selector, list(plan.units), leave_out=("norms", "outside"))


def _layer_axis(axes: Axes, layers: int) -> None:
    axes.set_xlim(-0.7, layers - 0.3)
    axes.set_xticks(range(0, layers, max(1, layers // 16)))
    axes.set_xlabel("layer", fontsize=9)


if __name__ == "__main__":
    gc.disable()  # it would walk through matplotlib's modules many times, and all ends soon
    *files, last = sys.argv[1:]
    measured = None
    if len(files) % 2:
        files = [*files, last]
    else:
        measured = profiles.Profile.load(Path(last))
    for plan_file, png_file in zip(files[::2], files[1::2], strict=True):
        draw(Plan.load(Path(plan_file)), Path(png_file), measured)
