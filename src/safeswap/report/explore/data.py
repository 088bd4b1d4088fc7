"""What the page is told of a profile: shares, cosines, units and bytes. No rule needs more.

Shares and cosines do not hang on any setting but the granularity, so Python's own code gives them
here, for each; the page compares them with thresholds and fills tables. What a granularity cannot
have is told in the words of the error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safeswap import selectors
from safeswap.anatomy import kind_of, label_of
from safeswap.anatomy.units import DONATED, order_parts
from safeswap.errors import PlanError
from safeswap.plan import fill_plan
from safeswap.plan.fill import names_of
from safeswap.plan.lines import key_text
from safeswap.profile import Profile
from safeswap.report.explore.weights import weights_of
from safeswap.selectors.common import TAU_BY, keys_of, unit_cosines, view
from safeswap.selectors.share_difference import decide, module_shares

METHODS = (
    *("share-difference", "inverted", "gated", "band"),
    *("soup", "task-arithmetic", "chat-vector", "cosine"),
)
"""The methods that the page fills tables with: those that a profile's numbers decide."""
_TABLES = {"module": None, "layer": None, "expert": "own", "expert/fixed": "language"}
"""What is decided as one → whether shared experts speak for themselves. Where a policy decides
them, the shares are of all else."""


def facts_of(profile: Profile, place: str | None) -> dict[str, Any]:
    """Everything that the page's script knows of a profile, as plain values.

    Args:
        place: the profile's path, as plans name it.
    """
    tables = {name: t for name in _TABLES if (t := _keys(profile, name)) is not None}
    return {
        "units": [_unit(profile, unit) for unit in profile.units],
        "views": {name: _view(profile, name) for name in tables},
        "keys": tables,
        "languages": [
            _language(profile, language, tables, place) for language in profile.languages
        ],
        "weights": weights_of(profile),
        "methods": [_method(name) for name in METHODS],
        "others": [name for name in selectors.registered() if name not in METHODS],
        "tau": TAU_BY,
        "sampled": None if profile.sample is None else profile.sample.confidence,
    }


def _keys(profile: Profile, table: str) -> list[str] | None:
    """What a granularity decides, in its order; None where the model has nothing of the kind."""
    by = table.partition("/")[0]
    try:
        seen = view(profile, by)
    except PlanError:
        return None
    if table == "expert/fixed" and "shared_experts" not in map(kind_of, seen.units):
        return None
    return [*keys_of(seen.units, by, _TABLES[table])]


def _view(profile: Profile, table: str) -> list[list[str | None]]:
    """The units that a granularity sees: name, kind and layer of each."""
    seen = view(profile, table.partition("/")[0])
    return [[unit, kind_of(unit), label_of(unit)] for unit in seen.units]


def _unit(profile: Profile, unit: str) -> dict[str, Any]:
    """A unit of the model, and the parts of its mixture that a plan may name beside it."""
    parts = dict.fromkeys(
        name for tensor in profile.by_unit[unit] for name in names_of(tensor) if name != unit
    )
    return {
        "name": unit,
        "kind": kind_of(unit),
        "label": label_of(unit),
        "parts": [*order_parts(parts)],
        "donated": kind_of(unit) in DONATED,
    }


def _language(
    profile: Profile, language: str, tables: Mapping[str, Sequence[str]], place: str | None
) -> dict[str, Any]:
    intervals = profile.sample.intervals[language] if profile.sample else {}
    return {
        "name": language,
        **_yaml_of(profile, language, place),
        "tables": {name: _numbers(profile, language, name) for name in tables},
        "modules": [*zip(*module_shares(profile, language).values(), strict=True)],
        "intervals": {
            by: [[own[key].low, own[key].high] for key in tables[by]]
            for by, own in intervals.items()
            if by in tables
        },
    }


def _yaml_of(profile: Profile, language: str, place: str | None) -> dict[str, str]:
    """What of the language's plans is the same whatever is decided, as their file has it: the
    language's own name, the comment at the head, and all between the selector and the units.
    """
    plan = fill_plan(profile, language, method="soup", profile_path=place)
    text = plan.text()
    head, _, rest = text.partition("\nselector:\n")
    between = "\noperator:" + rest.partition("\noperator:")[2].partition("\nunits:\n")[0]
    return {"key": key_text(language), "head": head, "between": between}


def _numbers(profile: Profile, language: str, table: str) -> dict[str, Any]:
    """Shares and cosines of a granularity, in the order of its keys; or why there are none."""
    by, shared = table.partition("/")[0], _TABLES[table]
    seen, found = view(profile, by), dict[str, Any]()
    try:
        choices = decide(
            seen, language, by=by, tau=0.0, tau_relative=False, shared_experts=shared
        ).values()
        found["safety"] = [one.share_safety for one in choices]
        found["language"] = [one.share_language for one in choices]
        _check_finite(found["safety"], found["language"])
        found["shares"] = None
    except (PlanError, OverflowError) as error:
        found = {"safety": [], "language": [], "shares": _why(error)}
    try:
        found["cosines"] = [*unit_cosines(seen, language, by, shared).values()]
        _check_finite(found["cosines"])
        found["directions"] = None
    except (PlanError, OverflowError) as error:
        found |= {"cosines": [], "directions": _why(error)}
    return found


def _check_finite(*columns: Sequence[float]) -> None:
    if not all(math.isfinite(number) for column in columns for number in column):
        raise OverflowError


def _why(error: Exception) -> str:
    if isinstance(error, PlanError):
        return str(error)
    return "the profile's norms are too large to form shares of. Is a checkpoint damaged?"


def _method(name: str) -> dict[str, Any]:
    method = selectors.find(name)
    return {
        "name": name,
        "summary": method.summary,
        "source": method.source,
        "parameters": [
            {
                "name": one.name,
                "default": one.default,
                "doc": one.doc,
                "kind": one.kind.__name__,
                "low": one.low if math.isfinite(one.low) else None,
                "high": one.high if math.isfinite(one.high) else None,
                "choices": one.choices,
            }
            for one in method.parameters
        ],
    }
