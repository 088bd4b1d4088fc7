"""Which parameter of a loaded model is this tensor of its checkpoint?

Loaders rename, split, transpose and scale tensors on the way, so a name alone proves nothing: a
parameter is a stored tensor when one's dotted name ends with the other's (``h.0.attn…`` is stored
for ``transformer.h.0.attn…``), the shape is the same, and so is every number, rounded to the
model's own format.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from safeswap.checkpoint.reader import Tensor, read_copied
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS


@dataclass(frozen=True, slots=True)
class Matches:
    """What was found.

    Attributes:
        parameters: stored tensor → name of the parameter that holds it.
        unmatched: stored tensor → why no parameter does, in words.
    """

    parameters: Mapping[str, str]
    unmatched: Mapping[str, str]


def match_parameters(
    parameters: Mapping[str, torch.Tensor], tensors: Mapping[str, Tensor]
) -> Matches:
    """Find the parameter that holds each stored tensor; reads the tensors.

    Args:
        parameters: of the loaded model, by dotted name; several names may share one parameter.
        tensors: of the checkpoint that it was loaded from, by name.

    Raises:
        CheckpointError: a tensor cannot be read.
    """
    by_suffix = _by_suffix(parameters)
    found: dict[str, str] = {}
    unmatched: dict[str, str] = {}
    for name, tensor in tensors.items():
        alike = [n for n in _candidates(name, by_suffix) if parameters[n].shape == tensor.shape]
        places = {parameters[n].data_ptr() for n in alike}  # tied parameters have two names
        if len(places) != 1:
            many = "several parameters" if alike else "no parameter of this shape"
            unmatched[name] = f"{many} of the loaded model may hold it"
        elif not holds(parameters[alike[0]], tensor):
            unmatched[name] = f"the loaded model holds other numbers in {alike[0]}"
        else:
            found[name] = alike[0]
    return Matches(found, unmatched)


def holds(parameter: torch.Tensor, tensor: Tensor) -> bool:
    """Whether a parameter has the numbers of a stored tensor, rounded to the parameter's format.

    Raises:
        CheckpointError: the tensor cannot be read.
    """
    if tuple(parameter.shape) != tensor.shape or not tensor.dtype.mergeable:
        return False
    flat = parameter.detach().reshape(-1)
    kind = np.float64 if tensor.dtype.name == "F64" else np.float32
    with tensor.reader() as reader:
        for at in range(0, tensor.elements, BLOCK_ELEMENTS):
            end = min(at + BLOCK_ELEMENTS, tensor.elements)
            values = buffer("held", end - at, kind)
            read_copied(tensor, reader, at, end, values)
            rounded = torch.from_numpy(values).to(parameter.dtype)
            if not torch.equal(rounded, flat[at:end].cpu()):
                return False
    return True


def _candidates(name: str, by_suffix: Mapping[str, list[str]]) -> list[str]:
    """The parameters of which one name ends with the other's, those that differ least in length."""
    longer = by_suffix.get(name, [])
    shorter = [suffix for suffix in _suffixes(name) if suffix in by_suffix.get(suffix, [])]
    depth = name.count(".")
    apart = {found: abs(found.count(".") - depth) for found in (*longer, *shorter)}
    return [found for found in apart if apart[found] == min(apart.values())]


def _by_suffix(names: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for suffix in _suffixes(name):
            table[suffix].append(name)
    return table


def _suffixes(name: str) -> Iterator[str]:
    """The dotted name, and it without its first parts; the last alone (``weight``) says nothing."""
    parts = name.split(".")
    for begin in range(len(parts) - 1):
        yield ".".join(parts[begin:])
