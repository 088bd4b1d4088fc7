"""lm-eval's client for ``/completions``, with our errors and no silent cutting of prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import requests
from lm_eval.models import api_models
from lm_eval.models.openai_completions import LocalCompletionsAPI

from safeswap.display import without_password
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import TemplateOptions
from safeswap.evaluation.backends.encoding import LONGEST, load_tokenizer


class Completions(LocalCompletionsAPI):  # type: ignore[misc]
    """``LocalCompletionsAPI`` that knows how long a prompt may be and says what a server did wrong.

    lm-eval cuts what is longer than 2048 tokens from the left, and says so in a log.
    """

    def __init__(
        self, *, longest: int | None, tokenizer: str, trusted: bool = False, **settings: Any
    ) -> None:
        options = TemplateOptions(trust_remote_code=trusted)
        limit = load_tokenizer(tokenizer, options).model_max_length
        settings["trust_remote_code"] = trusted
        if limit > LONGEST:  # transformers' word for "not known" is 10 ** 30
            limit = LONGEST
        super().__init__(tokenizer=tokenizer, max_length=(longest or limit), **settings)
        logging.getLogger("lm_eval.models.api_models").setLevel(logging.CRITICAL)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """Log-likelihood of each continuation after its context, as lm-eval defines it."""
        return self._with_our_errors(lambda: super(Completions, self).loglikelihood(requests))

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
        """Generate an answer to each request, as lm-eval defines it."""
        return self._with_our_errors(lambda: super(Completions, self).generate_until(requests))

    def _with_our_errors(self, ask: Callable[[], Any]) -> Any:
        try:
            with _no_bars():
                return ask()
        except (aiohttp.ClientError, requests.RequestException, TimeoutError) as error:
            said = without_password(f"{self.base_url}: {type(error).__name__} {error}")
            raise EvaluationError(
                f"{said}. lm-eval gave up after "
                f"{self.max_retries - 1} retries. What was answered is kept; run the same command "
                "again for the rest."
            ) from error
        except (LookupError, TypeError, AttributeError) as error:
            raise EvaluationError(
                f"{without_password(self.base_url)}: its answer is no completion with "
                f"log-probabilities ({type(error).__name__}: {error}). Scoring choices "
                "needs a server that returns them with echo, as vLLM's does."
            ) from error


@contextmanager
def _no_bars() -> Iterator[None]:
    """None of lm-eval's own progress bars: ours counts the same requests."""
    shown = {name: getattr(api_models, name) for name in ("tqdm", "tqdm_asyncio")}
    for name, bar in shown.items():
        setattr(api_models, name, _hidden(bar))
    try:
        yield
    finally:
        for name, bar in shown.items():
            setattr(api_models, name, bar)


def _hidden(bar: Any) -> Any:
    def begin(self: Any, *arguments: Any, **settings: Any) -> None:
        bar.__init__(self, *arguments, **{**settings, "disable": True})

    return type(bar.__name__, (bar,), {"__init__": begin})
