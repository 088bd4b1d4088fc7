"""Fixed bands of layers: safety in the middle, language at the bottom and the top.

Source: Bandarkar et al., "Layer Swapping for Zero-Shot Cross-Lingual Transfer in Large Language
Models", ICLR 2025 (arXiv 2410.01335): on 32 layers, 5 at the bottom and 2 at the top from the
language expert, with a transition layer next to each that averages both experts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from safeswap.anatomy import label_of, layer_of
from safeswap.errors import PlanError
from safeswap.parameters import Parameter
from safeswap.profile import Profile
from safeswap.selectors.common import ALPHA, OUTSIDE_PARAMETER, UnitChoice, rows_of, swaps
from safeswap.selectors.registry import Row, selector

OF_32 = {"bottom": 5, "top": 2, "transition_bottom": 1, "transition_top": 1}
"""The source's layers, out of 32."""
_WINDOW = re.compile(r"(\d+)(?:-(\d+))?")


def scaled(count: int, layers: int) -> int:
    """``count`` layers of 32 in a model of ``layers``: ``⌊count · layers / 32 + 1/2⌋``, exactly.

    >>> [scaled(5, layers) for layers in (16, 24, 32, 36, 80)]
    [3, 4, 5, 6, 13]
    """
    return (2 * count * layers + 32) // 64


def _resolve(settings: dict[str, Any]) -> dict[str, Any]:
    given = {name: settings[name] for name in OF_32 if settings[name] is not None}
    if settings["windows"] is not None:
        if given:
            raise PlanError(
                f"--method band: windows and {next(iter(given))} exclude each other. Give the "
                "layers of safety as windows, or those of the language as bottom and top."
            )
        settings["windows"] = ",".join(
            f"{a}-{b}" if a < b else str(a) for a, b in _windows(settings["windows"])
        )
    return settings


def _windows(text: str) -> list[tuple[int, int]]:
    found = [_WINDOW.fullmatch(part.strip()) for part in text.split(",")]
    pairs = [(int(m[1]), int(m[2] or m[1])) for m in found if m]
    ordered = [end for pair in pairs for end in pair]
    touching = any(b[0] <= a[1] for a, b in pairwise(pairs))
    if len(pairs) != len(found) or ordered != sorted(ordered) or touching:
        raise PlanError(
            f"--set windows {text!r} is not valid: give ranges of layers from the bottom up, both "
            "ends included, e.g. 8-23 or 4-9,14-20."
        )
    return pairs


def counts(layers: int, **given: int | None) -> dict[str, int]:
    """Layers of each part: those given, and the source's of 32, scaled, where none is given.

    bottom and top scale to at least 1. Transitions scale only while neither bottom nor top is
    given; with a split of one's own they are 0 unless asked for.

    Raises:
        PlanError: nothing is left for safety.
    """
    own = given.get("bottom") is not None or given.get("top") is not None
    made = {}
    for name, of_32 in OF_32.items():
        value = given.get(name)
        if value is None:
            transition = name.startswith("transition")
            value = scaled(of_32, layers) if transition else max(1, scaled(of_32, layers))
            value = 0 if transition and own else value
        made[name] = value
    if sum(made.values()) >= layers:
        parts = ", ".join(f"{name} {count}" for name, count in made.items())
        raise PlanError(
            f"--method band: {parts} leave none of the {layers} layers to safety. Give smaller "
            "ones, e.g. --set bottom=1 --set top=0."
        )
    return made


def decisions(layers: int, windows: str | None = None, **given: int | None) -> list[str]:
    """What each layer is, from the bottom: ``language``, ``blend`` or ``safety``.

    >>> "".join(word[0] for word in decisions(16))
    'lllbssssssssssbl'
    """
    if windows is not None:
        pairs = _windows(windows)
        if pairs[-1][1] >= layers:
            raise PlanError(
                f"--set windows {windows!r} is not valid: the model has layers 0 to {layers - 1}."
            )
        inside = {layer for a, b in pairs for layer in range(a, b + 1)}
        return ["safety" if layer in inside else "language" for layer in range(layers)]
    made = counts(layers, **given)
    below = ["language"] * made["bottom"] + ["blend"] * made["transition_bottom"]
    above = ["blend"] * made["transition_top"] + ["language"] * made["top"]
    return below + ["safety"] * (layers - len(below) - len(above)) + above


def _stack(unit: str) -> str:
    return (label_of(unit) or "").rpartition(".")[0]


def _depths(units: Sequence[str]) -> dict[str, int]:
    """Stack → its number of layers: encoder and decoder are banded each for itself."""
    found: dict[str, int] = {}
    for unit in units:
        layer = layer_of(unit)
        if layer is not None:
            found[_stack(unit)] = max(found.get(_stack(unit), 0), layer + 1)
    return found


def _fits(units: Sequence[str], settings: Mapping[str, Any]) -> None:
    where = {name: settings[name] for name in (*OF_32, "windows")}
    for count in _depths(units).values():
        decisions(count, **where)


@selector(
    "band",
    summary="Safety in the middle layers, language in the bottom and top ones.",
    source="Bandarkar et al., ICLR 2025, arXiv 2410.01335",
    parameters=(
        Parameter("bottom", None, "language layers at the bottom (5 of 32, scaled)", int, low=0),
        Parameter("top", None, "language layers at the top (2 of 32, scaled)", int, low=0),
        Parameter(
            "transition_bottom", None, "blended layers above bottom (1 of 32, scaled)", int, low=0
        ),
        Parameter("transition_top", None, "blended layers below top (1 of 32, scaled)", int, low=0),
        Parameter("windows", None, "or the safety layers themselves, e.g. 8-23 or 4-9,14", str),
        ALPHA,
        OUTSIDE_PARAMETER,
    ),
    resolve=_resolve,
    fits=_fits,
)
def band(
    profile: Profile, language: str, *, alpha: float, outside: str, **where: Any
) -> dict[str, Row]:
    """Whole layers, norms included: ``(1, 0)`` inside the band, ``(0, 1)`` outside it.

    Transition layers are ``(α, 1 − α)``, and so is ``outside`` by default.
    """
    made = {stack: decisions(n, **where) for stack, n in _depths(profile.units).items()}
    choices = {}
    for unit in profile.units:
        layer = layer_of(unit)
        if layer is not None:
            choices[unit] = UnitChoice(made[_stack(unit)][layer])
    return rows_of(profile, choices, outside, swaps(alpha))
