"""From a profile to a plan: a method of :mod:`safeswap.selectors` fills the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from safeswap import selectors
from safeswap.anatomy.units import DONATED, order_parts
from safeswap.checkpoint.source import pinned
from safeswap.errors import PlanError, ProfileError, nearest
from safeswap.operators import pin_operation, read_operation
from safeswap.plan.chosen import ChosenOn
from safeswap.plan.file import Plan
from safeswap.plan.table import (
    FIT,
    SEARCH,
    SELECTOR,
    PlannedInput,
    PlannedUnit,
    check_operators,
    pin_operators,
)
from safeswap.profile import AdapterRecord, InputRecord, Profile, TensorProfile
from safeswap.roles import BASE, SAFETY
from safeswap.selectors import Row


def check_options(
    language: str,
    *,
    method: str = SELECTOR,
    operator: str | Mapping[str, Any] = "linear",
    donor: str | None = None,
    units: Sequence[str] | None = None,
    parts: Sequence[str] | None = None,
    **parameters: Any,
) -> dict[str, Any]:
    """Refuse options of :func:`fill_plan` that cannot be; needs no profile.

    Args:
        units: those of the model, where they are known: a band must leave layers to safety.
        parts: those of its mixtures of experts, where they are known.

    Returns:
        The method's parameters, all of them.

    Raises:
        PlanError: names the option, its limits or the nearest right word.
    """
    settings = selectors.find(method).resolve_settings(parameters)
    if parts is not None and not parts and settings.get("by") == "expert":
        raise PlanError("--by expert: the model has no experts. Use --by module.")
    if units is not None:
        selectors.find(method).fits(units, settings)
    pin_operation(read_operation(operator, "--operator"), (SAFETY, language), "--operator")
    roles = (language, SAFETY, BASE)
    if donor is not None and donor not in roles:
        raise PlanError(f"--donor {donor!r} is unknown{nearest(donor, roles)}")
    return settings


def fill_plan(
    profile: Profile,
    language: str | None = None,
    *,
    method: str = SELECTOR,
    operator: str | Mapping[str, Any] = "linear",
    donor: str | None = None,
    profile_path: str | None = None,
    **parameters: Any,
) -> Plan:
    """Make a plan with a method; no weights are read.

    Args:
        language: which language of the profile; needed when it has several.
        method: the name of a selector; the paper's, ``share-difference``, by default. See
            ``safeswap methods`` and docs/methods.md.
        operator: how task vectors are joined: a name, or a table such as
            ``{"name": "ties", "density": 0.2}``, as in a plan's file.
        donor: role whose other files go along; the language by default.
        parameters: of the method, e.g. ``by``, ``tau``, ``alpha`` of ``share-difference``.

    Raises:
        PlanError: an unknown method or parameter, a value out of its range, an unknown language,
            an expert equal to the base.
        CalibrationError: an operator's files are not there.
        ProfileError: a file that the method reads is not there, or of other weights.
    """
    language = _language(profile, language)
    settings = check_options(language, method=method, operator=operator, donor=donor, **parameters)
    settings = selectors.find(method).pin(settings)
    rows = selectors.find(method).fill(profile, language, **settings)
    units = {u: _planned(method, u, rows, language) for u in _decided(rows, profile)}
    seen = selectors.find(method).seen(settings)
    given = donor or language
    units |= {unit: _donated(given, language) for unit in units if unit in DONATED}
    plan = Plan(
        inputs={role: _input(profile, role) for role in (BASE, SAFETY, language)},
        units=units,
        donor=given,
        selector={"name": method, **{k: v for k, v in settings.items() if v is not None}},
        operator=read_operation(operator, "--operator"),
        profile=profile_path,
        chosen=ChosenOn.fitted_on(seen) if seen else None,
    )
    check_operators(plan, f"--method {method}")
    return pin_operators(plan, "--operator")


def edited_units(plan: Plan, profile: Profile) -> tuple[str, ...]:
    """The units whose weights or operators are not what the plan's selector says on the profile.

    None, where the selector read a file that is not there any more, or another now.
    """
    settings = dict(plan.selector)
    method = settings.pop("name", None)
    if method in (SEARCH, FIT):
        return ()  # no rule says what they are
    try:
        fresh = fill_plan(profile, plan.language, method=str(method), donor=plan.donor, **settings)
    except ProfileError:
        return ()  # nobody knows what it said
    except (PlanError, TypeError):  # by hand, or settings that were edited beyond sense
        return tuple(plan.units)
    said = {unit: (row.weights, row.operator) for unit, row in fresh.units.items()}
    found = {unit: (row.weights, row.operator) for unit, row in plan.units.items()}
    return tuple(unit for unit in {**found, **said} if found.get(unit) != said.get(unit))


def _donated(donor: str, language: str) -> PlannedUnit:
    """The row of what comes from the donor whole: towers, layers that predict further tokens."""
    return PlannedUnit({expert: float(expert == donor) for expert in (SAFETY, language)})


def _input(profile: Profile, role: str) -> PlannedInput:
    record = profile.inputs[role]
    adapter = _address(record.adapter) if record.adapter else ""
    return PlannedInput(_address(record), record.digest, adapter)


def _address(record: InputRecord | AdapterRecord) -> str:
    """Where to find an input again: the absolute folder, or the hub's id or URL at its commit."""
    return pinned(record.source, record.name, record.revision) if record.revision else record.path


