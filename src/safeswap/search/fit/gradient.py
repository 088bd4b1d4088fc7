"""The gradient of a merged model's loss by its coefficients.

With W = W_base + Σ_e w_e (W_e − W_base) in every tensor of a unit, the chain rule gives
∂L/∂w_e = Σ over the unit's tensors of ⟨∂L/∂W, W_e − W_base⟩. The inner products are taken while the
model runs backwards, tensor by tensor, and each tensor's gradient is let go at once: what is held
beside the model are the task vectors. A unit may be a part of tensors (an attention head): its
inner product is taken over its rows or columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from safeswap.anatomy.heads import Span
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.reader import Tensor, read_copied
from safeswap.errors import EvaluationError
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS
from safeswap.roles import BASE


class CoefficientGradient:
    """Sums ∂L/∂w over the backward passes of a loaded model.

    Args:
        parameters: tensor's name in the checkpoint → parameter of the model.
        groups: group → its tensors, or its parts of tensors; every other parameter is left
            without a gradient.
        roles: the experts, in the order of the columns.

    Raises:
        EvaluationError: a tensor of a group is no parameter; says which.
    """

    def __init__(
        self,
        family: Family,
        model: Any,
        parameters: Mapping[str, torch.nn.Parameter],
        groups: Mapping[str, Sequence[Span]],
        roles: Sequence[str],
    ) -> None:
        self.sums = torch.zeros(len(groups), len(roles), dtype=torch.float64)
        self._handles = []
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        places: dict[str, list[tuple[int, Span]]] = {}
        for row, spans in enumerate(groups.values()):
            for span in spans:
                places.setdefault(span.name, []).append((row, span))
        for name, own in places.items():
            parameter = _parameter(parameters, name)
            vectors = [_vector(family, name, role, parameter) for role in roles]
            parameter.requires_grad_(True)
            self._handles.append(
                parameter.register_post_accumulate_grad_hook(self._hook(own, vectors))
            )

    def _hook(self, places: Sequence[tuple[int, Span]], vectors: Sequence[torch.Tensor]) -> Any:
        def add(parameter: torch.Tensor) -> None:
            assert parameter.grad is not None
            gradient = parameter.grad.float()
            for column, vector in enumerate(vectors):
                moved = vector.float().view(gradient.shape)
                for row, span in places:
                    parts = (_cut(tensor, span).reshape(-1) for tensor in (gradient, moved))
                    self.sums[row, column] += float(torch.dot(*parts))
            parameter.grad = None

        return add

    def take(self) -> np.ndarray[Any, Any]:
        """What was summed since the last call, float64 (groups, roles)."""
        found: np.ndarray[Any, Any] = self.sums.numpy().copy()
        self.sums.zero_()
        return found

    def close(self) -> None:
        """Let go of the task vectors."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def _cut(tensor: torch.Tensor, span: Span) -> torch.Tensor:
    if span.end is None:
        return tensor
    return tensor.narrow(span.axis, span.begin, span.end - span.begin)


def _parameter(parameters: Mapping[str, torch.nn.Parameter], name: str) -> torch.nn.Parameter:
    if name not in parameters or not parameters[name].is_floating_point():
        raise EvaluationError(
            f"{name}: is no parameter that the loaded model takes gradients of, so its weights "
            "cannot be fitted, nor what it brings be told. safeswap search finds weights without "
            "gradients."
        )
    return parameters[name]


def _vector(family: Family, name: str, role: str, parameter: torch.nn.Parameter) -> torch.Tensor:
    """A task vector, flat, in the parameter's format and where it is."""
    base = numbers_of(family.members[BASE].tensors[name])
    vector = numbers_of(family.members[role].tensors[name]) - base
    return torch.from_numpy(vector).to(parameter.device, parameter.dtype)


def numbers_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's numbers as a merge reads them, float32, flat."""
    found = np.empty(tensor.elements, np.float32)
    with tensor.reader() as reader:
        for at in range(0, tensor.elements, BLOCK_ELEMENTS):
            end = min(at + BLOCK_ELEMENTS, tensor.elements)
            values = buffer("fitted", end - at, np.float32)
            read_copied(tensor, reader, at, end, values)
            found[at:end] = values
    return found
