"""Which linear layer of a loaded model has which tensor of the checkpoint for its weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn
from transformers.pytorch_utils import Conv1D

from safeswap.checkpoint.reader import Tensor
from safeswap.evaluation.backends.loaded import match_parameters


@dataclass(frozen=True, slots=True)
class LinearLayer:
    """A linear layer whose weight is a tensor of the checkpoint.

    Attributes:
        tensor: the checkpoint's name of the weight.
        inputs: ``columns`` for [out, in] (torch.nn.Linear), ``rows`` for [in, out] (Conv1D).
        side: how many inputs it has.
    """

    tensor: str
    module: nn.Module
    inputs: str
    side: int


def find_layers(
    model: nn.Module, wanted: Mapping[str, Tensor]
) -> tuple[list[LinearLayer], dict[str, str]]:
    """The layers of the wanted tensors in the model's order, and why other tensors have none.

    Raises:
        CheckpointError: a tensor cannot be read.
    """
    modules = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    weights = {name: module.weight.data for name, module in modules.items()}
    matches = match_parameters(weights, wanted)
    tensor_of = {parameter: tensor for tensor, parameter in matches.parameters.items()}
    layers = [_layer(tensor_of[n], module) for n, module in modules.items() if n in tensor_of]
    return layers, dict(matches.unmatched)


def _layer(tensor: str, module: nn.Module) -> LinearLayer:
    inputs = "rows" if isinstance(module, Conv1D) else "columns"
    side = module.weight.shape[0 if inputs == "rows" else 1]
    return LinearLayer(tensor, module, inputs, side)