def _language(profile: Profile, language: str | None) -> str:
    known = profile.languages
    if language is None and len(known) == 1:
        return known[0]
    if language is None:
        raise PlanError(f"the profile has {len(known)} languages ({', '.join(known)}); choose one.")
    if language not in known:
        raise PlanError(f"language {language!r} is not in the profile{nearest(language, known)}")
    return language


def _decided(rows: Mapping[str, Row], profile: Profile) -> list[str]:
    """What is to have a row, in the order of the model: every unit, or all parts of one."""
    parts: dict[str, dict[str, None]] = {}
    untold = set()
    for tensor in profile.tensors:
        own = [name for name in names_of(tensor) if name != tensor.unit]
        parts.setdefault(tensor.unit, {}).update(dict.fromkeys(n for n in own if n in rows))
        told = (bool(own) and all(name in rows for name in own)) or _follows(tensor, rows)
        if tensor.role != "buffer" and not told:
            untold.add(tensor.unit)
    found: list[str] = []
    for unit in profile.units:
        given = parts.get(unit, {})
        found += [unit] if unit in rows or unit in untold or not given else []
        found += order_parts(given)
    return found


def _follows(tensor: TensorProfile, rows: Mapping[str, Row]) -> bool:
    """Whether it is a router that goes row by row with the experts."""
    layer, _, kind = (tensor.part or "").rpartition(".")
    return kind == "router" and f"{layer}.experts.0" in rows


def names_of(tensor: TensorProfile) -> list[str]:
    """What may decide a tensor besides its unit: its part, or each expert in it."""
    if tensor.part is None:
        return [tensor.unit]
    if tensor.part.endswith(".experts"):
        count = len(tensor.experts.base_norm) if tensor.experts else 0
        return [f"{tensor.part}.{expert}" for expert in range(count)] or [tensor.unit]
    return [tensor.part]


def _planned(method: str, unit: str, rows: Mapping[str, Row], language: str) -> PlannedUnit:
    row = rows.get(unit)
    if row is None or not (math.isfinite(row.safety) and math.isfinite(row.language)):
        raise PlanError(
            f"--method {method}: gives {unit} no finite weights. A selector must return a row for "
            "every unit of the profile (docs/methods.md)."
        )
    shares = None if row.shares is None else dict(zip((SAFETY, language), row.shares, strict=True))
    own = row.operator
    operation = None if own is None else read_operation(own, f"--method {method}: {unit}")
    weights = {SAFETY: float(row.safety), language: float(row.language)}
    return PlannedUnit(weights, shares, operation)
