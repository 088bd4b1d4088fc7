"""lm-eval's model on a cluster: requests go to the workers in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lm_eval.api.model import LM

from safeswap.cluster import Pool, parts


class ClusterLM(LM):  # type: ignore[misc]
    """Asks the workers' own models of lm-eval, which are told what this one is told.

    Args:
        pool: of :class:`~safeswap.evaluation.backends.clustered.ModelWorker`.
        tokenizer: the model's, for what is asked of texts here.
    """

    def __init__(self, pool: Pool, chunk: int, tokenizer: Any) -> None:
        super().__init__()
        self.pool, self.chunk, self.tokenizer = pool, chunk, tokenizer
        ((_, about),) = pool.spread("about", [()])
        self.max_length, self._tokenizer_name = about["max_length"], about["tokenizer_name"]
        self._told = tuple(about["told"])
        for name, value in about["told"].items():
            setattr(self, name, value)

    def as_done(self, kind: str, requests: Sequence[Any]) -> Iterator[list[tuple[int, Any]]]:
        """(place in ``requests``, answer) of each chunk as it is done."""
        told = {name: getattr(self, name) for name in self._told}
        runs = parts(len(requests), len(self.pool), self.chunk)
        chunks = [(kind, [requests[n].args for n in run], told) for run in runs]
        for number, answers in self.pool.spread("score", chunks):
            yield list(zip(runs[number], answers, strict=True))

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """(log-likelihood, whether greedy) per request."""
        return self._all("loglikelihood", requests)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """The generated text per request."""
        return self._all("generate_until", requests)

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[Any]:
        """The log-likelihood of each whole text."""
        return self._all("loglikelihood_rolling", requests)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """A chat as the model reads it."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
                **(getattr(self, "chat_template_args", None) or {}),
            )
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The text of the template, where one is used."""
        found = self.tokenizer.chat_template if chat_template else None
        return None if found is None else str(found)

    @property
    def tokenizer_name(self) -> str:
        """The name of the tokenizer, which lm-eval keeps with its results."""
        return str(self._tokenizer_name)

    def tok_encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Tokens of a text."""
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    def _all(self, kind: str, requests: Sequence[Any]) -> list[Any]:
        found = dict(one for done in self.as_done(kind, requests) for one in done)
        return [found[n] for n in range(len(requests))]
