"""A thought that takes too long is closed with its own tag, and the answer goes on.

It works between the model and the choice of the next token, so whoever generates with transformers
can use it: the backend for chats, and lm-evaluation-harness's wrapper around the same model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor

from safeswap.evaluation.backends.thoughts import closing_of, decoded, open_thought


class ThoughtLimit(LogitsProcessor):  # type: ignore[misc,unused-ignore]
    """After so many new tokens no thought stays open.

    Args:
        tokenizer: of the model.
        prompts: the ids of every row of the batch, without padding.
        begin: where the new tokens begin in the padded rows.
        limit: tokens, at least 1.
    """

    def __init__(
        self, tokenizer: Any, prompts: Sequence[list[int]], begin: int, limit: int
    ) -> None:
        self.tokenizer, self.begin, self.limit = tokenizer, begin, limit
        self.prompts = list(prompts)
        self._forced: list[list[int]] = [[] for _ in prompts]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leave only the next token of a closing tag, in rows whose thought is over."""
        made = input_ids.shape[1] - self.begin
        if made < self.limit:
            return scores
        for row, forced in enumerate(self._forced):
            if not forced:
                forced += self._closing(row, input_ids[row, self.begin :].tolist())
            if forced:
                scores = scores.clone()
                scores[row] = -torch.inf
                scores[row, forced.pop(0)] = 0.0
        return scores

    def _closing(self, row: int, new: list[int]) -> list[int]:
        """The tokens that close a thought that is open after the new tokens; none where none is."""
        opening = open_thought(decoded(self.tokenizer, self.prompts[row], new))
        return [] if opening is None else closing_tokens(self.tokenizer, opening)


def closing_tokens(tokenizer: Any, opening: str = "<think>") -> list[int]:
    """The ids of a thought's end: its tag, on a line of its own as models write it."""
    text = f"\n{closing_of(opening)}\n\n"
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def limited_harness(kind: Any) -> Any:
    """A class of lm-eval's around a model of transformers, with ``thought_limit`` (0 is none)."""

    class Limited(kind):  # type: ignore[misc]
        thought_limit = 0

        def _model_generate(
            self, context: Any, max_length: int, stop: list[str], **more: Any
        ) -> Any:
            if self.thought_limit:
                masks = more.get("attention_mask")
                rows = context.tolist()
                kept = rows if masks is None else masks.tolist()
                prompts = [
                    [token for token, keep in zip(row, mask, strict=True) if masks is None or keep]
                    for row, mask in zip(rows, kept, strict=True)
                ]
                begin = context.shape[1]
                limit = ThoughtLimit(self.tokenizer, prompts, begin, self.thought_limit)
                more["logits_processor"] = [limit]
            return super()._model_generate(context, max_length, stop, **more)

    return Limited
