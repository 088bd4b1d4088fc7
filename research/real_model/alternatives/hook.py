"""A backend that steers: transformers as ``--backend hf`` has it, with a hook on one layer.

At the last token before an answer the layer's output is laid on the direction of harmfulness. Where
it lies beyond the threshold, a vector is added to the layer's output at every token of the request
and of its answer (Arditi et al., arXiv 2406.11717). ``make_known`` registers the backend
``steered``; see docs/extend.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from safeswap.errors import EvaluationError
from safeswap.evaluation.backends import BackendKind, HFOptions, register
from safeswap.evaluation.backends.hf import HFBackend

NAME = "steered"


@dataclass(frozen=True)
class Steering:
    """Where and how a model is steered.

    Attributes:
        layer: whose output is read and changed, from 0.
        gate: unit vector of harmfulness, (width,).
        threshold: steered is what lies further along ``gate``.
        push: what is added, (width,).
        frame: token ids at whose last one is read: the chat template's opening of an answer.
    """

    layer: int
    gate: tuple[float, ...]
    threshold: float
    push: tuple[float, ...]
    frame: tuple[int, ...]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> Steering:
        found = json.loads(path.read_text("utf-8"))
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})


def layers_of(model: Any) -> Any:
    """The decoder's layers, wherever an architecture keeps them."""
    return model.get_decoder().layers


def frame_ends(ids: torch.Tensor, frame: Sequence[int]) -> torch.Tensor:
    """Place of the last token of the last frame in each row of ``ids``; int64 (rows,).

    Raises:
        ValueError: a row without a frame.
    """
    windows = ids.unfold(1, len(frame), 1)
    found = (windows == torch.tensor(frame, device=ids.device)).all(-1)
    if not bool(found.any(1).all()):
        raise ValueError("a row has no opening of an answer, so nothing says where to read it")
    last = found.shape[1] - 1 - found.flip(1).int().argmax(1)
    return last + len(frame) - 1


class Hook:
    """Steers a model until it is removed."""

    def __init__(self, model: Any, steering: Steering) -> None:
        self.frame, self.threshold = steering.frame, steering.threshold
        self.gate, self.push = torch.tensor(steering.gate), torch.tensor(steering.push)
        self._ids = torch.empty(0, 0)
        self._steered = torch.empty(0, dtype=torch.bool)
        self._handles = [
            model.register_forward_pre_hook(self._see, with_kwargs=True),
            layers_of(model)[steering.layer].register_forward_hook(self._act),
        ]

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _see(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]

    def _act(self, layer: Any, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        rows, length, _ = states.shape
        if length > 1 or len(self._steered) != rows:  # else a further token of answers under way
            places = frame_ends(self._ids, self.frame).to(states.device)
            read = states[torch.arange(rows), places].float() @ self.gate.to(states.device)
            self._steered = read > self.threshold
        added = self._steered[:, None, None] * self.push.to(states.device, states.dtype)
        return (states + added, *output[1:]) if isinstance(output, tuple) else states + added


@dataclass(frozen=True)
class SteeredOptions(HFOptions):
    """Those of transformers, and the file of a :class:`Steering`."""

    steering: str = ""


class SteeredBackend(HFBackend):
    """transformers with a :class:`Hook`, for answers and for lm-eval's tasks."""

    def __init__(self, source: str, options: SteeredOptions) -> None:
        super().__init__(source, options)
        path = Path(options.steering)
        if not path.is_file():
            raise EvaluationError(f"the backend steered needs the option steering: no file {path}")
        self.hook = Hook(self.model, Steering.load(path))
        digest = sha256(path.read_bytes()).hexdigest()
        self.description |= {"backend": NAME, "steering": digest}


def make_known() -> None:
    """Register the backend."""
    register(BackendKind(NAME, "transformers, steered", SteeredOptions, SteeredBackend, "eval"))
