"""Output shards, laid out to the byte before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.header import build_header
from safeswap.checkpoint.model import SAFETENSORS_INDEX
from safeswap.checkpoint.reader import Sized
from safeswap.errors import ConfigError

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True)
class OutputTensor(Sized):
    """One tensor to write."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """One output file: its whole header, and the absolute start of each tensor's payload."""

    name: str
    header: bytes
    starts: Mapping[str, int]
    size: int


@dataclass(frozen=True)
class Layout:
    """All shards of an output; ``index`` is the index file's text, None for a single file."""

    shards: tuple[Shard, ...]
    place: Mapping[str, tuple[Shard, int]]
    index: str | None

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(shard.size for shard in self.shards)


def parse_size(text: str, option: str = "--shard-size") -> int:
    """Bytes of a size like ``5GB``, ``500MB`` or ``2GiB``.

    Args:
        option: what the size was given with, for the message.

    Raises:
        ConfigError: not such a size, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?I?B?)", text.strip().upper())
    unit = match[2] if match else ""
    if match is None or unit not in _UNITS or float(match[1]) <= 0:
        raise ConfigError(f"{option} {text!r} is not a size; write e.g. 5GB or 500MB.")
    return int(float(match[1]) * _UNITS[unit])


def group_by_size(tensors: Sequence[OutputTensor], limit: int) -> list[list[OutputTensor]]:
    """Fill shards in order up to ``limit`` bytes; a larger tensor gets one of its own."""
    groups: list[list[OutputTensor]] = []
    room = 0
    for tensor in tensors:
        if not groups or tensor.nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(tensor)
        room -= tensor.nbytes
    return groups


def lay_out(groups: Sequence[Sequence[OutputTensor]]) -> Layout:
    """Name the shards as transformers does and fix every offset.

    Within a shard wider formats come first, so that every payload is aligned to its own format.
    """
    names = ["model.safetensors"]
    if len(groups) > 1:
        names = [f"model-{n:05}-of-{len(groups):05}.safetensors" for n in range(1, len(groups) + 1)]
    shards = []
    place: dict[str, tuple[Shard, int]] = {}
    for name, group in zip(names, groups, strict=True):
        ordered = sorted(group, key=lambda tensor: -tensor.dtype.size)
        header, starts = build_header(
            [(t.name, t.dtype, t.shape) for t in ordered], {"format": "pt"}
        )
        shard = Shard(name, header, starts, len(header) + sum(t.nbytes for t in group))
        shards.append(shard)
        place |= {tensor.name: (shard, starts[tensor.name]) for tensor in group}
    return Layout(tuple(shards), place, _index(groups, place) if len(groups) > 1 else None)


def _index(groups: Sequence[Sequence[OutputTensor]], place: Mapping[str, tuple[Shard, int]]) -> str:
    every = [tensor for group in groups for tensor in group]
    content = {
        "metadata": {
            "total_parameters": sum(prod(tensor.shape) for tensor in every),
            "total_size": sum(tensor.nbytes for tensor in every),
        },
        "weight_map": {name: place[name][0].name for name in sorted(place)},
    }
    return json.dumps(content, indent=2) + "\n"


INDEX_NAME = SAFETENSORS_INDEX
