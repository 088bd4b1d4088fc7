"""Safety where it brings most refusing for what it costs, as ``safeswap attribute`` measured it.

The share difference knows how far an expert moved a unit; the attribution knows what the unit does.
It holds for all units together and for the texts that it was measured on: what a few units bring
without the others may be less or more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from safeswap.errors import PlanError, ProfileError, listed
from safeswap.parameters import Parameter
from safeswap.profile import Profile
from safeswap.profile.attribution import Attribution, digest_of_file, unit_of
from safeswap.roles import BASE, SAFETY
from safeswap.selectors.common import keys_of
from safeswap.selectors.registry import Row, selector


def _resolve(settings: dict[str, Any]) -> dict[str, Any]:
    method = "--method attribution"
    if not settings["file"]:
        raise PlanError(f"{method}: needs what safeswap attribute wrote: --set file=FILE.")
    if settings["keeping"] is None and settings["count"] is None:
        raise PlanError(
            f"{method}: needs a budget: --set keeping=NATS, what may be lost of the mean "
            "log-likelihood of an answer, or --set count=UNITS."
        )
    if settings["form"] == "swap" and settings["gamma"] is not None:
        raise PlanError(
            f"{method}: gamma goes with --set form=add; by swap safety's weight is 1. Leave gamma "
            "out."
        )
    if settings["form"] == "add" and settings["gamma"] is None:
        settings["gamma"] = 1.0
    return {name: value for name, value in settings.items() if value is not None}


def _pin(settings: dict[str, Any]) -> dict[str, Any]:
    """The file by its absolute path and digest.

    Raises:
        ProfileError: it is not there, or not the one that the plan was made from.
    """
    path = Path(settings["file"]).expanduser().resolve()
    digest = digest_of_file(path)
    if settings["digest"] not in ("", digest):
        raise ProfileError(
            f"{path}: is not the file that the plan was made from. Make the plan again, or put "
            "that file back."
        )
    return {**settings, "file": str(path), "digest": digest}


def _seen(settings: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(Attribution.load(Path(settings["file"])).prompts.split())


@selector(
    "attribution",
    summary="Safety where it brings most refusing for what it costs, until a budget is used up.",
    source="safeswap; integrated gradients: Sundararajan et al., ICML 2017, arXiv 1703.01365",
    parameters=(
        Parameter("file", "", "what safeswap attribute wrote", Path),
        Parameter("keeping", None, "budget: nats of an answer that may be lost", low=0.0),
        Parameter("count", None, "budget: units that safety may have", int, low=0),
        Parameter(
            "form",
            "add",
            "add safety's task vector to the language's, or swap one for the other",
            str,
            choices=("add", "swap"),
        ),
        Parameter("gamma", None, "add: γ of the safety vector (1)"),
        Parameter("over", 0.0, "nats of refusing that one of overrefusing costs", low=0.0),
        Parameter("digest", "", "which file (filled in by safeswap)", str),
    ),
    resolve=_resolve,
    pin=_pin,
    seen=_seen,
)
def attribution(
    profile: Profile,
    language: str,
    *,
    file: str,
    form: str,
    over: float,
    digest: str,
    gamma: float = 1.0,
    keeping: float = math.inf,
    count: int | None = None,
) -> dict[str, Row]:
    """``(γ, 1)``, or ``(1, 0)`` by swap, in the units that are taken; all else ``(0, 1)``.

    Units are taken in order of the refusing that they bring for a nat of keeping, those that cost
    none first, until the next would lose more than ``keeping`` in all or be one more than
    ``count``. What heads bring counts for their attention.
    """
    found = Attribution.load(Path(file))
    _check_fits(found, profile, language, file)
    whole = found.by_unit()
    members = keys_of(profile.units, "layer" if whole.by == "layer" else "module")
    given = Row(gamma, 1.0) if form == "add" else Row(1.0, 0.0)
    rows = dict.fromkeys(profile.units, Row(0.0, 1.0))
    for key in islice(_affordable(whole, over, keeping), count):
        rows |= dict.fromkeys(members[key], given)
    return rows


def _affordable(found: Attribution, over: float, keeping: float) -> Iterator[str]:
    """The best units until the next would use up the budget; what a unit gains is not set off."""
    lost = 0.0
    for unit in found.ranked(over):
        lost += max(0.0, -found.units[unit].keeping)
        if lost > keeping:
            return
        yield unit


def _check_fits(found: Attribution, profile: Profile, language: str, file: str) -> None:
    """The file is of this language, these weights and these units.

    Raises:
        ProfileError: says what it is of.
    """
    if found.language != language:
        raise ProfileError(
            f"{file}: is of {found.language}, and the plan is for {language}. Run safeswap "
            f"attribute with --language {language}=…"
        )
    for role in (BASE, SAFETY, language):
        known = profile.inputs[role].digest  # none of a sample
        if known and found.inputs[role] != known:
            raise ProfileError(
                f"{file}: is of another {role} checkpoint than the profile. Run safeswap attribute "
                "on the profile's."
            )
    units = keys_of(profile.units, "layer" if found.by == "layer" else "module")
    strange = [key for key in found.units if unit_of(key) not in units]
    if strange:
        raise ProfileError(
            f"{file}: is of units that the profile has not ({listed(strange)}). Run safeswap "
            "attribute again."
        )
