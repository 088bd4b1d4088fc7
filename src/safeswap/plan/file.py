"""The plan's file: YAML that a person can edit, one line per unit, read strictly."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from safeswap import selectors
from safeswap.anatomy import kind_of
from safeswap.anatomy.units import AFTER_LAYERS, BEFORE_LAYERS, LAYER_KINDS
from safeswap.errors import PlanError, nearest
from safeswap.io.files import save_text
from safeswap.io.keys import check_keys
from safeswap.io.yamlfile import read_text, read_yaml_text
from safeswap.operators import Operation, place_operation, read_operation
from safeswap.plan.chosen import ChosenOn
from safeswap.plan.lines import read_lines, row_line
from safeswap.plan.table import PlannedInput, PlannedUnit, PlanTable, check_operators
from safeswap.roles import BASE, RESERVED, SAFETY

FORMAT = "safeswap-plan/1"
_KEYS = ("format", "selector", "operator", "donor", "profile", "chosen", "inputs", "units")
_UNIT_KEYS = ("weights", "operator", "shares", "difference")
_LARGEST = sys.float_info.max
_ROUNDED = 2e-9  # shares and differences are written with nine digits

_HEAD = """\
# A safeswap plan: per unit, the weight of each expert's task vector (expert minus base).
# Edit the weights and run: safeswap merge --plan THIS --out OUT
# shares and difference say what led to the weights; they decide nothing. Here they and tau are
# fractions: 0.001 is what safeswap shows as a share of 0.1 % or a difference of 0.1 points."""


class Plan(PlanTable):
    """A table of units × experts that is kept as a file; its fields are those of ``PlanTable``."""

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values, in the order of its file."""
        inputs = {
            role: {"source": given.source}
            | ({"adapter": given.adapter} if given.adapter else {})
            | ({"digest": given.digest} if given.digest else {})
            for role, given in self.inputs.items()
        }
        units = {unit: _row(row) for unit, row in self.units.items()}
        content: dict[str, Any] = {"format": FORMAT, "selector": dict(self.selector)}
        content |= {"operator": self.operator.plain, "donor": self.donor}
        content |= {"profile": self.profile} if self.profile else {}
        content |= {"chosen": self.chosen.as_dict()} if self.chosen else {}
        return content | {"inputs": inputs, "units": units}

    def text(self) -> str:
        """The plan as YAML: one line per unit."""
        content = self.as_dict()
        units = content.pop("units")
        head = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        width = max(len(unit) for unit in units) + 2
        lines = [f"  {unit + ':':{width}}{row_line(row)}" for unit, row in units.items()]
        return "\n".join([_HEAD, head.rstrip(), "units:", *lines, ""])

    def save(self, path: Path) -> None:
        """Write the plan as YAML.

        Raises:
            OutputError: the place cannot be written, or is full; an older file is left as it was.
        """
        save_text(path, self.text())

    @classmethod
    def load(cls, path: Path) -> Plan:
        """Read a plan and check every key and number of it.

        Relative paths in operators' settings count from the file's folder.

        Raises:
            PlanError: not YAML, or unknown keys, experts, duplicate keys, NaN; names the nearest.
        """
        plan, folder = cls.from_dict(_read(path), str(path)), Path(path).parent
        return plan.with_operations(lambda operation: place_operation(operation, folder))

    @classmethod
    def from_dict(cls, content: Any, where: str) -> Plan:
        """Build a plan from plain values; ``where`` names them in messages.

        Raises:
            PlanError: as :func:`load`.
        """
        return _plan_of(content, where)


def _row(row: PlannedUnit) -> dict[str, Any]:
    content: dict[str, Any] = {"weights": dict(row.weights)}
    content |= {"operator": row.operator.plain} if row.operator else {}
    if row.shares:
        shares = {expert: round(share, 9) for expert, share in row.shares.items()}
        # of the rounded shares, so that a plan that was read writes the same file again
        difference = PlannedUnit(row.weights, shares).difference
        content |= {"shares": shares, "difference": round(difference or 0.0, 9)}
    return content


def _read(path: Path) -> Any:
    """The values of a plan's file."""
    content = read_text(path, error=PlanError)
    try:
        found = read_lines(content, lambda head: read_yaml_text(head, str(path), error=PlanError))
    except PlanError:
        found = None  # which YAML says better of the whole file
    return found or read_yaml_text(content, str(path), error=PlanError)


