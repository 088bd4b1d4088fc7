"""What lm-eval asks of a model, stored: each answer under the model, prompt and settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from lm_eval.api.model import LM

from safeswap.errors import EvaluationError
from safeswap.evaluation.generate import ShowProgress
from safeswap.evaluation.results.journal import Journal, Row
from safeswap.evaluation.results.store import digest_of

AT_ONCE = {"loglikelihood": 1024, "generate_until": 128}
"""Requests between two writes to the disk."""


def _is_cut(tokens: int, limit: int) -> bool:
    """Whether an answer was cut off at its limit, by the tokens of its text.

    lm-eval does not say why an answer ended. Encoded again, a text may have a few tokens less than
    were generated, so 2 % below the limit counts as cut too: better one too many than one missed.
    """
    return limit > 0 and tokens >= limit - limit // 50


class StoredModel(LM):  # type: ignore[misc]
    """An lm-eval model whose answers are stored as they come, and asked for only once."""

    def __init__(
        self, inner: Any, journal: Journal, model: str, template: str, progress: ShowProgress
    ) -> None:
        super().__init__()
        self.inner, self.journal, self.progress = inner, journal, progress
        self._about = [model, template]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood of the continuation, whether it is the greedy one) per request."""
        return [
            (row["answer"][0], row["answer"][1]) for row in self._rows("loglikelihood", requests)
        ]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """The generated text per request."""
        return [row["answer"] for row in self._rows("generate_until", requests)]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Not used by any task here."""
        raise NotImplementedError("no benchmark here asks for rolling log-likelihoods")

    def key(self, kind: str, arguments: Any) -> str:
        """What an answer is filed under: model, template, kind, prompt and settings."""
        return digest_of([*self._about, kind, list(arguments)])

    def apply_chat_template(self, *arguments: Any, **named: Any) -> str:
        """Apply the inner model's chat template to a list of turns."""
        return str(self.inner.apply_chat_template(*arguments, **named))

    @property
    def tokenizer_name(self) -> str:
        """Name of the inner model's tokenizer, which lm-eval keeps with its results."""
        return str(self.inner.tokenizer_name)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The inner model's chat template, as text."""
        found = self.inner.chat_template(chat_template)
        return None if found is None else str(found)

    def _rows(self, kind: str, requests: list[Any]) -> list[Row]:
        keys = [self.key(kind, request.args) for request in requests]
        missing = {k: r for k, r in zip(keys, requests, strict=True) if k not in self.journal}
        # Longest first: batches of like length, and what does not fit shows at once.
        todo = sorted(missing.items(), key=lambda pair: -len(str(pair[1].args[0])))
        if kind == "generate_until" and todo:
            self._refuse_no_room(todo[0][1].args[1])
        with self.progress(f"lm-eval: {kind.replace('_', ' ')}", len(todo)) as advance:
            for done in self._answers(kind, [request for _, request in todo]):
                self.journal.add(self._row(*todo[n], kind, answer) for n, answer in done)
                advance(len(done))
        return [self.journal.rows[key] for key in keys]

    def _answers(self, kind: str, requests: list[Any]) -> Iterator[list[tuple[int, Any]]]:
        """(place, answer) of all requests, in the parts in which they are written."""
        if hasattr(self.inner, "as_done"):  # a cluster's: none waits for the others
            yield from self.inner.as_done(kind, requests)
            return
        for start in range(0, len(requests), AT_ONCE[kind]):
            part = requests[start : start + AT_ONCE[kind]]
            answers = getattr(self.inner, kind)(part, disable_tqdm=True)
            yield list(zip(range(start, start + len(part)), answers, strict=True))

    def _row(self, key: str, request: Any, kind: str, answer: Any) -> Row:
        row: Row = {"key": key, "kind": kind, "task": request.task_name, "doc": request.doc_id}
        context, second = request.args
        if kind == "loglikelihood":
            row["answer"] = [float(answer[0]), bool(answer[1])]
            room = self._positions() + 1  # the last token is only predicted
            if self._longer(context + second, room):
                row["prompt_cut"] = True
            return row
        limit = int(second.get("max_gen_toks", 0))
        tokens = self._tokens(answer)
        if self._longer(context, self._positions() - limit):
            row["prompt_cut"] = True
        return {**row, "answer": answer, "tokens": tokens, "cut": _is_cut(tokens, limit)}

    def _refuse_no_room(self, settings: dict[str, Any]) -> None:
        limit, positions = int(settings.get("max_gen_toks", 0)), self._positions()
        if limit >= positions:
            raise EvaluationError(
                f"{limit} new tokens leave no room for the prompt in the model's {positions} "
                "positions. Use a smaller --harness-tokens (for every model)."
            )

    def _positions(self) -> int:
        return int(getattr(self.inner, "max_length", None) or sys.maxsize)

    def _longer(self, text: str, room: int) -> bool:
        """Whether a text has more tokens than there is room; only long ones are encoded."""
        return len(text.encode(errors="replace")) > room and self._tokens(text) > room

    def _tokens(self, text: str) -> int:
        return len(self.inner.tok_encode(text, add_special_tokens=False)) if text else 0
