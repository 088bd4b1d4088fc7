"""vLLM as a backend: its own scheduler batches; we hand it token ids and take texts.

Written against vLLM 0.32 (``LLM.generate`` on token ids, ``SamplingParams``), with which the tests
marked ``engine`` run for real; a stand-in engine keeps the contract where vLLM is not installed.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

# vLLM would write its log between what a verb prints. Read when it is imported.
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")

import torch
import transformers
import vllm

from safeswap.checkpoint.adapters import is_adapter
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Chat, Reply, VLLMOptions
from safeswap.evaluation.backends.encoding import encode_chat, load_tokenizer
from safeswap.evaluation.backends.overheard import overheard, root_cause
from safeswap.evaluation.backends.thoughts import END, decoded

AT_ONCE = 512
"""Chats handed over at a time: enough to keep the engine full, few enough to lose to a kill."""
_OF_THE_TOKENIZER = ("tokenizer", "tokenizer_mode", "revision", "tokenizer_revision")
_MEMORY = re.compile(r"memory|KV cache|max_model_len|max seq len", re.I)


class VLLMBackend:
    """A model in a vLLM engine; see ``Backend``. One engine answers chats and lm-eval."""

    def __init__(self, source: str, options: VLLMOptions) -> None:
        self.source, self.options = source, options
        if is_adapter(Path(source)):
            raise EvaluationError(
                f"{source}: is an adapter, and --backend vllm loads whole checkpoints here. Use "
                "--backend hf, or merge it first (peft: merge_and_unload, then save_pretrained)."
            )
        self.tokenizer = load_tokenizer(source, options)
        self._harness: Any = None
        self._engine: Any = self._start()
        self.description: dict[str, Any] = {
            "backend": "vllm",
            "vllm": getattr(vllm, "__version__", "unknown"),
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            **_computes_in(self._engine, options.dtype),
        }

    def _start(self) -> Any:
        with self._our_errors("does not start"):
            return vllm.LLM(
                model=self.source,
                dtype=self.options.dtype,
                trust_remote_code=self.options.trust_remote_code,
                **self.options.engine,
            )

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
            with self.our_errors():
                done = self._engine.generate(prompts, sampling, use_tqdm=False)
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
        """lm-eval's vLLM model around the engine that answers the chats."""
        if self._harness is None:
            from safeswap.evaluation.backends.vllm_harness import make_harness

            given = {k: v for k, v in self.options.engine.items() if k in _OF_THE_TOKENIZER}
            with self._our_errors("is not taken by lm-eval"):
                self._harness = make_harness(
                    self._engine,
                    self.our_errors,
                    pretrained=self.source,
                    trust_remote_code=self.options.trust_remote_code,
                    **given,
                )
            if self.options.chat_template is not None:
                self._harness.hf_chat_template = self.tokenizer.chat_template
            self._harness.think_end_token = END  # what stands before it is no answer
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
    def our_errors(self) -> Iterator[None]:
        """Whatever a running engine raises, as our error."""
        with self._our_errors(
            "does not answer",
            " What was answered is kept; run the same command again for the rest.",
        ):
            yield

    @contextmanager
    def _our_errors(self, what: str, more: str = "") -> Iterator[None]:
        lines: Sequence[str] | Any = ()
        try:
            if more:
                yield
            else:
                with overheard() as lines:
                    yield
        except EvaluationError:
            raise
        except Exception as error:  # its own kinds, those of its processes, pydantic's
            said = f"{type(error).__name__}: {error}"
            cause = root_cause(lines) if "initialization failed" in said else ""
            raise EvaluationError(
                f"{self.source}: vLLM {what}: {cause or said} Engine arguments given with "
                f"--engine: {dict(self.options.engine) or 'none'}.{_hint(cause, said)}{more}"
            ) from error


def _computes_in(engine: Any, dtype: str) -> dict[str, str]:
    """The format and device that the engine chose: ``auto`` is not what transformers makes of it,
    and answers are compared by what computed them.
    """
    about = getattr(engine, "llm_engine", None)
    chosen = getattr(getattr(about, "model_config", None), "dtype", dtype)
    config = getattr(getattr(about, "vllm_config", None), "device_config", None)
    device = getattr(config, "device_type", None)
    return {"dtype": str(chosen).removeprefix("torch."), **({"device": device} if device else {})}


def _hint(cause: str, said: str) -> str:
    """What to do, where it is the memory, or where vLLM's own words lead nowhere."""
    if "EngineDeadError" in said:
        return (
            " The engine's process has ended: it was killed, as for want of memory, or failed as "
            "its log above says."
        )
    if not cause and "initialization failed" not in said:
        return ""
    place = "" if cause else " The cause stands in vLLM's log above; most often it is memory."
    if cause and not _MEMORY.search(cause):
        return ""
    return (
        f"{place} Give the share of the device's memory that is free, --engine "
        "gpu_memory_utilization=0.5 (on a processor a share of the machine's), and a shorter "
        "context, --engine max_model_len=4096."
    )
