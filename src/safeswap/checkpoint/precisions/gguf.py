"""A GGUF file as a checkpoint's tensors, and what it says of its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safeswap.checkpoint.dtypes import Dtype
from safeswap.checkpoint.precisions.gguf_header import Entry, GgufHeader, read_gguf
from safeswap.checkpoint.precisions.gguf_names import ARCHITECTURES, POSITIONS, Architecture
from safeswap.checkpoint.precisions.gguf_tensor import GgufTensor, require_gguf
from safeswap.checkpoint.stored import StoredTensor
from safeswap.errors import CheckpointError, listed, nearest

_SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
_KEYS = {
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": "norm_epsilon",
    "rope.freq_base": "rope_theta",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
}
"""What a file says of a model → what config.json calls it."""


@dataclass(frozen=True, slots=True)
class GgufFacts:
    """What a GGUF file says of its model.

    Attributes:
        architecture: as llama.cpp calls it.
        models: the ``model_type`` that it may be.
        config: key of config.json → value.
    """

    architecture: str
    models: tuple[str, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A model in one or several GGUF files.

    Attributes:
        headers: the files.
        stored: for each file its tensors as bytes, in file order.
        tensors: name in transformers → tensor.
        aside: stored name → why it is no weight.
    """

    headers: tuple[GgufHeader, ...]
    stored: tuple[tuple[StoredTensor, ...], ...]
    tensors: Mapping[str, GgufTensor]
    aside: Mapping[str, str]
    facts: GgufFacts


def gguf_files(folder: Path, file: Path | None, others: bool) -> list[Path]:
    """The GGUF files that are a checkpoint's weights; none where its weights are something else.

    Args:
        file: the one that was named, where one was.
        others: the folder holds weights of transformers, which go first.

    Raises:
        CheckpointError: there are several models in the folder, or a part of one is missing.
    """
    found = [file] if file else []
    if not found and not others:
        found = [p for p in sorted(folder.glob("*.gguf")) if not p.name.startswith("mmproj")]
    if not found:
        return []
    match = _SPLIT.fullmatch(found[0].name)
    if match is None:
        if len(found) > 1:
            raise CheckpointError(
                f"{folder}: holds {len(found)} GGUF files ({listed(p.name for p in found)}). Give "
                "the one that is meant, by its own path."
            )
        return found
    stem, _, count = match.groups()
    parts = [folder / f"{stem}-{n:05}-of-{count}.gguf" for n in range(1, int(count) + 1)]
    if strangers := [p.name for p in found if p not in parts]:
        raise CheckpointError(
            f"{folder}: holds several models in GGUF ({found[0].name}, {listed(strangers)}). Give "
            "the first file of the one that is meant, by its own path."
        )
    if missing := [p.name for p in parts if not p.exists()]:
        raise CheckpointError(f"{folder}: lacks {listed(missing)}. Fetch all parts of the model.")
    return parts


def open_gguf(paths: Sequence[Path]) -> GgufModel:
    """Read the headers of a model's GGUF files and place their tensors; reads no weights.

    Raises:
        CheckpointError: a damaged header, an architecture whose names are not known, a tensor that
            it does not have, the package ``gguf`` missing where blocks need it.
    """
    headers = tuple(map(read_gguf, paths))
    first = headers[0]
    name = first.metadata.get("general.architecture")
    architecture = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if architecture is None:
        raise CheckpointError(
            f"{first.path}: is of the architecture {str(name)[:40]!r}, whose tensors are not known"
            f"{nearest(str(name)[:40], ARCHITECTURES).rstrip('?')}. Use the transformers "
            "checkpoint that it was made from."
        )
    assert isinstance(name, str)
    require_gguf(first.path, {entry.kind.name for one in headers for entry in one.tensors})
    facts = _facts(name, architecture, headers)
    tensors: dict[str, GgufTensor] = {}
    aside: dict[str, str] = {}
    stored = []
    for header in headers:
        stored.append(tuple(_bytes_of(header, entry) for entry in header.tensors))
        for entry, one in zip(header.tensors, stored[-1], strict=True):
            if POSITIONS.fullmatch(entry.name):
                aside[entry.name] = "a table of positions, which loaders make from config.json"
                continue
            for tensor in _placed(architecture, facts, entry, one):
                if tensor.name in tensors:
                    raise CheckpointError(
                        f"{header.path}: holds {entry.name!r} a second time. Fetch the files again."
                    )
                tensors[tensor.name] = tensor
    return GgufModel(headers, tuple(stored), tensors, aside, facts)


def _bytes_of(header: GgufHeader, entry: Entry) -> StoredTensor:
    dtype = Dtype(entry.kind.name, 8, np.dtype(np.uint8))
    return StoredTensor(entry.name, header.path, dtype, (entry.nbytes,), entry.start)


def _placed(
    architecture: Architecture, facts: GgufFacts, entry: Entry, stored: StoredTensor
) -> Iterator[GgufTensor]:
    """The tensors of transformers that a stored one is: one, or one for each expert."""
    name = architecture.name(entry.name)
    if not name:
        raise CheckpointError(
            f"{stored.where}: tensor {entry.name!r} is none that {facts.architecture} is known to "
            "have. Use the transformers checkpoint that the file was made from."
        )
    if "{}" in name:
        experts, *shape = entry.shape
        size = int(np.prod(shape, dtype=np.int64))
        if len(shape) != 2 or experts > 4096:
            raise CheckpointError(
                f"{stored.where}: tensor {entry.name!r} of shape {list(entry.shape)} holds no "
                "matrices of experts. Fetch the file again."
            )
        for expert in range(experts):
            yield GgufTensor(
                name.format(expert), stored, entry.kind, tuple(shape), begin=expert * size
            )
        return
    shape_, heads = entry.shape, 0
    if architecture.halves and ".self_attn.q_proj." in name:
        heads = _heads(facts, entry, stored, "num_attention_heads")
    elif architecture.halves and ".self_attn.k_proj." in name:
        heads = _heads(facts, entry, stored, "num_key_value_heads")
    if name.endswith("shared_expert_gate.weight") and len(shape_) == 1:
        shape_ = (1, *shape_)
    added = architecture.added if name.endswith("norm.weight") else 0.0
    yield GgufTensor(name, stored, entry.kind, shape_, heads=heads, added=added)


def _heads(facts: GgufFacts, entry: Entry, stored: StoredTensor, key: str) -> int:
    """How many heads a tensor's rows are of."""
    heads = facts.config.get(key, facts.config.get("num_attention_heads"))
    rows = entry.shape[0]
    if type(heads) is not int or heads < 1 or rows % heads or rows // heads % 2:
        raise CheckpointError(
            f"{stored.where}: tensor {entry.name!r} has {rows} rows, which are no {heads!r} heads "
            f"({facts.architecture}.attention.head_count). Fetch the file again."
        )
    return heads


def _facts(name: str, architecture: Architecture, headers: Sequence[GgufHeader]) -> GgufFacts:
    metadata = headers[0].metadata
    said: dict[str, Any] = {}
    for stored, key in _KEYS.items():
        value = metadata.get(f"{name}.{stored}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue  # a list has one for each layer
        said[key] = float(str(np.float32(value))) if isinstance(value, float) else value
    shapes = {entry.name: entry.shape for header in headers for entry in header.tensors}
    if "token_embd.weight" in shapes:
        said["vocab_size"] = shapes["token_embd.weight"][0]
    if not said.get("num_experts"):
        said = {key: value for key, value in said.items() if "experts" not in key}
    said["tie_word_embeddings"] = "output.weight" not in shapes
    return GgufFacts(name, architecture.models, said)
