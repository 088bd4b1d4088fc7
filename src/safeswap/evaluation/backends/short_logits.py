"""Scores of choices without the logits that nobody looks at.

lm-eval asks for the logits of every position of context and continuation, and reads those of the
continuation. With a vocabulary of 262,144 the others are most of the time and memory of scoring.
Here a batch's logits begin where its earliest continuation may begin. The numbers are those of the
same product with fewer rows, so that they may differ in the last bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch


def with_short_logits(kind: Any) -> Any:
    """A class of lm-eval's around a causal model of transformers that makes logits where needed.

    Models whose ``forward`` has no ``logits_to_keep`` make all of them, as before.
    """

    class ShortLogits(kind):  # type: ignore[misc]
        _longest = 0  # tokens of the longest continuation that is scored at the moment

        def _loglikelihood_tokens(self, requests: Sequence[Any], *rest: Any, **more: Any) -> Any:
            able = "logits_to_keep" in inspect.signature(self.model.forward).parameters
            self._longest = max((len(one[2]) for one in requests), default=0) if able else 0
            try:
                return super()._loglikelihood_tokens(requests, *rest, **more)
            finally:
                self._longest = 0

        def _model_call(self, inps: Any, *rest: Any, **more: Any) -> Any:
            """Logits of the last positions of a batch padded at its end, (texts, kept, words).

            lm-eval counts a continuation's place from the end of what it gets.
            """
            if not self._longest or rest or more:
                return super()._model_call(inps, *rest, **more)
            length = inps.shape[1]
            kept = min(length, _zeros_at_the_end(inps) + self._longest)
            # Places as a tensor: rows are then copied next to each other. Of a slice torch 2.13
            # makes bfloat16 logits on a CPU about ten times more slowly.
            places = torch.arange(length - kept, length, device=inps.device)
            with torch.no_grad():
                return self.model(inps, logits_to_keep=places).logits

    return ShortLogits


def _zeros_at_the_end(inps: Any) -> int:
    """The longest run of token 0, with which lm-eval pads, at the end of a row: padding, and
    perhaps tokens, which costs a few logits more.
    """
    real = inps.ne(0).flip(1).int()
    first = torch.where(real.any(1), real.argmax(1), inps.shape[1])
    return int(first.max())
