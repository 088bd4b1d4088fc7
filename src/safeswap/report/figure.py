"""The figure: each expert's share of its update per unit, and what was decided.

Run as ``python -m safeswap.report.figure PLAN PNG [PLAN PNG …]`` it draws in a process of its own.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeswap.anatomy import layer_of
from safeswap.checkpoint.family import SAFETY
from safeswap.errors import SafeswapError
from safeswap.plan import Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"safety": "#c8553d", "language": "#2f6690", "blend": "#b7a57a", "base": "#d9d9d9"}
_ROWS = ("attention", "mlp", "norms")


def canvas(width: float, height: float) -> Figure:
    """An empty figure of a size in inches that lays itself out.

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
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def decision_colour(plan: Plan, unit: str) -> str:
    """The colour of a unit's decision; white where the plan has no such unit."""
    if unit not in plan.units:
        return "#ffffff"
    decision = plan.units[unit].decision
    name = "language" if decision == plan.language else decision
    return COLOURS.get(name, COLOURS["blend"])


def draw(plan: Plan, png: Path) -> None:
    """Draw shares and decisions per unit.

    Raises:
        SafeswapError: matplotlib is not installed.
    """
    layers = 1 + max(layer_of(unit) or 0 for unit in plan.units)
    rows = [kind for kind in _ROWS if any(unit.endswith(f".{kind}") for unit in plan.units)]
    width = max(7.0, 2.6 + 0.26 * layers)
    figure = canvas(width, 6.4)
    from matplotlib.patches import Patch, Rectangle

    top, middle, bottom = figure.subplots(3, 1, height_ratios=(3, 3, 2), sharex=True)

    def draw_shares(axes: Axes, kind: str) -> None:
        units = [f"{layer}.{kind}" for layer in range(layers)]
        for expert in plan.experts:
            planned = [plan.units.get(unit) for unit in units]
            shares = [(row.shares if row else None) or {} for row in planned]
            values = [100 * share.get(expert, math.nan) for share in shares]
            colour = COLOURS["safety" if expert == SAFETY else "language"]
            axes.plot(range(layers), values, "o-", ms=3.5, lw=1.4, color=colour, label=expert)
        axes.set_ylabel(f"{kind}\nshare of update [%]")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", lw=0.4, color="#dddddd")

    draw_shares(top, "attention")
    draw_shares(middle, "mlp")
    top.legend(frameon=False, ncols=2, loc="best")
    for number, kind in enumerate(rows):
        for layer in range(layers):
            colour = decision_colour(plan, f"{layer}.{kind}")
            bottom.add_patch(Rectangle((layer - 0.46, number - 0.42), 0.92, 0.84, color=colour))
    bottom.set_ylim(len(rows) - 0.5, -0.5)
    bottom.set_xlim(-0.7, layers - 0.3)
    bottom.set_yticks(range(len(rows)), rows)
    bottom.set_xticks(range(0, layers, max(1, layers // 16)))
    bottom.set_xlabel("layer")
    bottom.spines[:].set_visible(False)
    labels = {"safety": "safety", "language": plan.language, "blend": "blend"}
    handles = [Patch(color=COLOURS[key], label=text) for key, text in labels.items()]
    bottom.legend(
        handles=handles, frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.42)
    )
    title = _title(plan.selector)
    figure.suptitle(f"safety and {plan.language}: {title}", fontsize=11)
    figure.savefig(png, dpi=150, metadata={"Software": None})


def _title(selector: Mapping[str, Any]) -> str:
    """What filled the table, in one line."""
    settings = dict(selector)
    title = str(settings.pop("name", "written by hand"))
    if "by" in settings:
        title += f" by {settings.pop('by')}"
    if "tau" in settings:
        relative = " × mean share" if settings.pop("tau_relative", False) else ""
        title += f", τ = {settings.pop('tau')}{relative}"
    if "alpha" in settings:
        title += f", α = {settings.pop('alpha')}"
    left = [f"{k} = {v}" for k, v in settings.items() if k not in ("norms", "outside")]
    return ", ".join([title, *left])


if __name__ == "__main__":
    gc.disable()  # it would walk through matplotlib's modules many times, and all ends soon
    for plan_file, png_file in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        draw(Plan.load(Path(plan_file)), Path(png_file))
