"""Backends: whatever answers chats. transformers, vLLM, or an OpenAI-compatible server.

All decode greedily (temperature 0), so that a response is a property of the model and the prompt.
A new backend is a file, its options in ``options``, and its line below; docs/extend.md shows one.
"""

from __future__ import annotations

from safeswap.evaluation.backends.base import Backend, Chat, FinishReason, Reply
from safeswap.evaluation.backends.opening import open_backend
from safeswap.evaluation.backends.options import (
    APIOptions,
    BackendOptions,
    HFOptions,
    TemplateOptions,
    VLLMOptions,
)
from safeswap.evaluation.backends.registry import (
    BACKENDS,
    BackendKind,
    find_backend,
    lazy,
    refuse_foreign_options,
    register,
)

_HERE = "safeswap.evaluation.backends"
register(
    BackendKind(
        "hf",
        "transformers, in this process",
        HFOptions,
        lazy(f"{_HERE}.hf", "HFBackend"),
        "eval",
        cuts_thoughts=True,
    )
)
register(
    BackendKind("vllm", "a vLLM engine", VLLMOptions, lazy(f"{_HERE}.vllm", "VLLMBackend"), "vllm")
)
register(
    BackendKind(
        "api",
        "an OpenAI-compatible server",
        APIOptions,
        lazy(f"{_HERE}.api", "APIBackend"),
        "api",
        remote=True,
    )
)


__all__ = [
    "BACKENDS",
    "APIOptions",
    "Backend",
    "BackendKind",
    "BackendOptions",
    "Chat",
    "FinishReason",
    "HFOptions",
    "Reply",
    "TemplateOptions",
    "VLLMOptions",
    "find_backend",
    "lazy",
    "open_backend",
    "refuse_foreign_options",
    "register",
]
