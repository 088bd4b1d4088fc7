"""Candidates in memory: one loaded model whose units are swapped in place.

The numbers that go into the model are made by the merge's own code, chunk by chunk, so a candidate
answers as its written merge would. Between two candidates only the tensors that are made otherwise
are touched; nothing is written to the disk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from safeswap.checkpoint.family import Family
from safeswap.errors import EvaluationError, listed
from safeswap.evaluation.backends import Backend, BackendOptions, open_backend
from safeswap.evaluation.backends.hf import HFBackend
from safeswap.evaluation.backends.loaded import match_parameters
from safeswap.evaluation.backends.runnable import refuse_gguf
from safeswap.io.workers import default_workers, run_chunks
from safeswap.merge.chunks import chunk_bytes
from safeswap.merge.prepare import Chunk, MergeJob, prepare
from safeswap.merge.run import family_of, merge
from safeswap.merge.stream import run_passes
from safeswap.operators import TensorOp, linear
from safeswap.plan import Plan

_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


Steps = tuple[tuple[TensorOp, int], ...]
"""How a tensor is made: one step, or one for each piece of it, from which element on."""


class Candidates(Protocol):
    """Whatever makes a plan answer."""

    def answering(self, plan: Plan) -> Any:
        """``with candidates.answering(plan) as loaded:`` the merged model, ready to be asked."""
        ...

    def close(self) -> None:
        """Let go of the model and its memory."""
        ...


class HotSwapModel:
    """One model of transformers, loaded from the language expert; its weights are exchanged.

    Args:
        family: of base, safety expert and this language, as ``open_family`` gives it.
        language: whose configuration and tokenizer all candidates have.
        workers: threads that read and compute.

    Raises:
        EvaluationError: the loaded model does not hold the checkpoint's tensors one by one (as
            where transformers fuses them); says which. ``ReloadedModel`` goes by way of the disk.
    """

    def __init__(
        self, family: Family, language: str, options: BackendOptions, workers: int | None = None
    ) -> None:
        self.family, self.language = family, language
        self.workers = workers or default_workers()
        member = family.members[language]
        refuse_gguf(member.source, gguf=member.facts is not None)
        self.loaded = HFBackend(str(member.folder), options, member)
        seen = family.output(language, language)
        self._parameters = _parameters(self.loaded.model, seen, language)
        self._now: dict[str, Steps] = dict.fromkeys(
            self._parameters, ((linear({language: 1.0}), 0),)
        )

    @contextmanager
    def answering(self, plan: Plan) -> Iterator[Backend]:
        """The model as the plan says; only changed tensors are made again."""
        self.apply(plan)
        yield self.loaded

    def apply(self, plan: Plan) -> int:
        """Make the model the plan's; how many bytes of its weights were touched."""
        if plan.donor != self.language:
            raise EvaluationError(
                f"donor {plan.donor}: candidates in memory have the configuration of "
                f"{self.language}. Leave the donor out."
            )
        job = prepare(self.family, plan)
        made = {name: _steps(job, name) for name in job.family.names if name in self._parameters}
        changed = {name: steps for name, steps in made.items() if self._now.get(name) != steps}
        for name in changed:  # an interrupted change leaves no tensor taken for what it is not
            self._now.pop(name, None)
        self._exchange(_only(job, changed))
        self._now |= changed
        return sum(int(self._parameters[name].nbytes) for name in changed)

    def trainable(self) -> dict[str, torch.nn.Parameter]:
        """The checkpoint's tensor names → the parameters themselves, of those that are matrices or
        vectors of the layers.
        """
        own = {value.data_ptr(): value for value in self.loaded.model.parameters()}
        return {
            name: own[value.data_ptr()]
            for name, value in self._parameters.items()
            if value.data_ptr() in own
        }

    def tensors_of(self, units: Collection[str]) -> tuple[str, ...]:
        """The names of the tensors that units decide."""
        placements = self.family.anatomy.placements
        return tuple(name for name in self._parameters if placements[name].unit in units)

    def close(self) -> None:
        """Free the model's memory."""
        self._parameters.clear()
        self.loaded.close()

    def _exchange(self, job: MergeJob) -> None:
        run_passes([job], workers=self.workers)
        names = (*(name for name in job.ops if name in self._parameters), *job.pieces)
        chunks = [chunk for name in names for chunk in job.chunks(name, job.elements(name))]

        def act(chunk: Chunk) -> None:
            _fill(self._parameters[chunk.name].view(-1), job, chunk)

        with torch.inference_mode():
            run_chunks(
                chunks,
                act,
                workers=self.workers,
                advance=lambda count: None,
                size=lambda chunk: 0,
            )


def _steps(job: MergeJob, name: str) -> Steps:
    if name in job.pieces:
        return tuple((piece.op, piece.begin) for piece in job.pieces[name])
    return ((job.ops[name], 0),)


def _only(job: MergeJob, names: Collection[str]) -> MergeJob:
    """The job of some tensors of the family alone."""
    pieces = {name: own for name, own in job.pieces.items() if name in names}
    ops = {name: job.ops[name] for name in names if name not in pieces}
    ops |= {piece.name: piece.op for own in pieces.values() for piece in own}
    return replace(job, ops=ops, pieces=pieces)


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
            loaded = open_backend(str(merged.folder), self.backend, self.options)
            try:
                yield loaded
            finally:
                loaded.close()

    def close(self) -> None:
        """Do nothing: a written candidate is loaded and let go for each plan."""


def _fill(flat: torch.Tensor, job: MergeJob, chunk: Chunk) -> None:
    """The chunk's bytes, as the merge would write them, into the model."""
    kind = job.dtypes[chunk.name]
    for first, raw in chunk_bytes(job, chunk):
        values = torch.frombuffer(raw, dtype=_TORCH[kind.name])
        flat[first : first + len(values)].copy_(values)


def _parameters(model: Any, family: Family, language: str) -> dict[str, torch.Tensor]:
    """The checkpoint's tensor names → the loaded model's own tensors."""
    held = {name: value for name, value in model.state_dict().items() if value.is_contiguous()}
    head = model.get_output_embeddings()  # which not every family calls what its files call it
    if head is not None:
        held |= {n: head.weight.data for n in family.base.heads if n not in held}
    # buffers are the language expert's in every candidate
    wanted = {
        name: family.members[language].tensors[name]
        for name in family.names
        if family.anatomy.placements[name].role != "buffer"
    }
    matches = match_parameters(held, wanted)
    if matches.unmatched:
        raise EvaluationError(
            f"{family.members[language].folder}: transformers does not hold "
            f"{listed(matches.unmatched)} as the checkpoint stores them, so candidates cannot be "
            "exchanged in memory. A sweep or search can with --reload, which writes and loads each "
            "of them; fit and attribute cannot."
        )
    return {name: held[parameter] for name, parameter in matches.parameters.items()}
