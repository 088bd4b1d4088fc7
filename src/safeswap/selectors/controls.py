"""Controls: tables that look like share-difference's and know less, or the opposite.

Without them "selection works" cannot be shown: a rule that does no better than its own table
shuffled has selected nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safeswap.anatomy import kind_of
from safeswap.anatomy.units import STACKS
from safeswap.profile import Profile
from safeswap.selectors.common import (
    SEED,
    Policies,
    UnitChoice,
    by_granularity,
    rows_of,
    shuffled,
    spread,
    swaps,
    view,
)
from safeswap.selectors.registry import Row, selector
from safeswap.selectors.share_difference import PARAMETERS, decide

Choices = Mapping[str, UnitChoice]
_OPPOSITE = {"safety": "language", "language": "safety", "blend": "blend"}
_SOURCE = "safeswap; a control for arXiv 2601.22620"


def _table(
    profile: Profile, language: str, change: Callable[[Choices], Choices], settings: dict[str, Any]
) -> dict[str, Row]:
    """share-difference's table with its choices changed before norms and outside are filled in."""
    outside, alpha = (settings.pop(name) for name in ("outside", "alpha"))
    policies = Policies.taken_from(settings)
    profile = view(profile, policies.by)
    changed = change(decide(profile, language, **settings, shared_experts=policies.shared_experts))
    rows = spread(profile, changed, policies)
    return rows_of(profile, rows, outside, swaps(alpha))


def _kind(key: str) -> str:
    """What trades with what: layers with layers of their stack, units with units of their kind."""
    stack, _, last = key.rpartition(".")
    layer = last.isdigit() and stack in ("", *STACKS)
    return f"layer {stack}" if layer else kind_of(key)


def _kinds(choices: Choices) -> list[list[str]]:
    """The keys, those together that may trade."""
    kinds: dict[str, list[str]] = {}
    for key in choices:
        kinds.setdefault(_kind(key), []).append(key)
    return [*kinds.values()]


@selector(
    "random",
    summary="Control: as many of each decision as share-difference makes, in random places.",
    source=_SOURCE,
    parameters=(*PARAMETERS, SEED),
    resolve=by_granularity,
)
def random(profile: Profile, language: str, *, seed: int, **settings: Any) -> dict[str, Row]:
    """The decisions of all keys dealt out anew, attentions and MLPs alike; no shares go along.

    By expert they are dealt out among units of one kind: there are many experts, and how many of
    the attentions are safety's would be chance.
    """

    def change(choices: Choices) -> Choices:
        moved: dict[str, UnitChoice] = {}
        for keys in _kinds(choices) if settings["by"] == "expert" else [[*choices]]:
            dealt = zip(shuffled(keys, seed), keys, strict=True)
            moved |= {key: UnitChoice(choices[taken].decision) for key, taken in dealt}
        return {key: moved[key] for key in choices}

    return _table(profile, language, change, dict(settings))


@selector(
    "inverted",
    summary="Control: safety where share-difference says language, and the reverse.",
    source=_SOURCE,
    parameters=PARAMETERS,
    resolve=by_granularity,
)
def inverted(profile: Profile, language: str, **settings: Any) -> dict[str, Row]:
    """Decided by ``−d(u)``; the shares shown are those measured."""

    def change(choices: Choices) -> Choices:
        return {
            key: UnitChoice(_OPPOSITE[c.decision], c.share_safety, c.share_language)
            for key, c in choices.items()
        }

    return _table(profile, language, change, settings)


@selector(
    "permuted",
    summary="Control: share-difference's differences, permuted among units of the same kind.",
    source=_SOURCE,
    parameters=(*PARAMETERS, SEED),
    resolve=by_granularity,
)
def permuted(profile: Profile, language: str, *, seed: int, **settings: Any) -> dict[str, Row]:
    """Attentions trade with attentions, MLPs with MLPs (layers with layers, experts with experts).

    The shares shown are those that decided, that is, another unit's.
    """

    def change(choices: Choices) -> Choices:
        moved = {
            key: choices[taken]
            for keys in _kinds(choices)
            for key, taken in zip(shuffled(keys, seed), keys, strict=True)
        }
        return {key: moved[key] for key in choices}

    return _table(profile, language, change, settings)
