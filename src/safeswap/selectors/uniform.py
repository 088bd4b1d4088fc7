"""The same weights in every unit: soups, task arithmetic and chat vectors.

Sources: model soups (Wortsman et al. 2022, arXiv 2203.05482); task arithmetic (Ilharco et al. 2023,
arXiv 2212.04089); chat vector (Huang et al. 2024, arXiv 2310.04799); RESTA (Bhardwaj et al. 2024,
arXiv 2402.11746), which adds a safety vector to a fine-tuned model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safeswap.anatomy import kind_of
from safeswap.errors import PlanError
from safeswap.parameters import Parameter
from safeswap.profile import Profile
from safeswap.selectors.registry import Row, selector
from safeswap.selectors.share_difference import module_shares

FORMS = ("soup", "task-arithmetic", "chat-vector", "weights")
_OWN: dict[str, dict[str, float | None]] = {
    "soup": {"alpha": 0.5},
    "task-arithmetic": {"scale": 0.4},
    "chat-vector": {"gamma": 1.0},
    "weights": {"weight_safety": None, "weight_language": None},
}
"""Form → its parameters and their defaults (None: must be given)."""


def _resolve(settings: dict[str, Any]) -> dict[str, Any]:
    form = settings["form"]
    for other, own in _OWN.items():
        for name in own:
            if other != form and settings[name] is not None:
                raise PlanError(
                    f"--method uniform: {name} goes with --set form={other}, not with {form}. "
                    f"Leave {name} out, or add --set form={other}."
                )
    for name, default in _OWN[form].items():
        settings[name] = default if settings[name] is None else settings[name]
        if settings[name] is None:
            raise PlanError(f"--method uniform: --set form={form} needs --set {name}=NUMBER.")
    return {name: value for name, value in settings.items() if value is not None}


@selector(
    "uniform",
    summary="The same weights everywhere: a soup, task arithmetic, or a chat vector.",
    source="arXiv 2203.05482 (soups), 2212.04089 (task arithmetic), 2310.04799 (chat vector), "
    "2402.11746 (RESTA)",
    parameters=(
        Parameter("form", "soup", "which weights", str, choices=FORMS),
        Parameter("alpha", None, "soup: safety's part (0.5)", low=0.0, high=1.0),
        Parameter("scale", None, "task-arithmetic: λ of both task vectors (0.4)"),
        Parameter("gamma", None, "chat-vector: γ of the safety vector (1)"),
        Parameter("weight_safety", None, "weights: of the safety vector"),
        Parameter("weight_language", None, "weights: of the language vector"),
        Parameter(
            "skip_embeddings", False, "keep embeddings and lm_head of the language expert", bool
        ),
    ),
    resolve=_resolve,
)
def uniform(
    profile: Profile, language: str, *, form: str, skip_embeddings: bool, **own: float
) -> Mapping[str, Row]:
    """One (safety, language) pair for all units.

    soup ``(α, 1 − α)``; task arithmetic ``(λ, λ)``; chat vector and RESTA ``(γ, 1)``; weights as
    given. With ``skip_embeddings`` embeddings and lm_head are ``(0, 1)``: the chat vector's way
    with an extended vocabulary. The shares of the modules decide nothing here: they are for who
    reads the plan.
    """
    if form == "soup":
        row = Row(own["alpha"], 1.0 - own["alpha"])
    elif form == "task-arithmetic":
        row = Row(own["scale"], own["scale"])
    elif form == "chat-vector":
        row = Row(own["gamma"], 1.0)
    else:
        row = Row(own["weight_safety"], own["weight_language"])
    skipped = ("embeddings", "lm_head") if skip_embeddings else ()
    shares = module_shares(profile, language)
    return {
        unit: replace(Row(0.0, 1.0) if kind_of(unit) in skipped else row, shares=shares.get(unit))
        for unit in profile.units
    }


_SKIP = Parameter(
    "skip_embeddings", False, "keep embeddings and lm_head of the language expert", bool
)


@selector(
    "soup",
    summary="The same part of both experts everywhere: uniform with form=soup.",
    source="arXiv 2203.05482",
    parameters=(Parameter("alpha", 0.5, "safety's part", low=0.0, high=1.0), _SKIP),
)
def soup(
    profile: Profile, language: str, *, alpha: float, skip_embeddings: bool
) -> Mapping[str, Row]:
    """``(α, 1 − α)`` in every unit."""
    return uniform(profile, language, form="soup", skip_embeddings=skip_embeddings, alpha=alpha)


@selector(
    "task-arithmetic",
    summary="Both task vectors times one number: uniform with form=task-arithmetic.",
    source="arXiv 2212.04089",
    parameters=(Parameter("scale", 0.4, "λ of both task vectors"), _SKIP),
)
def task_arithmetic(
    profile: Profile, language: str, *, scale: float, skip_embeddings: bool
) -> Mapping[str, Row]:
    """``(λ, λ)`` in every unit."""
    return uniform(
        profile, language, form="task-arithmetic", skip_embeddings=skip_embeddings, scale=scale
    )


@selector(
    "chat-vector",
    summary="All of the language's task vector plus safety's: uniform with form=chat-vector.",
    source="arXiv 2310.04799, 2402.11746 (RESTA)",
    parameters=(Parameter("gamma", 1.0, "γ of the safety vector"), _SKIP),
)
def chat_vector(
    profile: Profile, language: str, *, gamma: float, skip_embeddings: bool
) -> Mapping[str, Row]:
    """``(γ, 1)`` in every unit."""
    return uniform(
        profile, language, form="chat-vector", skip_embeddings=skip_embeddings, gamma=gamma
    )
