"""What a fit reads: refusals, harmless chats, and which of them are held back to look at it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from safeswap.calibration.texts import Texts, read_chats
from safeswap.errors import CalibrationError
from safeswap.evaluation.benchmarks.prompts import identity_of
from safeswap.evaluation.readouts import Exchange, ReadoutTexts, learn_openings
from safeswap.plan.chosen import ChosenOn
from safeswap.roles import SAFETY

HELD = 4
"""One text of so many is not fitted on."""
FEWEST = 8
"""Texts of a kind below which nothing is fitted."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FitTexts:
    """The texts of one language.

    Attributes:
        harmful: harmful requests.
        harmless: requests with answers in the language, which are to stay likely.
        others: harmless requests besides, which are not to be refused either (English).
        openings: how refusals open, the commonest first.
    """

    harmful: tuple[str, ...]
    harmless: tuple[Exchange, ...]
    others: tuple[Exchange, ...]
    openings: tuple[str, ...]

    def readouts(self) -> ReadoutTexts:
        """The same for :func:`~safeswap.evaluation.readouts.read_model`."""
        others = tuple(one.request for one in self.others)
        return ReadoutTexts(self.harmful, self.harmless, self.openings, others)


@dataclass(frozen=True, slots=True)
class SplitTexts:
    """The texts to fit on, and those held back.

    Attributes:
        digests: what a file was given as (``harmful``, a language, ``safety``) → SHA-256 of its
            texts.
    """

    fitted: FitTexts
    held: FitTexts
    digests: Mapping[str, str]

    @property
    def all(self) -> FitTexts:
        """Both together, for what fits nothing."""
        one, two = self.fitted, self.held
        return FitTexts(
            one.harmful + two.harmful,
            one.harmless + two.harmless,
            one.others + two.others,
            one.openings,
        )

    def chosen(self) -> ChosenOn:
        """All requests, those held back too, so that they are not taken for a test."""
        texts = self.all
        asked = {*texts.harmful, *(one.request for one in (*texts.harmless, *texts.others))}
        return ChosenOn.fitted_on(identity_of(text) for text in asked)


def read_fit_texts(
    language: str, harmful: Path, harmless: Mapping[str, Path], seed: int, *, force: bool = False
) -> SplitTexts:
    """Read and divide the texts of one language.

    Args:
        harmful: requests with refusals, in any language (JSON Lines, ``prompt`` and ``response``).
        harmless: the language's file of chats, and ``safety``'s of English ones where there is one.
        seed: of the division.

    Raises:
        CalibrationError: a file that is not valid, or fewer than ``FEWEST`` texts in one.
    """
    refusals = read_chats(harmful)
    chats = read_chats(harmless[language], None if force else language)
    given = {"harmful": (harmful, refusals), language: (harmless[language], chats)}
    if SAFETY in harmless:
        given[SAFETY] = (harmless[SAFETY], read_chats(harmless[SAFETY]))
    for path, texts in given.values():
        if len(texts.texts) < FEWEST:
            raise CalibrationError(
                f"{path}: {len(texts.texts)} texts, and coefficients fitted on fewer than {FEWEST} "
                "say more of the texts than of the models. Give more."
            )
    openings = learn_openings(refusals.answers)
    asked = divided(refusals.texts, f"{seed} harmful")
    kept = divided(_exchanges(chats), f"{seed} harmless")
    others = _exchanges(given[SAFETY][1]) if SAFETY in given else []
    besides = divided(others, f"{seed} others")
    fitted, held = (FitTexts(asked[side], kept[side], besides[side], openings) for side in (0, 1))
    return SplitTexts(fitted, held, {name: texts.digest for name, (_, texts) in given.items()})


def divided(texts: Sequence[T], seed: str) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """The texts to fit on, and one of ``HELD`` that is held back; each in the order given."""
    held = set(random.Random(seed).sample(range(len(texts)), len(texts) // HELD))
    return (
        tuple(text for n, text in enumerate(texts) if n not in held),
        tuple(text for n, text in enumerate(texts) if n in held),
    )


def drawn(texts: Sequence[T], count: int, seed: str) -> list[T]:
    """``count`` of the texts, or all of fewer."""
    return random.Random(seed).sample(list(texts), min(count, len(texts)))


def _exchanges(texts: Texts) -> list[Exchange]:
    return [Exchange(*pair) for pair in zip(texts.texts, texts.answers, strict=True)]
