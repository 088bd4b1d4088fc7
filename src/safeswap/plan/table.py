"""The table itself: units, weights, and the checkpoints that it is for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from safeswap.anatomy import Anatomy, Placement, kind_of, label_of, layer_of
from safeswap.errors import PlanError, listed, nearest
from safeswap.operators import Operation, check_operation, pin_operation
from safeswap.plan.chosen import ChosenOn
from safeswap.roles import BASE, SAFETY

SELECTOR = "share-difference"
SEARCH, FIT = "search", "fit"
"""Named as selector by tables that a search or a fit found: no rule fills them again."""


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """One row: the weights, and the shares that led to them (None where none did).

    Attributes:
        weights: expert → weight of its task vector, every expert of the plan named.
        shares: expert → its share p_e(u) of the expert's whole update, or None.
        operator: how the task vectors of this unit are joined; None where the plan says it.
    """

    weights: Mapping[str, float]
    shares: Mapping[str, float] | None = None
    operator: Operation | None = None

    @property
    def decision(self) -> str:
        """``safety``, a language's name, ``base``, ``blend`` (weights sum to 1) or ``mix``."""
        given = {expert: weight for expert, weight in self.weights.items() if weight != 0.0}
        if not given:
            return BASE
        if len(given) == 1 and next(iter(given.values())) == 1.0:
            return next(iter(given))
        total = sum(given.values())
        return "blend" if abs(total - 1.0) < 1e-9 and min(given.values()) > 0 else "mix"

    @property
    def difference(self) -> float | None:
        """d(u) = p_safety − p_language, or None without shares."""
        if not self.shares:
            return None
        language = next(expert for expert in self.shares if expert != SAFETY)
        return self.shares[SAFETY] - self.shares[language]


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """A checkpoint that the plan was made for; ``digest`` is empty in a plan written by hand.

    ``adapter`` names one that stands on ``source``; empty for a whole checkpoint, and where
    ``source`` is an adapter that names its base itself.
    """

    source: str
    digest: str = ""
    adapter: str = ""

    @property
    def given(self) -> str:
        """What it is, for people."""
        return f"{self.adapter} on {self.source}" if self.adapter else self.source


@dataclass(frozen=True)
class PlanTable:
    """A table of units × experts with what is needed to carry it out: ``Plan``, but for its file.

    Attributes:
        inputs: role → checkpoint; roles are ``base``, ``safety`` and one language.
        units: unit → row, in the order of the model.
        donor: the role whose configuration, tokenizer and other files go along.
        selector: how the table was filled (name and settings), for the reader.
        operator: how task vectors are joined in the units that do not say it themselves.
        profile: path of the profile that it was made from, or None.
        chosen: where it was picked among others: the questions that must not be taken for its
            test; None otherwise.
    """

    inputs: Mapping[str, PlannedInput]
    units: Mapping[str, PlannedUnit]
    donor: str
    selector: Mapping[str, Any] = field(default_factory=dict)
    operator: Operation = field(default_factory=Operation)
    profile: str | None = None
    chosen: ChosenOn | None = None

    @property
    def experts(self) -> tuple[str, ...]:
        """The roles with a task vector, safety first."""
        return tuple(role for role in self.inputs if role != BASE)

    @property
    def language(self) -> str:
        """The language's role."""
        return next(role for role in self.experts if role != SAFETY)

    def operation(self, unit: str) -> Operation:
        """How a unit's task vectors are joined."""
        return self.units[unit].operator or self.operator

    def parts(self, unit: str) -> dict[str, float]:
        """The unit's weights of all experts, safety first."""
        weights = self.units[unit].weights
        experts = sorted(self.experts, key=lambda expert: expert != SAFETY)
        return {expert: weights.get(expert, 0.0) for expert in experts}

    @property
    def is_uniform(self) -> bool:
        """Whether all units of the layers have the same weights, although shares were measured: a
        map of its decisions would be a wall of one colour.
        """
        inside = [row for unit, row in self.units.items() if layer_of(unit) is not None]
        one = len({(row.decision, tuple(row.weights.values())) for row in inside}) == 1
        return one and any(row.shares for row in inside)

    def counts(self) -> dict[str, dict[str, int]]:
        """How often each decision was made: kind of unit → decision → number of units."""
        table: dict[str, dict[str, int]] = {}
        for unit, row in self.units.items():
            kind = table.setdefault(kind_of(unit), {})
            kind[row.decision] = kind.get(row.decision, 0) + 1
        return table

    def with_operations(self, change: Callable[[Operation], Operation]) -> Self:
        """The plan with every operator in it changed."""
        units = {
            unit: row if row.operator is None else replace(row, operator=change(row.operator))
            for unit, row in self.units.items()
        }
        return replace(self, operator=change(self.operator), units=units)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """Every operator that it names."""
        own = (row.operator for row in self.units.values() if row.operator is not None)
        return (self.operator, *own)