def _plan_of(content: Any, where: str) -> Plan:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise PlanError(f"{where}: is not a {FORMAT} file. Make one with safeswap plan.")
    check_keys(content, _KEYS, where, PlanError)
    for key in ("inputs", "units"):
        if not isinstance(content.get(key), dict) or not content[key]:
            raise PlanError(f"{where}: {key} is missing or not a table.")
    inputs = {role: _input(role, given, where) for role, given in content["inputs"].items()}
    languages = [role for role in inputs if role not in RESERVED]
    if BASE not in inputs or SAFETY not in inputs or len(languages) != 1:
        raise PlanError(f"{where}: inputs must be base, safety and one language, not {[*inputs]}.")
    experts = tuple(role for role in inputs if role != BASE)
    _check_names(content["units"], where)
    units = {u: _unit(row, experts, f"{where}: unit {u}") for u, row in content["units"].items()}
    donor = content.get("donor", languages[0])
    if not isinstance(donor, str) or donor not in inputs:
        raise PlanError(f"{where}: donor {donor!r} is not an input{nearest(str(donor), inputs)}")
    operator = read_operation(content.get("operator", "linear"), where)
    selector = content.get("selector", {})
    profile = content.get("profile")
    if not isinstance(selector, dict) or not isinstance(profile, str | None):
        raise PlanError(f"{where}: selector must be a table and profile a path.")
    method = selectors.registered().get(str(selector.get("name")))
    if method is not None:  # one's own, registered elsewhere, says what it likes
        names = (parameter.name for parameter in method.parameters)
        check_keys(selector, ("name", *names), f"{where}: selector", PlanError)
    chosen = ChosenOn.from_dict(content.get("chosen", {}), f"{where}: chosen")
    plan = Plan(inputs, units, donor, selector, operator, profile, chosen)
    check_operators(plan, where)
    return plan


def _check_names(units: Mapping[str, Any], where: str) -> None:
    """Every key is the name of a unit, of whatever model; the rest is for ``check_units``."""
    layers = sorted({unit.partition(".")[0] for unit in units if unit.partition(".")[2]})
    known = [f"{layer}.{kind}" for layer in layers for kind in LAYER_KINDS]
    for unit in units:
        try:
            kind_of(unit)
        except ValueError:
            near = nearest(unit, [*BEFORE_LAYERS, *known, *AFTER_LAYERS])
            raise PlanError(f"{where}: {unit!r} is not a unit{near}") from None


def _input(role: str, given: Any, where: str) -> PlannedInput:
    if not isinstance(given, dict) or not isinstance(given.get("source"), str):
        raise PlanError(f"{where}: input {role} needs a source (a folder or hub id).")
    check_keys(given, ("source", "adapter", "digest"), f"{where}: input {role}", PlanError)
    for key in ("adapter", "digest"):
        if not isinstance(given.get(key, ""), str):
            raise PlanError(f"{where}: input {role}: {key} must be text.")
    if role == BASE and given.get("adapter"):
        raise PlanError(f"{where}: input base: the base is a whole checkpoint. Remove its adapter.")
    return PlannedInput(given["source"], given.get("digest", ""), given.get("adapter", ""))


def _unit(row: Any, experts: tuple[str, ...], where: str) -> PlannedUnit:
    if isinstance(row, dict):
        check_keys(row, _UNIT_KEYS, where, PlanError)
    if not isinstance(row, dict) or not isinstance(row.get("weights"), dict):
        raise PlanError(f"{where}: needs weights, e.g. {{weights: {{{experts[0]}: 1}}}}.")
    weights = dict.fromkeys(experts, 0.0)
    weights |= _numbers(row["weights"], experts, where)
    operator = _operator(row.get("operator"), where)
    shares = row.get("shares")
    if shares is None:
        if row.get("difference") is not None:
            raise PlanError(f"{where}: has a difference without shares; leave it out.")
        return PlannedUnit(weights, None, operator)
    if not isinstance(shares, dict) or set(shares) != set(experts):
        raise PlanError(f"{where}: shares must name {' and '.join(experts)}.")
    unit = PlannedUnit(weights, _numbers(shares, experts, where), operator)
    said = _numbers({"difference": row.get("difference", unit.difference)}, ("difference",), where)
    if abs(said["difference"] - (unit.difference or 0.0)) > _ROUNDED:
        raise PlanError(
            f"{where}: difference is {said['difference']}, but its shares differ by "
            f"{unit.difference:.9f}. Both are notes on what led to the weights; edit the weights "
            "alone, or leave shares and difference out."
        )
    return unit


def _operator(given: Any, where: str) -> Operation | None:
    return None if given is None else read_operation(given, where)


def _numbers(table: Mapping[str, Any], experts: tuple[str, ...], where: str) -> dict[str, float]:
    for expert, value in table.items():
        if expert not in experts:
            raise PlanError(f"{where}: unknown expert {expert!r}{nearest(expert, experts)}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) <= _LARGEST:
            raise PlanError(f"{where}: {expert} is {value!r}; a finite number is needed.")
    return {expert: float(value) for expert, value in table.items()}
