"""Safe LoRA's choice: project the language's update where it is least aligned with safety's.

Source: Hsu et al., "Safe LoRA: the Silver Lining of Reducing Safety Risks when Fine-tuning Large
Language Models", NeurIPS 2024 (arXiv 2405.16833). Its code projects the 10 matrices with the lowest
cosine between ΔW and C·ΔW, or those at or below 0.5.

A table can say which units are projected; the projection itself is the operator ``project``. Units
are ranked by the cosine of the two task vectors, which the profile has, and not by the source's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from safeswap.anatomy import kind_of
from safeswap.errors import PlanError
from safeswap.parameters import Parameter
from safeswap.profile import Profile
from safeswap.selectors.common import (
    BY,
    keys_of,
    unit_cosines,
    view,
)
from safeswap.selectors.registry import Row, selector

NUMBER, THRESHOLD = 10, 0.5
"""The defaults of the source's code."""


def _resolve(settings: dict[str, Any]) -> dict[str, Any]:
    chosen = settings["select"]
    other = "threshold" if chosen == "number" else "number"
    if settings[other] is not None:
        raise PlanError(
            f"--method safe-lora: {other} goes with --set select={other}, not with {chosen}. "
            f"Leave {other} out, or add --set select={other}."
        )
    if chosen == "threshold" and settings["threshold"] is None:
        settings["threshold"] = THRESHOLD
    return settings


def _fits(units: Sequence[str], settings: Mapping[str, Any]) -> None:
    number, by = settings["number"], settings["by"]
    if by == "expert" and "experts" not in {kind_of(unit) for unit in units}:
        return  # how many there are is seen in the profile
    most = len(keys_of(units, by))
    if number is not None and number > most:
        raise PlanError(
            f"--method safe-lora: --set number {number} is more than the {most} that can be "
            f"projected by {by}. Give a smaller one."
        )


@selector(
    "safe-lora",
    summary="Project the language's update onto safety's where the two are least aligned.",
    source="Safe LoRA, Hsu et al., NeurIPS 2024, arXiv 2405.16833",
    parameters=(
        BY,
        Parameter("select", "number", "how units are chosen", str, choices=("number", "threshold")),
        Parameter("number", None, "how many are projected (10, or all of fewer)", int, low=1),
        Parameter("threshold", None, "project at or below this cosine (0.5)", low=-1.0, high=1.0),
        Parameter(
            "start",
            "safety",
            "what the update is added to: the safety expert as in the source, or the base",
            str,
            choices=("safety", "base"),
        ),
    ),
    resolve=_resolve,
    fits=_fits,
)
def safe_lora(
    profile: Profile,
    language: str,
    *,
    by: str,
    select: str,
    number: int | None,
    threshold: float | None,
    start: str,
) -> dict[str, Row]:
    """``(1, 1)`` (from the base: ``(0, 1)``) everywhere, with ``project`` in the chosen units.

    By expert routers are not among them: they decide where tokens go.
    """
    profile = view(profile, by)
    _fits(profile.units, {"by": by, "number": number})
    cosines, keys = unit_cosines(profile, language, by), keys_of(profile.units, by)
    ranked = sorted(cosines, key=lambda key: cosines[key])
    low = ranked[: number or NUMBER]
    chosen = low if threshold is None else [key for key in ranked if cosines[key] <= threshold]
    projected = {unit for key in chosen for unit in keys[key]}
    safety = 1.0 if start == "safety" else 0.0
    return {
        unit: Row(safety, 1.0, operator="project" if unit in projected else None)
        for unit in profile.units
    }
