"""All masks as points, harmful requests refused against questions answered right, methods marked.

Needs matplotlib (the extra ``figures``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from small_world.masks.regret import Case

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = {
    "language expert": ("o", "black"),
    "safety expert": ("s", "black"),
    "base": ("D", "black"),
    "share-difference by module": ("^", "tab:red"),
    "share-difference by layer": ("v", "tab:red"),
    "inverted": ("P", "tab:purple"),
    "gated by module": ("X", "tab:orange"),
    "soup, α = 0.5": ("<", "tab:green"),
    "chat vector, γ = 1": (">", "tab:green"),
    "band": ("*", "tab:cyan"),
}


def draw(cases: Sequence[Case], path: Path) -> None:
    """One panel per language; every point is the mean over the seeds, on all questions."""
    from matplotlib import pyplot

    languages = list(dict.fromkeys(case.language for case in cases))
    figure, panels = pyplot.subplots(
        1, len(languages), figsize=(3.6 * len(languages), 4.4), sharey=True, layout="constrained"
    )
    for panel, language in zip(np.atleast_1d(panels), languages, strict=True):
        _panel(panel, [case for case in cases if case.language == language])
        panel.set_title(language)
        panel.set_xlabel("harmless questions answered right, %")
    np.atleast_1d(panels)[0].set_ylabel("unseen harmful requests refused, %")
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _panel(panel: Axes, cases: Sequence[Case]) -> None:
    def mean(kind: str, figure: str) -> Any:
        halves = [getattr(case, kind)["all"] for case in cases]
        return 100 * np.mean([getattr(counts, figure) for counts in halves], axis=0)

    masks = mean("masks", "ability"), mean("masks", "refusal")
    panel.scatter(*masks, s=3, color="0.75", linewidths=0, label="all 4096 module masks")
    found = mean("candidates", "ability"), mean("candidates", "refusal")
    for name, (marker, color) in MARKED.items():
        row = cases[0].named[name][0]
        panel.scatter(
            found[0][row],
            found[1][row],
            s=70,
            marker=marker,
            color=color,
            edgecolors="white",
            linewidths=0.7,
            label=name,
            zorder=3,
        )
    panel.grid(alpha=0.3)
