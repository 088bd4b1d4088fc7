"""transformers as a backend: batches by length, greedy decoding, the device that is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pickle import UnpicklingError
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    GenerationConfig,
)

from safeswap.checkpoint.model import Checkpoint
from safeswap.errors import EvaluationError, listed
from safeswap.evaluation.backends import Chat, FinishReason, HFOptions, Reply
from safeswap.evaluation.backends.adapted import adapter_at, put_into
from safeswap.evaluation.backends.encoding import encode_chat, load_tokenizer
from safeswap.evaluation.backends.short_logits import with_short_logits
from safeswap.evaluation.backends.thought_limit import (
    ThoughtLimit,
    closing_tokens,
    limited_harness,
)
from safeswap.evaluation.backends.thoughts import END, decoded


class HFBackend:
    """A causal language model loaded by transformers; see ``Backend``.

    Args:
        source: a checkpoint, or an adapter that names its base.
        whole: an adapter on its base that was opened before, in place of ``source``.
    """

    def __init__(self, source: str, options: HFOptions, whole: Checkpoint | None = None) -> None:
        whole = whole if whole is not None and whole.adapter else adapter_at(source)
        weights = source if whole is None else str(whole.folder)
        self.tokenizer = load_tokenizer(
            source if whole is None else str(whole.tokenizer_folder), options
        )
        self.device = _device(options.device)
        model = _load(weights, options.dtype, options.trust_remote_code).eval()
        if whole is not None:
            put_into(model, whole)
        self.pad = self.tokenizer.pad_token_id or 0  # masked: any id will do
        self.ends = _ends(model, self.tokenizer)
        # Greedy decoding and nothing else: a checkpoint's defaults hold penalties and sampling.
        model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(self.ends) or None, pad_token_id=self.pad
        )
        self.model = model.to(self.device)
        self.options = options
        self.description: dict[str, Any] = {
            "backend": "hf",
            "transformers": transformers.__version__,
            "torch": torch.__version__,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.device.type,
        }

    def respond(self, chats: Sequence[Chat]) -> Iterator[tuple[int, Reply]]:
        """Longest prompts first, so that what does not fit into memory shows at once."""
        encoded = [encode_chat(self.tokenizer, c, self.options.use_template) for c in chats]
        order = sorted(
            range(len(chats)), key=lambda n: (-chats[n].max_new_tokens, -len(encoded[n]))
        )
        for batch in self._batches(order, chats, encoded):
            first = chats[batch[0]]
            prompts = [encoded[n] for n in batch]
            replies = self._generate(prompts, first.max_new_tokens, first.thought_limit)
            yield from zip(batch, replies, strict=True)

    def harness(self) -> Any:
        """lm-eval's wrapper around the very model that answers the chats."""
        from lm_eval.models.huggingface import HFLM

        model = with_short_logits(limited_harness(HFLM))(
            pretrained=self.model,
            tokenizer=self.tokenizer,
            batch_size=16,
            trust_remote_code=self.options.trust_remote_code,
        )
        model.think_end_token = END  # what stands before it is no answer
        return model

    def close(self) -> None:
        """Free the model's memory, also the GPU's."""
        del self.model
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _batches(
        self, order: Sequence[int], chats: Sequence[Chat], encoded: Sequence[list[int]]
    ) -> Iterator[list[int]]:
        """Runs of one response limit whose padded tokens stay within the budget."""
        batch: list[int] = []
        for n in order:
            if batch:
                first, limit = batch[0], chats[batch[0]].max_new_tokens
                tokens = (len(batch) + 1) * (len(encoded[first]) + limit)
                alike = chats[n].max_new_tokens == limit
                alike &= chats[n].thought_limit == chats[first].thought_limit
                if not alike or tokens > self.options.batch_tokens:
                    yield batch
                    batch = []
            batch.append(n)
        if batch:
            yield batch

    def _generate(
        self, prompts: list[list[int]], limit: int, thought_limit: int = 0
    ) -> list[Reply]:
        longest = max(map(len, prompts))
        watching: dict[str, Any] = {}
        if thought_limit:
            limit += len(closing_tokens(self.tokenizer))  # the answer keeps its room
            watch = ThoughtLimit(self.tokenizer, prompts, longest, thought_limit)
            watching = {"logits_processor": [watch]}
        padded = [[self.pad] * (longest - len(p)) + p for p in prompts]
        mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
        try:
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=torch.tensor(padded, device=self.device),
                    attention_mask=torch.tensor(mask, device=self.device),
                    max_new_tokens=limit,
                    **watching,
                )
        except torch.OutOfMemoryError as error:
            raise EvaluationError(
                f"{self.device}: {len(prompts)} prompts of up to {longest} tokens and {limit} new "
                f"ones do not fit into its memory. Lower --batch-tokens "
                f"({self.options.batch_tokens}) and run the same command again: what was answered "
                "is kept."
            ) from error
        rows = out[:, longest:].tolist()
        return [self._reply(p, row, limit) for p, row in zip(prompts, rows, strict=True)]

    def _reply(self, prompt: list[int], row: list[int], limit: int) -> Reply:
        end = next((n for n, token in enumerate(row) if token in self.ends), None)
        reason: FinishReason = "length" if end is None and len(row) >= limit else "stop"
        text = decoded(self.tokenizer, prompt, row[:end])
        # The token that ends a response counts as new, as vLLM and servers count it.
        return Reply(text, len(prompt), len(row) if end is None else end + 1, reason)


def _load(source: str, dtype: str, trusted: bool) -> Any:
    """The model, every weight of it from the checkpoint."""
    transformers.utils.logging.disable_progress_bar()
    try:
        kind = AutoModelForCausalLM
        config = AutoConfig.from_pretrained(source, trust_remote_code=trusted)
        own = trusted and "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
        if type(config) not in kind._model_mapping and not own:
            kind = AutoModelForImageTextToText  # such as guards that read pictures too
        model, found = kind.from_pretrained(
            source, dtype=dtype, output_loading_info=True, trust_remote_code=trusted
        )
    except UnpicklingError as error:  # whose own advice is to run what is in the file
        raise EvaluationError(
            f"{source}: its weights are a pickle that holds more than tensors, and no code of a "
            "pickle is ever run. Convert the checkpoint to safetensors where you trust it."
        ) from error
    except Exception as error:  # whatever a configuration can make of a loader
        raise EvaluationError(
            f"{source}: transformers {transformers.__version__} does not load it with --dtype "
            f"{dtype}: {type(error).__name__}: {error}"
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:  # transformers fills these with noise, and the model talks nonsense
        raise EvaluationError(
            f"{source}: the checkpoint lacks weights of its architecture: {listed(missing)}. Is "
            "its config.json the right one, and is every shard there?"
        )
    return model


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a response: the checkpoint's and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return {n for n in (*several, tokenizer.eos_token_id) if isinstance(n, int)}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise EvaluationError(
            f"--device {name}: torch cannot use it ({str(error).splitlines()[0]}). Use auto or cpu."
        ) from error
    return device
