"""One model, opened and read on all texts: states, openings of refusals, likelihoods of answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from safeswap.calibration.collect import Encoded, batches_of
from safeswap.checkpoint.model import Checkpoint
from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import BackendOptions, Chat
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.hf import HFBackend
from safeswap.evaluation.backends.runnable import refuse_gguf
from safeswap.evaluation.readouts import Exchange
from safeswap.io.progress import items_bar
from safeswap.search.diagnose.texts import HARMLESS, Kind
from safeswap.search.fit.objective import Scored, encode, log_likelihoods

Array = np.ndarray[Any, Any]
Advance = Callable[[int], None]
LOGITS = 1 << 26
"""Numbers of logits that are made at once: 256 MB in float32."""


@dataclass(frozen=True, slots=True)
class Answers:
    """How likely a model finds given answers, a value for each text.

    Attributes:
        likely: log-likelihood after the answer's own request, nats, float64.
        tokens: of each answer that were counted.
        letters: of the text that these tokens make, spaces and signs among them.
    """

    likely: Array
    tokens: Array
    letters: Array


@dataclass(frozen=True, slots=True)
class ModelReading:
    """What was read of one model, by kind of texts.

    Attributes:
        states: after each layer at the last token before an answer, float32 (layers, texts, width);
            after the last layer also normed, where the model's own code gives them so.
        refusing: log-probability that an answer opens as refusals do, nats, float64 (texts,).
        answers: of harmless texts.
    """

    states: Mapping[Kind, Array]
    refusing: Mapping[Kind, Array]
    answers: Mapping[Kind, Answers]


@dataclass(frozen=True, slots=True)
class Reader:
    """How models are read.

    Attributes:
        openings: how refusals open.
        max_tokens: of a request with its answer; longer answers are cut.
    """

    options: BackendOptions
    openings: Sequence[str]
    max_tokens: int

    def read(
        self, member: Checkpoint, title: str, sets: Mapping[Kind, Sequence[Exchange]]
    ) -> ModelReading:
        """Open a model, read it on all texts, and let it go.

        Raises:
            EvaluationError: it does not load, a request is too long, or its numbers are none.
        """
        scored = sum(len(texts) for kind, texts in sets.items() if kind[0] == HARMLESS)
        total = (1 + len(self.openings)) * sum(map(len, sets.values())) + scored
        with _opened(member, self.options) as loaded, items_bar(f"read {title}", total) as advance:
            run = _Run(loaded, self, advance)
            return ModelReading(
                {kind: run.states(texts) for kind, texts in sets.items()},
                {kind: run.refusing(texts) for kind, texts in sets.items()},
                {kind: run.answers(texts) for kind, texts in sets.items() if kind[0] == HARMLESS},
            )


@contextmanager
def _opened(member: Checkpoint, options: BackendOptions) -> Iterator[HFBackend]:
    refuse_gguf(member.source, gguf=member.facts is not None)
    loaded = HFBackend(str(member.folder), options, member)
    try:
        yield loaded
    finally:
        loaded.close()


@dataclass(frozen=True, slots=True)
class _Run:
    """A loaded model while it is read."""

    loaded: HFBackend
    reader: Reader
    advance: Advance

    def states(self, texts: Sequence[Exchange]) -> Array:
        """States of the last token before an answer, float32 (layers, texts, width)."""
        encoded = []
        for number, one in enumerate(texts):
            ids = self._asked(one.request)
            encoded.append(Encoded(ids, 0, len(ids), number))
        found: list[Array | None] = [None] * len(texts)
        for batch in batches_of(encoded, self.reader.options.batch_tokens):
            states = self._last([text.ids for text in batch])
            for text, state in zip(batch, states, strict=True):
                found[text.number] = state
            self.advance(len(batch))
        whole = np.stack([state for state in found if state is not None], axis=1)
        if not np.isfinite(whole).all():
            raise EvaluationError(
                f"the states of {len(texts)} texts are no finite numbers in this dtype. Use "
                "--dtype float32."
            )
        return whole

    def refusing(self, texts: Sequence[Exchange]) -> Array:
        """Log-probability of a refusal's opening after each request, nats."""
        openings = self.reader.openings
        opened = [Exchange(one.request, opening) for one in texts for opening in openings]
        each = np.array(self._likelihoods(self._encoded(opened)))
        each = each.reshape(len(texts), len(openings))
        either: Array = np.minimum(np.logaddexp.reduce(each, axis=1), 0.0)
        return either

    def answers(self, texts: Sequence[Exchange]) -> Answers:
        """Likelihoods of the answers after their requests."""
        rows = self._encoded(texts)
        letters = [len(self.loaded.tokenizer.decode(row.answer)) for row in rows]
        tokens = [len(row.answer) for row in rows]
        return Answers(np.array(self._likelihoods(rows)), np.array(tokens), np.array(letters))

    def _asked(self, request: str) -> list[int]:
        chat = Chat(({"role": "user", "content": request},), 0)
        return encode_chat(self.loaded.tokenizer, chat, self.reader.options.use_template)

    def _last(self, batch: Sequence[list[int]]) -> Array:
        """States of texts of one length at their last tokens, float32 (texts, layers, width)."""
        model = self.loaded.model
        layers = getattr(model, "base_model", model)  # no logits are needed
        ids = torch.tensor(list(batch), device=self.loaded.device)
        with torch.inference_mode():
            states = layers(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                use_cache=False,
                output_hidden_states=True,
            ).hidden_states
        found: Array = torch.stack([one[:, -1] for one in states[1:]], 1).float().cpu().numpy()
        return found

    def _encoded(self, exchanges: Sequence[Exchange]) -> list[Scored]:
        template, limit = self.reader.options.use_template, self.reader.max_tokens
        return [encode(self.loaded.tokenizer, one, limit, template=template) for one in exchanges]

    def _likelihoods(self, rows: Sequence[Scored]) -> list[float]:
        """Log-likelihood of each answer, nats."""
        found = [0.0] * len(rows)
        with torch.inference_mode():
            for places in self._batches(rows):
                part = [rows[n] for n in places]
                scores = log_likelihoods(self.loaded.model, part, self.loaded.pad).tolist()
                for n, score in zip(places, scores, strict=True):
                    found[n] = score
                self.advance(len(part))
        if not np.isfinite(found).all():
            raise EvaluationError(
                "the likelihood of an answer is no finite number in this dtype. Use --dtype "
                "float32."
            )
        return found

    def _batches(self, rows: Sequence[Scored]) -> Iterator[list[int]]:
        """Places of rows of like length whose tokens and logits stay within their budgets."""
        wide = int(self.loaded.model.config.get_text_config().vocab_size)
        batch: list[int] = []
        kept = longest = 0
        for n in sorted(range(len(rows)), key=lambda n: len(rows[n].asked) + len(rows[n].answer)):
            row = rows[n]
            kept, longest = max(kept, len(row.answer)), len(row.asked) + len(row.answer)
            tokens, logits = (len(batch) + 1) * longest, (len(batch) + 1) * kept * wide
            if batch and (tokens > self.reader.options.batch_tokens or logits > LOGITS):
                yield batch
                batch, kept = [], len(row.answer)
            batch.append(n)
        if batch:
            yield batch
