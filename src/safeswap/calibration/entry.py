"""One entry of a folder of Gram matrices: an expert run over one file of texts or chats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from safeswap.calibration.collect import (
    Encoded,
    InputGroup,
    batches_of,
    group_layers,
    parts_within,
    sum_inputs,
)
from safeswap.calibration.expert_run import ExpertRun, MatrixFile, shared
from safeswap.calibration.texts import Texts
from safeswap.errors import CalibrationError
from safeswap.io.progress import items_bar
from safeswap.operators.gram_store import ExpertGrams, GramRecord


@dataclass(frozen=True, slots=True)
class Job:
    """One run of one expert: its entry in the folder, and what it reads."""

    entry: str
    role: str
    texts: Texts

    @property
    def entries(self) -> tuple[str, ...]:
        """What it writes."""
        return (self.entry,)

    def made(self, run: ExpertRun, weights: str) -> dict[str, ExpertGrams]:
        """Run the expert and write its file; what belongs into the manifest.

        Args:
            weights: digest of the expert's weights.
        """
        with run.loaded() as loaded:
            encoded, cut = self._encoded(run, loaded)
            layers, left_out = run.layers(loaded.model)
            shortest = min((one.ids for one in encoded), key=len)
            groups = group_layers(loaded.model, layers, shortest)
            tensors = self._write(run, loaded, groups, encoded)
        seen = {
            "file": self.texts.name,
            "digest": self.texts.digest,
            "texts": len(encoded),
            "tokens": sum(one.end - one.begin for one in encoded),
            "cut": cut,
        }
        about = run.about(loaded, weights, texts=seen, tensors=tensors, left_out=left_out)
        return {self.entry: about}

    def _encoded(self, run: ExpertRun, loaded: Any) -> tuple[list[Encoded], int]:
        """The texts' tokens, and how many texts were cut."""
        limit = run.limit(loaded.model)
        found, cut = [], 0
        for number, text in enumerate(self.texts.texts):
            ids = run.ids(loaded.tokenizer, ("user", text))
            if not ids:
                raise CalibrationError(
                    f"{self.texts.name}: text {number + 1} has no tokens for the "
                    f"{self.role} expert's tokenizer. Remove it."
                )
            begin, whole = 0, ids
            if self.texts.answers:
                answer = self.texts.answers[number]
                whole = run.ids(loaded.tokenizer, ("user", text), ("assistant", answer))
                begin = shared(ids, whole) - 1  # from here the answer's first token is predicted
            end = min(len(whole), limit) - bool(self.texts.answers)
            if begin >= end or begin < 0:
                raise CalibrationError(
                    f"{self.texts.name}: line {number + 1}: no token of its answer is within "
                    f"the first {limit}. Give a shorter request, or a larger --max-tokens."
                )
            cut += len(whole) > limit
            found.append(Encoded(whole[:limit], begin, end))
        return found, cut

    def _write(
        self, run: ExpertRun, loaded: Any, groups: Sequence[InputGroup], encoded: Sequence[Encoded]
    ) -> dict[str, GramRecord]:
        parts = parts_within(groups, run.memory)
        batches = batches_of(encoded, run.options.batch_tokens)
        title, total = f"calibrate {self.entry}", len(parts) * len(encoded)
        shapes = {group.name: (group.side, group.side) for group in groups}
        with MatrixFile(run, self.entry, shapes) as file, items_bar(title, total) as advance:
            for part in parts:
                sum_inputs(loaded.model, part, batches, loaded.device, advance)
                for group in part:
                    file.write(group.name, group.finish().numpy())
        return {
            layer.tensor: GramRecord(group.name, layer.inputs, group.rows, file.digests[group.name])
            for group in groups
            for layer in group.layers
        }
