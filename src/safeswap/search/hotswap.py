"""Candidates in memory: one loaded model whose units are swapped in place.

The numbers that go into the model are made by the merge's own code, chunk by chunk, so a candidate
answers as its written merge would. Between two candidates only the tensors are touched whose recipe
changed; nothing is written to the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import torch

from safeswap.checkpoint.family import Family
from safeswap.errors import EvaluationError, listed
from safeswap.evaluation.backends import Backend, BackendOptions, open_backend
from safeswap.evaluation.backends.hf import HFBackend
from safeswap.io.files import opened, read_into
from safeswap.io.workers import BLOCK_ELEMENTS, default_workers, run_chunks
from safeswap.merge.chunks import Chunk, Scratch, chunk_bytes, make_scratch
from safeswap.merge.prepare import MergeJob, prepare
from safeswap.merge.run import family_of, merge
from safeswap.merge.stream import measure_joins, single_threaded
from safeswap.operators import TensorOp, linear
from safeswap.plan import Plan

_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class Candidates(Protocol):
    """Whatever makes a plan answer."""

    def answering(self, plan: Plan) -> Any:
        """``with candidates.answering(plan) as responder:`` the merged model, ready to be asked."""
        ...

    def close(self) -> None:
        """Let go of the model and its memory."""
        ...


class HotSwapModel:
    """One model of transformers, loaded from the language expert; its weights are exchanged.

    Args:
        family: of base, safety expert and this language, as `open_family` gives it.
        language: whose configuration and tokenizer all candidates have.
        workers: threads that read and compute.

    Raises:
        EvaluationError: the loaded model does not hold the checkpoint's tensors one by one (as
            where transformers fuses them); says which. `ReloadedModel` goes by way of the disk.
    """

    def __init__(
        self, family: Family, language: str, options: BackendOptions, workers: int | None = None
    ) -> None:
        self.family, self.language = family, language
        self.workers = workers or default_workers()
        self.responder = HFBackend(str(family.members[language].folder), options)
        self._parameters = _parameters(self.responder.model, family, language)
        self._now: dict[str, TensorOp] = dict.fromkeys(self._parameters, linear({language: 1.0}))

    @contextmanager
    def answering(self, plan: Plan) -> Iterator[Backend]:
        """The model as the plan says; only changed tensors are made again."""
        self.apply(plan)
        yield self.responder

    def apply(self, plan: Plan) -> int:
        """Make the model the plan's; how many bytes of its weights were touched."""
        if plan.donor != self.language:
            raise EvaluationError(
                f"donor {plan.donor}: candidates in memory have the configuration of "
                f"{self.language}. Leave the donor out."
            )
        job = prepare(self.family, plan)
        changed = {n: r for n, r in job.recipes.items() if self._differs(n, r)}
        job = replace(job, recipes=changed)
        for name in changed:  # an interrupted change leaves no tensor taken for what it is not
            self._now.pop(name, None)
        self._exchange(job)
        self._now |= changed
        return sum(int(self._parameters[name].nbytes) for name in changed)

    def close(self) -> None:
        """Free the model's memory."""
        self._parameters.clear()
        self.responder.close()

    def _differs(self, name: str, recipe: TensorOp) -> bool:
        return name in self._parameters and self._now.get(name) != recipe

    def _exchange(self, job: MergeJob) -> None:
        measure_joins(self.family, [job], workers=self.workers)
        pieces = [
            Chunk(0, name, begin, end)
            for name in job.recipes
            for begin, end in job.runs(name, self.family.base.tensors[name].elements)
        ]

        def act(piece: Chunk, scratch: Scratch) -> None:
            flat = self._parameters[piece.name].view(-1)
            _fill(flat, self.family, job, piece, scratch)

        with single_threaded([job]), torch.inference_mode():
            run_chunks(
                pieces,
                act,
                make_scratch,
                workers=self.workers,
                advance=lambda count: None,
                size=lambda piece: 0,
            )


class ReloadedModel:
    """Candidates by way of the disk: each is merged into a temporary folder and loaded from there.

    Slower, and the only way with backends that keep their weights to themselves (vLLM) and for
    models whose tensors transformers fuses while it loads them.
    """

    def __init__(self, backend: str, options: BackendOptions, scratch: Path | None = None) -> None:
        self.backend, self.options, self.scratch = backend, options, scratch

    @contextmanager
    def answering(self, plan: Plan) -> Iterator[Backend]:
        """The merged checkpoint, loaded; it is gone afterwards."""
        with TemporaryDirectory(prefix="safeswap-candidate-", dir=self.scratch) as folder:
            (merged,) = merge(family_of([plan]), [plan], Path(folder) / "merged")
            responder = open_backend(str(merged.folder), self.backend, self.options)
            try:
                yield responder
            finally:
                responder.close()

    def close(self) -> None:
        """Nothing is held."""


def _fill(
    flat: torch.Tensor, family: Family, job: MergeJob, piece: Chunk, scratch: Scratch
) -> None:
    """The piece's bytes, as the merge would write them, into the model."""
    kind = job.dtypes[piece.name]
    for first, raw in chunk_bytes(family, job, piece, scratch):
        values = torch.frombuffer(raw, dtype=_TORCH[kind.name])
        flat[first : first + len(values)].copy_(values)


def _parameters(model: Any, family: Family, language: str) -> dict[str, torch.Tensor]:
    """The checkpoint's tensor names → the loaded model's own tensors.

    Every one is compared with the language expert's, value by value: a name alone would not show
    that a tensor was transposed, split or scaled on its way.
    """
    held, prefix = model.state_dict(), f"{model.base_model_prefix}."
    head = model.get_output_embeddings()  # which not every family calls what its files call it
    found: dict[str, torch.Tensor] = {}
    lost: list[str] = []
    for name in family.names:
        if family.anatomy.placements[name].role == "buffer":
            continue  # the language expert's in every candidate
        names = (name, prefix + name, name.removeprefix(prefix))
        parameter = next((held[known] for known in names if known in held), None)
        if parameter is None and name in family.base.heads and head is not None:
            parameter = head.weight.data
        if parameter is None or not _is_stored(parameter, family, language, name):
            lost.append(name)
        else:
            found[name] = parameter
    if lost:
        raise EvaluationError(
            f"{family.members[language].folder}: transformers does not hold {listed(lost)} as "
            "the checkpoint stores them, so candidates cannot be exchanged in memory. Add "
            "--reload: each candidate is then written and loaded."
        )
    return found


def _is_stored(parameter: torch.Tensor, family: Family, language: str, name: str) -> bool:
    """Whether a loaded tensor is the stored one, rounded to the model's format."""
    stored = family.members[language].tensors[name]
    alike = tuple(parameter.shape) == stored.shape and stored.dtype.name in _TORCH
    if not alike or not parameter.is_contiguous():
        return False
    flat, size = parameter.view(-1), stored.dtype.size
    buffer = np.empty(min(stored.elements, BLOCK_ELEMENTS) * size, np.uint8)
    with opened(stored.file) as file:
        for first in range(0, stored.elements, BLOCK_ELEMENTS):
            raw = buffer[: min(BLOCK_ELEMENTS, stored.elements - first) * size]
            read_into(file, stored.start + first * size, raw, stored.file)
            values = torch.frombuffer(raw, dtype=_TORCH[stored.dtype.name]).to(flat.dtype)
            if not torch.equal(flat[first : first + len(values)].cpu(), values):
                return False
    return True
