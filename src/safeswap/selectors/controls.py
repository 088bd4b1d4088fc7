"""Controls: tables that look like share-difference's and know less, or the opposite.

Without them "selection works" cannot be shown: a rule that does no better than its own table
shuffled has selected nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from safeswap.anatomy import kind_of
from safeswap.profile import Profile
from safeswap.selectors.common import (
    SEED,
    UnitChoice,
    norms_by_granularity,
    rows_of,
    shuffled,
    spread,
    swaps,
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
    norms, outside, alpha = (settings.pop(name) for name in ("norms", "outside", "alpha"))
    changed = change(decide(profile, language, **settings))
    rows = spread(profile, changed, settings["by"], norms)
    return rows_of(profile, rows, outside, swaps(alpha))


def _kind(key: str) -> str:
    """What trades with what: layers with layers of their stack, units with units of their kind."""
    stack, _, last = key.rpartition(".")
    return f"layer {stack}" if last.isdigit() else kind_of(key)


@selector(
    "random",
    summary="Control: as many of each decision as share-difference makes, in random places.",
    source=_SOURCE,
    parameters=(*PARAMETERS, SEED),
    resolve=norms_by_granularity,
)
def random(profile: Profile, language: str, *, seed: int, **settings: Any) -> dict[str, Row]:
    """The decisions of all keys dealt out anew, attentions and MLPs alike; no shares go along."""

    def change(choices: Choices) -> Choices:
        dealt = zip(shuffled(choices, seed), choices.values(), strict=True)
        moved = {key: UnitChoice(choice.decision) for key, choice in dealt}
        return {key: moved[key] for key in choices}

    return _table(profile, language, change, settings)


@selector(
    "inverted",
    summary="Control: safety where share-difference says language, and the reverse.",
    source=_SOURCE,
    parameters=PARAMETERS,
    resolve=norms_by_granularity,
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
    resolve=norms_by_granularity,
)
def permuted(profile: Profile, language: str, *, seed: int, **settings: Any) -> dict[str, Row]:
    """Attentions trade with attentions and MLPs with MLPs (layers with layers).

    The shares shown are those that decided, that is, another unit's.
    """

    def change(choices: Choices) -> Choices:
        kinds: dict[str, list[str]] = {}
        for key in choices:
            kinds.setdefault(_kind(key), []).append(key)
        moved = {
            key: choices[taken]
            for keys in kinds.values()
            for key, taken in zip(shuffled(keys, seed), keys, strict=True)
        }
        return {key: moved[key] for key in choices}

    return _table(profile, language, change, settings)
