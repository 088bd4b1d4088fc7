"""How backends are started: the options of each, and the record that holds all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.cluster.options import ClusterOptions


@dataclass(frozen=True)
class TemplateOptions:
    """What every backend takes.

    Attributes:
        chat_template: a Jinja file that takes the place of the model's own; or None.
        use_template: False sends the user's words as they are (a base model without a template).
        trust_remote_code: run Python code that the checkpoint brings along, with all rights of the
            user; never unless the user said so.
    """

    chat_template: Path | None = None
    use_template: bool = True
    trust_remote_code: bool = False


@dataclass(frozen=True)
class HFOptions(TemplateOptions):
    """Options of transformers.

    Attributes:
        dtype: ``auto`` (as stored), ``float32``, ``bfloat16``, ``float16``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
        batch_tokens: padded tokens (prompt and response) per forward pass.
    """

    dtype: str = "auto"
    device: str = "auto"
    batch_tokens: int = 16384


@dataclass(frozen=True)
class VLLMOptions(TemplateOptions):
    """Options of vLLM.

    Attributes:
        dtype: as of ``HFOptions``.
        engine: further arguments of its engine, such as tensor_parallel_size.
    """

    dtype: str = "auto"
    engine: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class APIOptions(TemplateOptions):
    """Options of an OpenAI-compatible server.

    Attributes:
        base_url: the server, ending in /v1.
        api_key_variable: the environment variable with its key.
        concurrency: requests under way.
        timeout: seconds per request.
        retries: attempts again after a rate limit, a timeout or a server error.
        tokenizer: the model's, for tasks that score choices.
    """

    base_url: str = ""
    api_key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 5
    tokenizer: str = ""


@dataclass(frozen=True)
class BackendOptions(HFOptions, VLLMOptions, APIOptions):
    """The options of all backends in one record, for callers that let the user choose.

    Attributes:
        more: options of a backend that a user's module registered.
        cluster: where copies of the model run in place of this process.
    """

    cluster: ClusterOptions | None = None
    more: Mapping[str, Any] = field(default_factory=dict)
