"""What a configuration says about one tensor, as weights of task vectors and an operator.

``linear`` and ``task_arithmetic`` are sums; ``ties``, ``breadcrumbs`` and ``slerp`` are operators
of ours with the same arithmetic (tests/operators/test_mergekit.py compares them).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NoReturn

from safeswap.errors import PlanError
from safeswap.interchange.config import Config, Part
from safeswap.interchange.settings import Place, Settings, resolve
from safeswap.operators import Operation
from safeswap.roles import BASE

_EXACT = 1e-9
_SMALL = 1e-8
"""mergekit does not divide by sums of weights below it."""

Said = tuple[tuple[float, ...], Operation]
"""Weights in the order of the experts, and how they are joined."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A configuration with the roles of its models.

    Attributes:
        roles: model as the file names it → role.
        experts: the roles with a task vector, safety first.
    """

    config: Config
    roles: Mapping[str, str]
    experts: tuple[str, ...]

    def row(self, part: Part, place: Place) -> Said:
        """What the configuration says about a tensor.

        Raises:
            PlanError: it is no row of a plan; names the tensor and what is wrong.
        """
        if self.config.method == "linear":
            return self._linear(part, place)
        if self.config.method == "slerp":
            return self._slerp(part, place)
        return self._arithmetic(part, place)

    def _linear(self, part: Part, place: Place) -> Said:
        given = self._numbers("weight", part, place, self.roles.values())
        total = sum(given.values())
        if resolve("normalize", part.shared, place, default=True):
            if total == 0:
                self._refuse(f"the weights of {place.name} sum to 0 and are normalized. Add some.")
            given = {role: weight / total for role, weight in given.items()}
        whole = sum(given.values())
        if abs(whole - 1.0) > _EXACT:
            self._refuse(
                f"the weights of {place.name} sum to {whole:.12g}, the base's among them; a plan "
                "adds task vectors to one whole base, so they must sum to 1. List the base with "
                "what is missing, or normalize."
            )
        return self._ordered(given), Operation()

    def _slerp(self, part: Part, place: Place) -> Said:
        first = self.roles[str(self.config.base_model)]
        others = [self.roles[model] for model in part.models if self.roles[model] != first]
        if len(others) != 1 or BASE in (first, *others):
            self._refuse("slerp is between the two experts, one of them as base_model. Check them.")
        t = float(resolve("t", part.shared, place))
        return self._ordered({first: 1.0 - t, others[0]: t}), Operation("slerp")

    def _arithmetic(self, part: Part, place: Place) -> Said:
        """task_arithmetic, ties and breadcrumbs: sums of task vectors, perhaps trimmed before."""
        method = self.config.method
        if self.roles[str(self.config.base_model)] != BASE:
            self._refuse(
                f"base_model is given as an expert; {method} adds to the base. Check --base, "
                "--safety and --language."
            )
        experts = [role for role in self.roles.values() if role != BASE]
        given = self._numbers("weight", part, place, experts)
        factor = float(resolve("lambda", part.shared, place, default=1.0))
        normalize = bool(resolve("normalize", part.shared, place, default=method == "ties"))
        if method == "ties":
            settings = self._trimmed(part, place, given, {"density": 1.0})
            return self._ordered(given), Operation(
                "ties", {**settings, "scale": factor, "normalize": normalize}
            )
        total = sum(given.values())
        divisor = total if normalize and abs(total) >= _SMALL else 1.0
        made = self._ordered({role: factor * w / divisor for role, w in given.items()})
        if method == "task_arithmetic":
            return made, Operation()
        settings = self._trimmed(part, place, given, {"density": 1.0, "gamma": 0.01})
        return made, Operation("breadcrumbs", settings)

    def _trimmed(
        self, part: Part, place: Place, given: Mapping[str, float], defaults: Mapping[str, float]
    ) -> dict[str, float | int | bool]:
        """The settings of an operator, which has one of each for all experts."""
        if resolve("rescale", part.shared, place, default=False):
            self._refuse("rescale: safeswap's operators do not rescale. Remove the key.")
        if len(given) != len(self.experts) or not all(given.values()):
            self._refuse(
                f"{self.config.method} joins both experts, and {place.name} has weight from "
                f"{sum(map(bool, given.values()))} of them. Give both a weight, or import a sum."
            )
        settings: dict[str, float | int | bool] = {}
        for name, default in defaults.items():
            found = self._numbers(name, part, place, given, default)
            if len(set(found.values())) > 1:
                self._refuse(
                    f"{name} of {place.name} differs between the models ({found}); an operator has "
                    "one for all. Give them the same."
                )
            settings[name] = next(iter(found.values()))
        return settings

    def _numbers(
        self,
        name: str,
        part: Part,
        place: Place,
        roles: Collection[str],
        default: float | None = None,
    ) -> dict[str, float]:
        """Role → its value of a parameter."""

        def scopes(own: Settings) -> tuple[Settings, ...]:
            return (own, *part.shared)

        return {
            self.roles[model]: float(resolve(name, scopes(own), place, default))
            for model, own in part.models.items()
            if self.roles[model] in roles
        }

    def _ordered(self, given: Mapping[str, float]) -> tuple[float, ...]:
        return tuple(given.get(role, 0.0) for role in self.experts)

    def _refuse(self, message: str) -> NoReturn:
        raise PlanError(f"{self.config.path}: {message}")
