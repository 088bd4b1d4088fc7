"""What every run of an expert shares: it is loaded, its texts become tokens, its layers are found,
and matrices of what they saw become files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from safeswap.calibration.layers import LinearLayer, find_layers
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import build_header
from safeswap.checkpoint.model import Checkpoint
from safeswap.errors import CalibrationError, OutputError
from safeswap.evaluation.backends import BackendOptions, Chat, open_backend
from safeswap.evaluation.backends.encoding import encode_chat
from safeswap.evaluation.backends.runnable import refuse_gguf
from safeswap.io.files import fsync, write_at
from safeswap.operators.gram_store import ExpertGrams, file_of

_FLOAT32 = DTYPES["F32"]
Matrix = np.ndarray[Any, Any]


@dataclass(frozen=True)
class ExpertRun:
    """An expert that is to be run.

    Attributes:
        role: which member of the family.
        settings: as the manifest keeps them.
        memory: bytes of the sums that are held at once.
        out: the folder.
    """

    family: Family
    role: str
    options: BackendOptions
    settings: Mapping[str, Any]
    memory: int
    out: Path

    @property
    def member(self) -> Checkpoint:
        """The expert's checkpoint."""
        return self.family.members[self.role]

    @contextmanager
    def loaded(self) -> Iterator[Any]:
        """The expert, loaded for this while, with its ``model``, ``tokenizer`` and ``device``."""
        refuse_gguf(self.member.source, gguf=self.member.facts is not None)
        opened = self._opened()
        try:
            yield opened
        finally:
            opened.close()

    def _opened(self) -> Any:
        if self.member.adapter is None:
            return open_backend(str(self.member.folder), "hf", self.options)
        from safeswap.evaluation.backends.hf import HFBackend

        return HFBackend(str(self.member.folder), self.options, self.member)

    def limit(self, model: Any) -> int:
        """How many tokens of a text are run at most."""
        limit = int(self.settings["max_tokens"])
        holds = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        return min(limit, holds) if isinstance(holds, int) and holds > 0 else limit

    def ids(self, tokenizer: Any, *turns: tuple[str, str]) -> list[int]:
        """A chat's tokens; one that ends with the user's turn is ready to be answered."""
        messages = tuple({"role": role, "content": content} for role, content in turns)
        chat = Chat(messages, 0, add_generation_prompt=turns[-1][0] == "user")
        return encode_chat(tokenizer, chat, self.options.use_template)

    def layers(self, model: Any) -> tuple[list[LinearLayer], dict[str, str]]:
        """The layers of the weight matrices of attention and MLP, and why some have none."""
        places, stored = self.family.anatomy.placements, self.member.tensors
        inside = [n for n in self.family.names if places[n].role == "projection"]
        matrices = {n: stored[n] for n in inside if len(stored[n].shape) == 2}
        layers, left_out = find_layers(model, matrices)
        for name in inside:
            if len(stored[name].shape) > 2:
                left_out[name] = "has more than two dimensions: not the weight of one linear layer"
        if not layers:
            raise CalibrationError(
                f"{self.role}: no weight matrix of its checkpoint belongs to a linear layer of "
                "the loaded model. Use another operator for this model."
            )
        return layers, left_out

    def about(self, loaded: Any, weights: str, **seen: Any) -> ExpertGrams:
        """An entry of the manifest.

        Args:
            weights: digest of the expert's weights.
            seen: ``texts``, ``tensors`` and ``left_out`` of the entry.
        """
        return ExpertGrams(
            source=self.member.text,
            weights=weights,
            settings=self.settings,
            backend=loaded.description,
            **seen,
        )


@dataclass
class MatrixFile:
    """An entry's file, written matrix by matrix, and there under its name when it is whole.

    Attributes:
        shapes: every matrix that is to be written.
        digests: of those that were, BLAKE3.
    """

    run: ExpertRun
    entry: str
    shapes: Mapping[str, tuple[int, int]]
    digests: dict[str, str] = field(default_factory=dict)

    def __enter__(self) -> MatrixFile:
        tensors = [(name, _FLOAT32, shape) for name, shape in self.shapes.items()]
        header, self._begins = build_header(tensors, {})
        self._path = file_of(self.run.out, self.entry)
        self._partial = self._path.with_name(f".{self._path.name}.partial")
        self._check_room(len(header) + sum(4 * a * b for a, b in self.shapes.values()))
        self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        write_at(self._descriptor, 0, header, self._partial)
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        try:
            if kind is None:
                fsync(self._descriptor, self._partial)
        finally:
            os.close(self._descriptor)
        if kind is None:
            self._partial.replace(self._path)

    def write(self, name: str, matrix: Matrix) -> None:
        """Write a matrix as float32.

        Raises:
            CalibrationError: not all of its numbers are finite.
        """
        if not np.isfinite(matrix).all():
            raise CalibrationError(
                f"{self.run.role}: the inputs of {name!r} are too large or no numbers in "
                f"dtype {self.run.options.dtype}. Use --dtype float32."
            )
        assert matrix.shape == self.shapes[name]
        raw = np.ascontiguousarray(matrix, np.float32).reshape(-1).view(np.uint8).data
        write_at(self._descriptor, self._begins[name], raw, self._partial)
        self.digests[name] = blake3(raw).hexdigest()

    def _check_room(self, nbytes: int) -> None:
        free = shutil.disk_usage(self.run.out).free
        if free < nbytes:
            raise OutputError(
                f"{self.run.out}: {nbytes} bytes ({nbytes / 1e9:.2f} GB) are needed for "
                f"{self.entry}, only {free} are available. Free some space, or choose another -o."
            )


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return at
    return min(len(first), len(second))
