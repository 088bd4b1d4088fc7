"""vLLM as a backend: its own scheduler batches; we hand it token ids and take texts.

Written against vLLM 0.33 (``LLM.generate`` on token ids, ``SamplingParams``) and covered by a
contract test with a stand-in engine; see the README for what was run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import vllm

from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import Chat, Reply, VLLMOptions
from safeswap.evaluation.backends.encoding import encode_chat, load_tokenizer
from safeswap.evaluation.backends.thoughts import END, decoded

AT_ONCE = 512
"""Chats handed over at a time: enough to keep the engine full, few enough to lose to a kill."""


class VLLMBackend:
    """A model in a vLLM engine; see `Backend`. The engine starts at the first question."""

    def __init__(self, source: str, options: VLLMOptions) -> None:
        self.source, self.options = source, options
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
        """vLLM's engine; lm-eval's where that has one already: two would not fit on a GPU."""
        if self._engine is None:
            with self._our_errors("does not start"):
                self._engine = vllm.LLM(
                    model=self.source, dtype=self.options.dtype, **self.options.engine
                )
        return self._engine

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """In the order of the chats, `AT_ONCE` at a time."""
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
            from lm_eval.models.vllm_causallms import VLLM

            self.close()
            with self._our_errors("does not start"):
                self._harness = VLLM(
                    pretrained=self.source, dtype=self.options.dtype, **self.options.engine
                )
            if self.options.chat_template is not None:
                self._harness.hf_chat_template = self.tokenizer.chat_template
            self._harness.think_end_token = END  # what stands before it is no answer
            self._engine = self._harness.model
        return self._harness

    def close(self) -> None:
        """Let go of the engine, and of the GPU's memory with it."""
        self._engine = self._harness = None
        import gc

        gc.collect()

    @contextmanager
    def _our_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, RuntimeError, OSError) as error:
            raise EvaluationError(
                f"{self.source}: vLLM {what}: {type(error).__name__}: {error}. Engine arguments "
                f"given with --engine: {dict(self.options.engine) or 'none'}."
            ) from error
