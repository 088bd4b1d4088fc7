"""The tables that a search may propose: groups of units that share their weights.

====== =====================================================================================
group  what is decided as one
====== =====================================================================================
unit   every attention and every MLP
layer  every layer, its norms with it
kind   all attentions; all MLPs
band   the bottom, the middle and the top third of the layers, norms with them
====== =====================================================================================

``outside`` (embeddings, final norm, lm_head) is one more group. Where norms are in no group they
stay the language expert's, as in the paper's rule by module.

``convex`` weights are ``(w, 1 − w)`` with w in [0, 1] the safety expert's: between the experts.
``free`` weights are any two in [0, high]: additions too, as of chat vectors, and less of both.
All weights are multiples of ``step``: some hundred questions do not tell finer ones apart, and
whole swaps stay within reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from safeswap.anatomy import kind_of, label_of, layer_of
from safeswap.anatomy.units import DONATED
from safeswap.errors import EvaluationError, nearest
from safeswap.plan import Plan, PlannedUnit, fill_plan
from safeswap.plan.table import SEARCH
from safeswap.profile import Profile
from safeswap.roles import SAFETY

GROUPS = ("unit", "layer", "kind", "band")
WEIGHTS = ("convex", "free")
OUTSIDE = "outside"
BANDS = ("bottom", "middle", "top")
_MOST_STEPS = 10_000
"""Some hundred questions do not tell finer ones apart by far."""


@dataclass(frozen=True, slots=True)
class Space:
    """Which weights are free.

    Attributes:
        group: one of ``GROUPS``.
        weights: one of ``WEIGHTS``.
        high: the largest of ``free`` weights.
        step: the grain of all weights; a whole number of steps makes up ``high``.

    Raises:
        EvaluationError: an unknown group or kind of weights, numbers that do not go together.
    """

    group: str = "layer"
    weights: str = "convex"
    high: float = 1.0
    step: float = 0.05

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise EvaluationError(f"no group is called {self.group!r}{nearest(self.group, GROUPS)}")
        if self.weights not in WEIGHTS:
            raise EvaluationError(
                f"no weights are called {self.weights!r}{nearest(self.weights, WEIGHTS)}"
            )
        if self.weights == "convex" and self.high != 1.0:
            raise EvaluationError(
                f"high {self.high:g}: convex weights end at 1; use weights: free."
            )
        if not 0.0 < self.step <= self.high:
            raise EvaluationError(
                f"step {self.step:g}: lies above 0 and up to high, {self.high:g}."
            )
        if not self.high / self.step <= _MOST_STEPS:
            raise EvaluationError(
                f"step {self.step:g}: makes more than {_MOST_STEPS} weights up to high, "
                f"{self.high:g}. Take a larger step, e.g. {self.high / 4:g}."
            )
        if abs(self.high / self.step - self.steps) > 1e-9:
            raise EvaluationError(
                f"step {self.step:g}: high, {self.high:g}, is no whole number of steps."
            )

    @property
    def steps(self) -> int:
        """How many steps lead from 0 to the largest weight."""
        return round(self.high / self.step)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for files."""
        return asdict(self)

    def groups(self, units: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Group → its units, in the model's order; units of no group are left out."""
        layers = 1 + max((layer_of(unit) or 0 for unit in units), default=0)
        found: dict[str, tuple[str, ...]] = {}
        for unit in units:
            name = self._group_of(unit, layers)
            if name:
                found[name] = (*found.get(name, ()), unit)
        return found

    def _group_of(self, unit: str, layers: int) -> str:
        layer = layer_of(unit)
        if unit in DONATED:
            return ""
        if layer is None:
            return OUTSIDE
        if self.group == "layer":
            return label_of(unit) or ""
        if self.group == "band":
            return BANDS[3 * layer // layers]
        if kind_of(unit) == "norms":
            return ""
        return unit if self.group == "unit" else kind_of(unit)

    def parameters(self, units: Sequence[str]) -> tuple[str, ...]:
        """The names of what is searched; each counts steps from 0 to ``steps``."""
        roles = ("safety",) if self.weights == "convex" else ("safety", "language")
        return tuple(f"{name}:{role}" for name in self.groups(units) for role in roles)

    def plan(self, template: Plan, counted: Mapping[str, int]) -> Plan:
        """The table of a proposal.

        Args:
            template: any plan of the same models; its weights do not matter.
            counted: every parameter and its number of steps.
        """
        rows = dict.fromkeys(template.units, (0.0, 1.0))
        for unit in DONATED:  # as the template's donor has them
            if unit in template.units:
                parts = template.parts(unit)
                rows[unit] = (parts[SAFETY], parts[template.language])
        for name, members in self.groups(tuple(template.units)).items():
            safety = self._weight(counted[f"{name}:safety"])
            if self.weights == "convex":
                language = self._weight(self.steps - counted[f"{name}:safety"])
            else:
                language = self._weight(counted[f"{name}:language"])
            rows |= dict.fromkeys(members, (safety, language))
        units = {
            unit: PlannedUnit({SAFETY: safety, template.language: language})
            for unit, (safety, language) in rows.items()
        }
        return replace(template, units=units, selector={"name": SEARCH, **self.as_dict()})

    def nearest(self, plan: Plan) -> dict[str, int]:
        """The proposal that comes nearest to a table: parameter → number of steps.

        Each group gets the mean over its units of what is nearest in the plane of both weights: for
        ``convex`` the foot of the perpendicular, ``(1 + w_safety − w_language) / 2``; else the
        weights themselves, cut to [0, high].
        """
        found: dict[str, int] = {}
        for name, members in self.groups(tuple(plan.units)).items():
            pairs = [tuple(plan.parts(unit).values()) for unit in members]
            safety = sum(pair[0] for pair in pairs) / len(pairs)
            language = sum(pair[1] for pair in pairs) / len(pairs)
            if self.weights == "convex":
                found[f"{name}:safety"] = self._counted((1.0 + safety - language) / 2.0)
            else:
                found[f"{name}:safety"] = self._counted(safety)
                found[f"{name}:language"] = self._counted(language)
        return found

    def weights_of(self, counted: Mapping[str, int]) -> dict[str, float]:
        """A proposal for the reader: parameter → weight."""
        return {name: self._weight(count) for name, count in counted.items()}

    def _weight(self, count: int) -> float:
        """``count`` steps, without the dust of binary fractions: 0.15, not 0.15000000000000002."""
        return float(f"{count * self.step:.12g}")

    def _counted(self, weight: float) -> int:
        return min(self.steps, max(0, round(weight / self.step)))


def template_of(profile: Profile, language: str) -> Plan:
    """A plan of the models, for its inputs and units."""
    return fill_plan(profile, language, method="uniform", alpha=0.5)