AnyPlan = TypeVar("AnyPlan", bound=PlanTable)


def check_operators(plan: PlanTable, where: str = "plan") -> None:
    """Refuse operators that cannot join what the plan gives them; reads no weights.

    Raises:
        PlanError: unknown names, settings out of range, too many or too few experts; says where.
    """
    for unit in plan.units:
        check_operation(plan.operation(unit), plan.parts(unit), f"{where}: unit {unit}")


def pin_operators(plan: AnyPlan, where: str = "plan") -> AnyPlan:
    """The plan with the files that its operators read named by absolute paths and digests.

    Raises:
        CalibrationError: there is no such file, or its digest is not the one that the plan records.
    """
    return plan.with_operations(lambda given: pin_operation(given, plan.experts, where))


def rows_for(units: Collection[str], placement: Placement) -> tuple[str, ...]:
    """Which rows of a table decide a tensor: one, or one for each expert that lies in it.

    The most specific that the table has: ``3.experts.7`` before ``3.mlp``.

    Raises KeyError, with the tensor's unit or the part that is missing, where there is none.
    """
    found = []
    for names in placement.rows:
        row = next((name for name in names if name in units), None)
        if row is None:
            raise KeyError(names[-1] if placement.part is None else names[0])
        found.append(row)
    return tuple(found) if len(set(found)) > 1 else (found[0],)


def check_units(plan: PlanTable, anatomy: Anatomy) -> None:
    """Refuse a table that does not decide exactly the model's units, each once.

    In a mixture of experts rows of parts (``3.experts.7``, ``3.router``) may stand for a unit, or
    beside its row for what shall be otherwise.

    Raises:
        PlanError: names the first unknown or missing unit and the nearest right name, or a row
            that decides nothing.
    """
    where = f"plan for {plan.language}"
    known = dict.fromkeys((*anatomy.units, *anatomy.parts))
    for unit in plan.units:
        if unit not in known:
            raise PlanError(f"{where}: the model has no unit {unit!r}{nearest(unit, [*known])}")
    missing: dict[str, None] = {}
    used: set[str] = set()
    for placement in dict.fromkeys(anatomy.placements.values()):
        try:
            used |= {*rows_for(plan.units, placement)}
        except KeyError as error:
            # buffers of a mixture go with the donor: no row has to say so
            if placement.role != "buffer" or not _has_parts(placement.unit, anatomy):
                missing[str(error.args[0])] = None
    if missing:
        first, *_ = missing
        raise PlanError(
            f"{where}: unit {first!r} is missing ({len(missing)} in all). Every unit needs a "
            "row; weights of 0 leave it as in the base."
        )
    idle = next((unit for unit in plan.units if unit not in used), None)
    if idle is not None:
        raise PlanError(
            f"{where}: the row {idle!r} decides nothing: all of it has rows of its own "
            f"({listed([p for p in anatomy.parts if label_of(p) == label_of(idle)], 3)}). Remove "
            "it, or theirs."
        )


def _has_parts(unit: str, anatomy: Anatomy) -> bool:
    layer = label_of(unit)
    return layer is not None and any(label_of(part) == layer for part in anatomy.parts)
