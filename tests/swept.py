"""Candidates that nobody measured: seeded, in the shape that a sweep gives them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

from safeswap.evaluation.records import Alias, CandidateRecord
from safeswap.evaluation.results.candidates import CandidateResult, RateEstimate
from safeswap.evaluation.stats import wilson
from safeswap.operators import Operation

TAUS = (0.0, 0.0003, 0.001, 0.003, 0.01)
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)


def figure(share: float, n: int) -> RateEstimate:
    """A count of n with Wilson's interval."""
    count = round(max(0.0, min(1.0, share)) * n)
    interval = wilson(count, n)
    return RateEstimate(count / n, interval.low, interval.high, n)


def model(
    name: str, language: str, role: str, shares: tuple[float, float, float]
) -> CandidateResult:
    """One of the models that candidates are made from: unsafe, refused, right."""
    unsafe, refused, right = shares
    return CandidateResult(
        name,
        language,
        role,
        unsafe=figure(unsafe, 315),
        refused=figure(refused, 250),
        right=figure(right, 1150),
    )


def made_from(language: str, shift: float = 0.0) -> list[CandidateResult]:
    """Base, safety expert and language expert."""
    return [
        model("base", language, "base", (0.38 + shift, 0.06, 0.42)),
        model("safety", language, "safety", (0.07, 0.21, 0.40 - shift)),
        model(language, language, "language", (0.55 + shift, 0.03, 0.56)),
    ]


def cell_name(method: str, settings: Mapping[str, Any], operator: Mapping[str, Any]) -> str:
    """As a sweep names its cells."""
    parts = [method, *(f"{key}-{value}" for key, value in settings.items())]
    if operator:
        parts += [str(operator["name"])]
        parts += [f"{key}-{value}" for key, value in operator.items() if key != "name"]
    return "+".join(parts)


def alias(method: str, settings: Mapping[str, Any]) -> Alias:
    """Another cell of the same table."""
    return Alias(cell_name(method, settings, {}), CandidateRecord(method, settings))


def candidate(
    language: str,
    method: str,
    settings: Mapping[str, Any],
    safety: float,
    *,
    operator: Mapping[str, Any] | None = None,
    aliases: tuple[Alias, ...] = (),
    dice: random.Random | None = None,
) -> CandidateResult:
    """A candidate in which ``safety`` (0 to 1) of the safety expert went."""
    dice = dice or random.Random(0)
    operator = operator or {}
    unsafe = 0.54 - 0.5 * safety**0.8 + dice.gauss(0, 0.02)
    refused = 0.03 + 0.15 * safety**2 + dice.gauss(0, 0.01)
    right = 0.565 - 0.13 * safety**1.7 + dice.gauss(0, 0.008)
    joined = {key: value for key, value in operator.items() if key != "name"}
    record = CandidateRecord(
        method, dict(settings), Operation(str(operator.get("name", "linear")), joined)
    )
    made = model(
        cell_name(method, settings, operator), language, "merged", (unsafe, refused, right)
    )
    return CandidateResult(
        made.name,
        language,
        "merged",
        record,
        aliases,
        made.unsafe,
        made.refused,
        made.right,
    )


def sweep(language: str, seed: int = 0) -> list[CandidateResult]:
    """Three models and 80 candidates, of which some stand for aliases."""
    dice, found = random.Random(seed), made_from(language, 0.05 * seed)
    for by in ("module", "layer"):
        for tau, alpha in itertools.product(TAUS, ALPHAS):
            settings = {"by": by, "tau": tau, "alpha": alpha}
            if tau == 0.0 and alpha != 0.5:
                continue  # nothing is blended but what lies outside the layers: the same table
            same = [a for a in ALPHAS if a != 0.5] if tau == 0.0 else []
            aliases = tuple(alias("share-difference", {**settings, "alpha": a}) for a in same)
            blended = min(1.0, tau / 0.01)
            safety = (0.45 if by == "module" else 0.6) * (1 - blended) + alpha * blended
            found.append(
                candidate(
                    language, "share-difference", settings, safety, aliases=aliases, dice=dice
                )
            )
    for gamma in (0.25, 0.5, 0.75, 1.0, 1.5):
        found.append(candidate(language, "gated", {"gamma": gamma}, 0.4 * gamma, dice=dice))
    for density, alpha in itertools.product((0.2, 0.5), ALPHAS):
        operator = {"name": "ties", "density": density}
        settings = {"form": "soup", "alpha": alpha}
        found.append(
            candidate(language, "uniform", settings, 0.9 * alpha, operator=operator, dice=dice)
        )
    for alpha in ALPHAS:
        settings = {"form": "soup", "alpha": alpha}
        found.append(candidate(language, "uniform", settings, alpha, dice=dice))
    for low, high in ((2, 2), (4, 2), (5, 2), (6, 4)):
        settings = {"bottom": low, "top": high}
        found.append(candidate(language, "band", settings, 1 - (low + high) / 16, dice=dice))
    for seed_of in range(14):
        found.append(
            candidate(
                language,
                "random",
                {"seed": seed_of, "alpha": 0.5},
                dice.uniform(0.2, 0.7),
                dice=dice,
            )
        )
    return found
