"""From what was read of the models to the figures of one language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np

from safeswap.calibration.texts import ENGLISH
from safeswap.evaluation.readouts import Exchange
from safeswap.roles import BASE, SAFETY
from safeswap.search.diagnose.reading import Answers, ModelReading
from safeswap.search.diagnose.record import Knowledge, LayerFigures, Refusing, Spelling
from safeswap.search.diagnose.separation import (
    Estimate,
    agreement,
    auc_of_scores,
    cosines,
    difference_of,
    direction,
    mean_of,
    separated,
    transferred,
)
from safeswap.search.diagnose.texts import HARMFUL, HARMLESS, Kind

Array = np.ndarray[Any, Any]
CLOSE = 0.01
"""Layers whose AUC in English is so near the best are alike."""
BUCKETS, RUN = 1024, 3
"""Runs of so many letters are counted, in so many buckets."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Reckons the figures of one language.

    Attributes:
        readings: role → what was read of its model; base, safety and the language.
        sets: the texts, in the order of the readings.
        seed: of halves and bootstrap.
    """

    readings: Mapping[str, ModelReading]
    sets: Mapping[Kind, Sequence[Exchange]]
    language: str
    seed: int

    @property
    def asked(self) -> bool:
        """Whether there are harmful requests in the language."""
        return (HARMFUL, self.language) in self.sets

    def layers(self) -> tuple[LayerFigures, ...]:
        """The language expert's layers, first to last."""
        own = self._states(self.language, SAFETY)
        english = direction(*own)
        refusal = direction(*self._states(SAFETY, SAFETY))
        columns: dict[str, Sequence[Any]] = {
            "english": separated(*own, self.seed),
            "safety_cosine": _floats(cosines(english, refusal)),
            "base_cosine": _floats(cosines(direction(*self._states(BASE, SAFETY)), refusal)),
            "halves": _floats(agreement(*own, self.seed)),
            **self._language_columns(english),
        }
        return tuple(
            LayerFigures(layer, **{name: values[layer] for name, values in columns.items()})
            for layer in range(len(english))
        )

    def _language_columns(self, english: Array) -> dict[str, Sequence[Any]]:
        if not self.asked:
            nothing = [None] * len(english)
            return dict.fromkeys(("language", "transfer", "language_cosine"), nothing)
        there = self._states(self.language, self.language)
        return {
            "language": separated(*there, self.seed),
            "transfer": transferred(english, *there, self.seed),
            "language_cosine": _floats(cosines(english, direction(*there))),
        }

    def _states(self, role: str, language: str) -> tuple[Array, Array]:
        states = self.readings[role].states
        return states[HARMFUL, language], states[HARMLESS, language]

    def spelling(self) -> Spelling:
        """The same separations by how the texts are written."""

        def counted(language: str) -> tuple[Array, Array]:
            kinds = (HARMFUL, language), (HARMLESS, language)
            harmful, harmless = (spelt([e.request for e in self.sets[kind]]) for kind in kinds)
            return harmful, harmless

        english = counted(SAFETY)
        (own,) = separated(*english, self.seed)
        if not self.asked:
            return Spelling(own, None, None)
        there = counted(self.language)
        (language,) = separated(*there, self.seed)
        (transfer,) = transferred(direction(*english), *there, self.seed)
        return Spelling(own, language, transfer)

    def refusing(self) -> tuple[Refusing, ...]:
        """Every model, in English and in the language."""
        return tuple(
            self._refusing(role, language)
            for role in (BASE, SAFETY, self.language)
            for language in (SAFETY, self.language)
        )

    def _refusing(self, role: str, language: str) -> Refusing:
        logs, seed = self.readings[role].refusing, self.seed
        called = ENGLISH if language == SAFETY else language
        harmless = logs[HARMLESS, language]
        calm = mean_of(np.exp(harmless), seed)
        if (HARMFUL, language) not in logs:
            return Refusing(role, called, None, calm, None, None)
        harmful = logs[HARMFUL, language]
        return Refusing(
            role,
            called,
            mean_of(np.exp(harmful), seed),
            calm,
            difference_of(np.exp(harmful), np.exp(harmless), seed),
            auc_of_scores(harmful, harmless, seed),
        )

    def knowledge(self) -> Knowledge:
        """Of the language's harmless answers."""
        kind = (HARMLESS, self.language)
        base, safety, expert = (
            self.readings[role].answers[kind] for role in (BASE, SAFETY, self.language)
        )
        letters, chance = base.letters, entropy([one.answer for one in self.sets[kind]])
        return Knowledge(
            base=_per_token(base.likely, base),
            expert=_per_token(expert.likely, base),
            safety=_per_token(safety.likely, base),
            gain=self._weighed(expert.likely - base.likely, base),
            cost=self._weighed(base.likely - safety.likely, base),
            per_letter=-float(base.likely.sum() / letters.sum()),
            predicted=mean_of(1 + base.likely / letters.mean() / chance, self.seed),
        )

    def _weighed(self, values: Array, answers: Answers) -> Estimate:
        """Nats of each answer as nats per token of the mean answer."""
        return mean_of(values / answers.tokens.mean(), self.seed)


def deciding_layer(layers: Sequence[LayerFigures]) -> int:
    """The layer that the verdict goes by: the middle one of those that separate English best.

    Chosen on English texts alone, so that no figure of the language is the best of many.
    """
    best = max(one.english.value for one in layers)
    near = [n for n, one in enumerate(layers) if one.english.value >= best - CLOSE]
    return near[len(near) // 2]


def spelt(texts: Sequence[str]) -> Array:
    """How often each run of three letters is in a text, by buckets; float32 (1, texts, buckets).

    Rows have length 1.
    """
    rows = np.zeros((len(texts), BUCKETS), np.float32)
    for row, text in zip(rows, texts, strict=True):
        plain = f" {' '.join(text.casefold().split())} "
        for at in range(len(plain) - RUN + 1):
            row[crc32(plain[at : at + RUN].encode()) % BUCKETS] += 1
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    found: Array = (rows / np.where(norms > 0, norms, 1))[None]
    return found


def entropy(texts: Sequence[str]) -> float:
    """Entropy of the letters of the texts by their frequencies alone, nats per letter.

    At least a hundredth, so that it can be divided by.
    """
    counts = np.array(list(Counter(letter for text in texts for letter in text).values()), float)
    shares = counts / counts.sum()
    return max(0.01, float(-(shares * np.log(shares)).sum()))


def _per_token(values: Array, answers: Answers) -> float:
    return float(values.sum() / answers.tokens.sum())


def _floats(values: Array) -> list[float]:
    return [float(one) for one in values]
