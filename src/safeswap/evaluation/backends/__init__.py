"""Responders: whatever answers chats. transformers, vLLM, or an OpenAI-compatible server.

All decode greedily (temperature 0), so that a response is a property of the model and the prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from safeswap.errors import EvaluationError, nearest

FinishReason = Literal["stop", "length", "filtered"]
BACKENDS = ("hf", "vllm", "api")


@dataclass(frozen=True, slots=True)
class Chat:
    """What is asked.

    Attributes:
        messages: role and content, in turn (content is text, or typed parts for some judges).
        max_new_tokens: where a response is cut off.
        add_generation_prompt: end with the template's opening of an answer; guards that moderate a
            whole conversation want none.
    """

    messages: tuple[Mapping[str, Any], ...]
    max_new_tokens: int
    add_generation_prompt: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: without special tokens.
        prompt_tokens, new_tokens: how many; None where the backend does not say.
        finish_reason: ``length`` is a response cut off, ``filtered`` one the server withheld.
    """

    text: str
    prompt_tokens: int | None
    new_tokens: int | None
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """How a backend is started; each takes what concerns it.

    Attributes:
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16``, ``float16``.
        device: for hf: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        batch_tokens: for hf: padded tokens (prompt and response) per forward pass.
        base_url, api_key_variable: for api: the server, and the environment variable with its key.
        concurrency, timeout, retries: for api: requests under way, seconds per request, attempts
            again after a rate limit, a timeout or a server error.
        tokenizer: for api with tasks that score choices: the model's tokenizer.
        chat_template: a Jinja file that takes the place of the model's own; or None.
        use_template: False sends the user's words as they are (a base model without a template).
        engine: for vllm: further arguments of its engine, such as tensor_parallel_size.
    """

    dtype: str = "auto"
    device: str = "auto"
    batch_tokens: int = 16384
    base_url: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    tokenizer: str = ""
    chat_template: Path | None = None
    use_template: bool = True
    engine: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """One loaded (or reached) model."""

    description: dict[str, Any]
    """What goes into the results: backend, versions, dtype."""

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """Yield (index in ``chats``, reply) as they are done, in any order."""
        ...

    def harness(self) -> Any:
        """The same model as lm-evaluation-harness's ``LM``."""
        ...

    def close(self) -> None:
        """Let go of the model and its memory."""
        ...


def open_backend(source: str, backend: str, options: BackendOptions) -> Backend:
    """Load a model, or reach the server that has it.

    Args:
        source: local folder or hub id; for ``api`` the server's name of the model.

    Raises:
        EvaluationError: unknown backend, a library that is missing, a model that does not load, an
            unreachable server.
    """
    openers: dict[str, Callable[[str, BackendOptions], Backend]] = {
        "hf": _open_hf, "vllm": _open_vllm, "api": _open_api
    }  # fmt: skip
    if backend not in openers:
        raise EvaluationError(f"no backend is called {backend!r}{nearest(backend, BACKENDS)}")
    try:
        return openers[backend](source, options)
    except ImportError as error:
        extra = {"hf": "eval", "vllm": "vllm", "api": "api"}[backend]
        raise EvaluationError(
            f"the backend {backend} needs {error.name or error}: pip install 'safeswap[{extra}]'."
        ) from error


def _open_hf(source: str, options: BackendOptions) -> Backend:
    from safeswap.evaluation.backends.hf import HFBackend

    return HFBackend(source, options)


def _open_vllm(source: str, options: BackendOptions) -> Backend:
    from safeswap.evaluation.backends.vllm import VLLMBackend

    return VLLMBackend(source, options)


def _open_api(source: str, options: BackendOptions) -> Backend:
    from safeswap.evaluation.backends.api import APIBackend

    return APIBackend(source, options)
