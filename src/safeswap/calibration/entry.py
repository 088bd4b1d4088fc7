"""One entry of a folder of Gram matrices: an expert run over one file of texts or chats."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from safeswap.calibration.collect import (
    Encoded,
    InputGroup,
    batches_of,
    group_layers,
    parts_within,
    sum_inputs,
)
from safeswap.calibration.layers import LinearLayer, find_layers
from safeswap.calibration.texts import Texts
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import build_header
from safeswap.checkpoint.model import Checkpoint
from safeswap.errors import CalibrationError, OutputError
from safeswap.evaluation.backends import BackendOptions, Chat, open_backend
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.runnable import refuse_gguf
from safeswap.io.files import fsync, write_at
from safeswap.io.progress import items_bar
from safeswap.operators.gram_store import ExpertGrams, GramRecord, file_of

_FLOAT32 = DTYPES["F32"]


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one expert: its entry in the folder, and what it reads."""

    entry: str
    role: str
    texts: Texts


@dataclass(frozen=True, slots=True)
class EntryRun:
    """One expert's run."""

    family: Family
    job: Job
    options: BackendOptions
    settings: Mapping[str, Any]
    memory: int
    out: Path

    def entry(self, weights: str) -> ExpertGrams:
        """Run the expert and write its file; what belongs into the manifest."""
        member = self.family.members[self.job.role]
        refuse_gguf(member.source, gguf=member.facts is not None)
        loaded: Any = self._opened(member)
        try:
            encoded, cut = self._encoded(loaded.tokenizer, loaded.model)
            layers, left_out = self._layers(loaded.model)
            shortest = min((one.ids for one in encoded), key=len)
            groups = group_layers(loaded.model, layers, shortest)
            tensors = self._write(loaded, groups, encoded)
        finally:
            loaded.close()
        return ExpertGrams(
            source=member.text,
            weights=weights,
            texts={
                "file": self.job.texts.name,
                "digest": self.job.texts.digest,
                "texts": len(encoded),
                "tokens": sum(one.end - one.begin for one in encoded),
                "cut": cut,
            },
            settings=self.settings,
            backend=loaded.description,
            tensors=tensors,
            left_out=left_out,
        )

    def _opened(self, member: Checkpoint) -> Any:
        if member.adapter is None:
            return open_backend(str(member.folder), "hf", self.options)
        from safeswap.evaluation.backends.hf import HFBackend

        return HFBackend(str(member.folder), self.options, member)

    def _encoded(self, tokenizer: Any, model: Any) -> tuple[list[Encoded], int]:
        """The texts' tokens, and how many texts were cut."""
        limit = int(self.settings["max_tokens"])
        holds = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        limit = min(limit, holds) if isinstance(holds, int) and holds > 0 else limit
        found, cut = [], 0
        for number, text in enumerate(self.job.texts.texts):
            ids = self._ids(tokenizer, ("user", text))
            if not ids:
                raise CalibrationError(
                    f"{self.job.texts.name}: text {number + 1} has no tokens for the "
                    f"{self.job.role} expert's tokenizer. Remove it."
                )
            begin, whole = 0, ids
            if self.job.texts.answers:
                answer = self.job.texts.answers[number]
                whole = self._ids(tokenizer, ("user", text), ("assistant", answer))
                begin = _shared(ids, whole) - 1  # from here the answer's first token is predicted
            end = min(len(whole), limit) - bool(self.job.texts.answers)
            if begin >= end or begin < 0:
                raise CalibrationError(
                    f"{self.job.texts.name}: line {number + 1}: no token of its answer is within "
                    f"the first {limit}. Give a shorter request, or a larger --max-tokens."
                )
            cut += len(whole) > limit
            found.append(Encoded(whole[:limit], begin, end))
        return found, cut

    def _ids(self, tokenizer: Any, *turns: tuple[str, str]) -> list[int]:
        """A chat's tokens; one that ends with the user's turn is ready to be answered."""
        messages = tuple({"role": role, "content": content} for role, content in turns)
        chat = Chat(messages, 0, add_generation_prompt=turns[-1][0] == "user")
        return encode_chat(tokenizer, chat, self.options.use_template)

    def _layers(self, model: Any) -> tuple[list[LinearLayer], dict[str, str]]:
        """The layers of the weight matrices of attention and MLP."""
        places, stored = self.family.anatomy.placements, self.family.members[self.job.role].tensors
        inside = [n for n in self.family.names if places[n].role == "projection"]
        matrices = {n: stored[n] for n in inside if len(stored[n].shape) == 2}
        layers, left_out = find_layers(model, matrices)
        for name in inside:
            if len(stored[name].shape) > 2:
                left_out[name] = "has more than two dimensions: not the weight of one linear layer"
        if not layers:
            raise CalibrationError(
                f"{self.job.role}: no weight matrix of its checkpoint belongs to a linear layer of "
                "the loaded model. Use another operator for this model."
            )
        return layers, left_out

    def _write(
        self, loaded: Any, groups: Sequence[InputGroup], encoded: Sequence[Encoded]
    ) -> dict[str, GramRecord]:
        path = file_of(self.out, self.job.entry)
        partial = path.with_name(f".{path.name}.partial")
        header, begins = build_header([(g.name, _FLOAT32, (g.side, g.side)) for g in groups], {})
        parts = parts_within(groups, self.memory)
        batches = batches_of(encoded, self.options.batch_tokens)
        self._check_room(len(header) + sum(4 * g.side**2 for g in groups))
        digests = {}
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            write_at(descriptor, 0, header, partial)
            title, total = f"calibrate {self.job.entry}", len(parts) * len(encoded)
            with items_bar(title, total) as advance:
                for part in parts:
                    sum_inputs(loaded.model, part, batches, loaded.device, advance)
                    for group in part:
                        matrix = np.ascontiguousarray(group.finish().numpy())
                        self._check_finite(group, matrix)
                        raw = matrix.reshape(-1).view(np.uint8).data
                        write_at(descriptor, begins[group.name], raw, partial)
                        digests[group.name] = blake3(raw).hexdigest()
            fsync(descriptor, partial)
        finally:
            os.close(descriptor)
        partial.replace(path)
        return {
            layer.tensor: GramRecord(group.name, layer.inputs, group.rows, digests[group.name])
            for group in groups
            for layer in group.layers
        }

    def _check_finite(self, group: InputGroup, matrix: np.ndarray[Any, Any]) -> None:
        if not np.isfinite(matrix).all():
            raise CalibrationError(
                f"{self.job.role}: the inputs of {group.name!r} are too large or no numbers in "
                f"dtype {self.options.dtype}. Use --dtype float32."
            )

    def _check_room(self, nbytes: int) -> None:
        free = shutil.disk_usage(self.out).free
        if free < nbytes:
            raise OutputError(
                f"{self.out}: {nbytes} bytes ({nbytes / 1e9:.2f} GB) are needed for "
                f"{self.job.entry}, only {free} are available. Free some space, or "
                "choose another -o."
            )


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return at
    return min(len(first), len(second))
