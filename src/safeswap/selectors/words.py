"""Settings of methods in words, with one unit for shares, differences of shares and τ.

Whatever a person reads has shares in per cent, differences and τ in points (a share of 0.01 is one
point). Whatever a program reads (plans, profiles, Python) has fractions. ``--tau`` takes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from safeswap.selectors.common import keys_of
from safeswap.selectors.registry import paths_in

SYMBOLS = {"tau": "τ", "alpha": "α", "gamma": "γ", "scale": "λ"}
_BY_HAND = "written by hand"


def symbol(name: str) -> str:
    """A setting as a table's head or a figure's axis has it."""
    return SYMBOLS.get(name, name.replace("_", " "))


def in_points(share: float) -> str:
    """A share or a difference of shares as a number of points: 0.001 is ``0.1``."""
    return f"{100 * share:.6g}"


def points(share: float) -> str:
    """The same with its unit: ``1 point``, ``0.1 points``."""
    number = in_points(share)
    return f"{number} point{'' if number == '1' else 's'}"


def shown(value: Any) -> str:
    """A setting's value for the reader."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def shown_setting(name: str, settings: Mapping[str, Any], *, unit: bool = True) -> str:
    """A setting's value; τ in points, or as what it is multiplied with where it is relative."""
    value = settings.get(name)
    if name != "tau" or isinstance(value, bool) or not isinstance(value, int | float):
        return shown(value)
    if settings.get("tau_relative") is True:
        return f"{value:g} × mean share"
    return points(value) if unit else in_points(value)


def in_words(settings: Mapping[str, Any]) -> str:
    """Settings on one line: ``τ = 0.1 points, α = 0.5``."""
    told = "tau" in settings  # says itself whether it is relative
    return ", ".join(
        f"{symbol(name)} = {shown_setting(name, settings)}"
        for name, value in settings.items()
        if value is not None and not (told and name == "tau_relative")
    )


def threshold(selector: Mapping[str, Any], units: Sequence[str]) -> float | None:
    """τ as a share, where a plan of these units was made with one."""
    tau = selector.get("tau")
    if isinstance(tau, bool) or not isinstance(tau, int | float):
        return None
    if selector.get("tau_relative") is not True:
        return float(tau)
    by = "layer" if selector.get("by") == "layer" else "module"
    shared = selector.get("shared_experts")
    return tau / max(1, len(keys_of(units, by, shared if isinstance(shared, str) else None)))


def describe(
    selector: Mapping[str, Any], units: Sequence[str] = (), leave_out: Sequence[str] = ()
) -> str:
    """What filled a plan: ``share-difference by module, τ = 0.1 points, α = 0.5``.

    Args:
        selector: as a plan has it, name and settings; empty for one that was written by hand.
        units: of the plan: what a relative τ comes to is said, too.
        leave_out: settings that are not said.
    """
    hidden = (*leave_out, "digest")  # which tells files apart, and people nothing
    settings = {k: v for k, v in selector.items() if v is not None and k not in hidden}
    settings |= {key: PurePath(path).name for key, path in paths_in(selector).items()}
    text = str(settings.pop("name", _BY_HAND))
    if "by" in settings:
        text += f" by {settings.pop('by')}"
    words = [text]
    relative = settings.get("tau_relative") is True
    for name in settings:
        if name == "tau_relative" and "tau" in settings:
            continue
        word = f"{symbol(name)} = {shown_setting(name, settings)}"
        if name == "tau" and relative and (found := threshold(selector, units)) and units:
            word += f" = {points(found)}"
        words.append(word)
    return ", ".join(words)
