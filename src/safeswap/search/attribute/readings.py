"""The three readouts on given texts, as sums over batches whose gradient may be taken."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch

from safeswap.errors import EvaluationError
from safeswap.evaluation.readouts import Exchange
from safeswap.search.attribute.settings import AttributionSettings
from safeswap.search.fit.objective import Scored, log_odds
from safeswap.search.fit.texts import FitTexts, drawn

Encode = Callable[[Exchange], Scored]
Score = Callable[[Sequence[Scored]], torch.Tensor]
"""Log-likelihood of each answer, nats: ``log_likelihoods`` of a fit's objective."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What a model is read on.

    Attributes:
        rows: readout → for each request its answers: every opening of a refusal, or the one answer.
        openings: how many openings there are.
        batch: requests that are run together.
        counts: kind of text → how many there are.
    """

    rows: Mapping[str, Sequence[Sequence[Scored]]]
    openings: int
    batch: int
    counts: Mapping[str, int]

    @classmethod
    def of(cls, texts: FitTexts, settings: AttributionSettings, encode: Encode) -> Self:
        """The texts, as many as asked for, in tokens."""
        most, seed = settings.limit, settings.seed
        harmful = drawn(texts.harmful, most, f"{seed} harmful")
        harmless = drawn(texts.harmless, most, f"{seed} harmless")
        others = drawn(texts.others, most, f"{seed} others")

        def opened(requests: Sequence[str]) -> list[list[Scored]]:
            return [[encode(Exchange(one, way)) for way in texts.openings] for one in requests]

        rows = {
            "refusing": opened(harmful),
            "overrefusing": opened([one.request for one in (*harmless, *others)]),
            "keeping": [[encode(one)] for one in harmless],
        }
        counts = {"harmful": len(harmful), "harmless": len(harmless), "others": len(others)}
        return cls(rows, len(texts.openings), settings.batch, counts)

    @property
    def passes(self) -> int:
        """Batches of all readouts together."""
        return sum(math.ceil(len(rows) / self.batch) for rows in self.rows.values())

    def parts(self, readout: str, score: Score) -> Iterator[torch.Tensor]:
        """A readout batch by batch: numbers that add up to it, nats; gradients flow.

        Raises:
            EvaluationError: one is no finite number.
        """
        requests = self.rows[readout]
        for at in range(0, len(requests), self.batch):
            logs = score([row for request in requests[at : at + self.batch] for row in request])
            values = logs if readout == "keeping" else log_odds(logs, self.openings)
            part = values.sum() / len(requests)
            if not part.isfinite():
                raise EvaluationError(
                    f"{readout} is {part.item()}: the model computes no numbers here. Use --dtype "
                    "float32."
                )
            yield part
