"""Which layer of a loaded model holds which tensor of the checkpoint: by name, and by content."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from safeswap.checkpoint.dtypes import decode
from safeswap.checkpoint.header import StoredTensor
from safeswap.io.files import opened, read_into
from safeswap.io.workers import BLOCK_ELEMENTS


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
    model: nn.Module, wanted: Mapping[str, StoredTensor]
) -> tuple[list[LinearLayer], dict[str, str]]:
    """The layers of the wanted tensors in the model's order, and why other tensors have none.

    A layer's parameter and a stored tensor belong together when one's dotted name ends with the
    other's (`h.0.attn…` is stored for `transformer.h.0.attn…`), no other one does, and the loaded
    numbers are the stored ones: a name alone proves nothing, for loaders rename and rearrange.
    """
    modules = _linear_modules(model)
    parameters = _by_suffix(modules)
    found: dict[str, LinearLayer] = {}
    left_out: dict[str, str] = {}
    for name, stored in wanted.items():
        matches = [p for p in _matches(name, parameters) if modules[p][1].shape == stored.shape]
        if len(matches) != 1:
            many = "several linear layers" if matches else "no linear layer of this shape"
            left_out[name] = f"{many} of the loaded model may hold it"
        elif not _same_numbers(modules[matches[0]][1], stored):
            left_out[name] = f"the loaded model holds other numbers in {matches[0]}"
        else:
            module, weight = modules[matches[0]]
            inputs = "rows" if isinstance(module, Conv1D) else "columns"
            side = weight.shape[0 if inputs == "rows" else 1]
            found[matches[0]] = LinearLayer(name, module, inputs, side)
    return [found[parameter] for parameter in modules if parameter in found], left_out


def _linear_modules(model: nn.Module) -> dict[str, tuple[nn.Module, torch.Tensor]]:
    return {
        f"{name}.weight": (module, module.weight)
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }


def _by_suffix(names: Mapping[str, Any]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for suffix in _suffixes(name):
            table[suffix].append(name)
    return table


def _suffixes(name: str) -> Iterator[str]:
    """The dotted name, and it without its first parts; the last alone (`weight`) says nothing."""
    parts = name.split(".")
    for begin in range(len(parts) - 1):
        yield ".".join(parts[begin:])


def _matches(name: str, parameters: Mapping[str, list[str]]) -> list[str]:
    """The parameters whose name is this, else those of which one name ends with the other."""
    longer = parameters.get(name, [])
    if name in longer:
        return [name]
    shorter = [s for s in _suffixes(name) if s in parameters.get(s, [])]
    return [*longer, *shorter]


def _same_numbers(weight: torch.Tensor, stored: StoredTensor) -> bool:
    flat = weight.detach().reshape(-1)
    kind = np.float64 if stored.dtype.name == "F64" else np.float32
    raw = np.empty(BLOCK_ELEMENTS * stored.dtype.size, np.uint8)
    with opened(stored.file) as descriptor:
        for at in range(0, stored.elements, BLOCK_ELEMENTS):
            count = min(BLOCK_ELEMENTS, stored.elements - at)
            part = raw[: count * stored.dtype.size]
            read_into(descriptor, stored.start + at * stored.dtype.size, part, stored.file)
            values = np.empty(count, kind)
            decode(part, stored.dtype, values)
            rounded = torch.from_numpy(values).to(weight.dtype)
            if not torch.equal(rounded, flat[at : at + count].cpu()):
                return False
    return True
