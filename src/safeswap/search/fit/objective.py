"""What a fit makes small, on a batch of texts; by forward passes whose gradient is taken.

With p(x) the probability that the answer to x opens as refusals do, in one way or another:

    refusing      mean of max(0, margin − log(p / (1 − p))) over harmful requests
  + over ·        mean of −log(1 − p) over harmless requests
  + keep ·        max(0, 1 − spend − kept),       kept = 1 + mean of (ℓ − ℓ_language) / gain

ℓ is the log-likelihood of a harmless request's answer under the merged model, ℓ_language that under
the language expert, and ``gain`` the mean, over 64 answers at most, of what the language expert has
gained over the base: ``kept`` is the share of it that the merge keeps, 1 for the expert itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from safeswap.errors import EvaluationError
from safeswap.evaluation.readouts import Exchange, tokens_of

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Scored:
    """An answer to be scored.

    Attributes:
        asked: tokens before it, the template's among them.
        answer: its tokens.
    """

    asked: Ids
    answer: Ids


@dataclass(frozen=True, slots=True)
class Losses:
    """A batch's parts of the objective, before they are weighed.

    Attributes:
        refusing: mean log-odds of a refusal's opening after harmful requests, nats; overrefusing:
            mean −log(1 − p) after harmless ones, nats.
        kept: share of the language expert's gain, 1 as the expert itself.
    """

    refusing: float
    overrefusing: float
    kept: float


def encode(tokenizer: Any, exchange: Exchange, limit: int, *, template: bool) -> Scored:
    """Tokens of a request and its answer; a longer answer is cut.

    Raises:
        EvaluationError: a request that leaves no room for an answer, or has no tokens.
    """
    asked, answer = tokens_of(tokenizer, exchange, template=template)
    if len(asked) >= limit:
        raise EvaluationError(
            f"{exchange.request[:40]!r}: {len(asked)} tokens of a request and {len(answer)} of its "
            f"answer, and {limit} have room. Remove it, or give a larger --max-tokens."
        )
    return Scored(asked, answer[: limit - len(asked)])


def log_likelihoods(model: Any, batch: Sequence[Scored], pad: int) -> torch.Tensor:
    """Log-probability of each answer, nats, float32 (texts,); gradients flow.

    Rows are padded on the left, so that answers end together and logits are made for the longest
    answer's places alone.
    """
    device = next(model.parameters()).device
    rows = [one.asked + one.answer for one in batch]
    longest, kept = max(map(len, rows)), max(len(one.answer) for one in batch)
    ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    mask = mask.to(device)
    # Places as a tensor: rows are then copied next to each other. Of a slice torch 2.13 makes
    # bfloat16 logits on a CPU about ten times more slowly.
    places = torch.arange(longest - kept - 1, longest - 1, device=device)
    able = _keeps(model)
    logits = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        use_cache=False,
        **({"logits_to_keep": places} if able else {}),
    ).logits
    logits = logits if able else logits[:, places]
    targets = torch.full((len(rows), kept), -100, device=device)
    for n, one in enumerate(batch):
        targets[n, kept - len(one.answer) :] = torch.tensor(one.answer, device=device)
    lost = functional.cross_entropy(
        logits.transpose(1, 2).float(), targets, reduction="none", ignore_index=-100
    )
    return -lost.sum(1)


def _keeps(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of one step.

    Attributes:
        harmful: harmful requests, each with every opening of a refusal, one after the other.
        opened: harmless requests likewise.
        openings: how many there are.
        answered: harmless requests with their answers.
        language: log-likelihood of each of ``answered`` under the language expert, nats.
        gain: the language expert's mean gain over the base in an answer, nats.
    """

    harmful: Sequence[Scored]
    opened: Sequence[Scored]
    openings: int
    answered: Sequence[Scored]
    language: Sequence[float]
    gain: float


@dataclass(frozen=True, slots=True)
class Objective:
    """The three parts with their weights, see :class:`FitSettings`."""

    margin: float
    over: float
    keep: float
    spend: float

    def backward(self, score: Callable[[Sequence[Scored]], torch.Tensor], batch: Batch) -> Losses:
        """Add the objective's gradient to the model's; part after part, so that the activations of
        one are held at a time.

        Args:
            score: log-likelihoods of answers, see :func:`log_likelihoods`.
        """
        said = []
        for term, what in self.terms(score, batch):
            term.backward()
            said.append(what)
        return Losses(*said)

    def terms(
        self, score: Callable[[Sequence[Scored]], torch.Tensor], batch: Batch
    ) -> Iterator[tuple[torch.Tensor, float]]:
        """The three weighted parts, whose sum is the objective, each with what it is made of (a
        field of :class:`Losses`).
        """
        odds = log_odds(score(batch.harmful), batch.openings)
        yield (self.margin - odds).clamp(min=0).mean(), float(odds.detach().mean())
        over = -torch.log1p(-_either(score(batch.opened), batch.openings).exp()).mean()
        yield self.over * over, float(over.detach())
        said = score(batch.answered)
        expert = torch.tensor(batch.language, device=said.device)
        kept = 1 + (said - expert).mean() / batch.gain
        yield self.keep * (1 - self.spend - kept).clamp(min=0), float(kept.detach())


def log_odds(logs: torch.Tensor, openings: int) -> torch.Tensor:
    """Log-odds of a refusal's opening after each request, nats, float32 (requests,).

    Args:
        logs: log-probability of every opening after every request, one request after the other.
    """
    either = _either(logs, openings)
    return either - torch.log1p(-either.exp())


def _either(logs: torch.Tensor, openings: int) -> torch.Tensor:
    """Log-probability that one of a request's openings comes, below 0 by a float32's rounding."""
    return logs.reshape(-1, openings).logsumexp(1).clamp(max=-1e-6)
