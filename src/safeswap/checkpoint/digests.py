"""Digests that do not depend on sharding or on how many threads made them.

- a chunk: BLAKE3 of the bytes of up to 4 Mi elements (:data:`safeswap.io.workers.CHUNK_ELEMENTS`);
- a tensor: BLAKE3 of its chunks' digests, one after another;
- a safetensors file: BLAKE3 of its raw header, then its tensors' digests in file order;
- a checkpoint: BLAKE3 of one line ``name dtype shape digest`` per tensor, sorted by name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from blake3 import blake3

from safeswap.checkpoint.inside import open_plain
from safeswap.checkpoint.reader import Tensor, read_bytes
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of


def of_chunks(chunks: Iterable[bytes]) -> str:
    """The digest (hex) of a tensor from its chunks' digests, in order."""
    return blake3(b"".join(chunks)).hexdigest()


def of_tensor(tensor: Tensor) -> str:
    """The digest (hex) of a tensor, read here and now by one thread.

    Raises:
        CheckpointError: a file ends early or the disk fails.
    """
    size = tensor.dtype.size
    raw = np.empty(min(BLOCK_ELEMENTS, tensor.elements) * size, np.uint8)
    values = np.empty(len(raw) // size, np.float64)
    chunks = []
    with tensor.reader() as reader:
        for begin, end in chunks_of(tensor.elements):
            hashing = blake3()
            for at in range(begin, end, BLOCK_ELEMENTS):
                count = min(BLOCK_ELEMENTS, end - at)
                read_bytes(tensor, reader, at, at + count, raw[: count * size], values[:count])
                hashing.update(raw[: count * size].data)
            chunks.append(hashing.digest())
    return of_chunks(chunks)


def of_weight_file(header: bytes, tensors: Iterable[Tensor], digests: Mapping[str, str]) -> str:
    """The digest (hex) of a weight file from its header and its tensors' digests."""
    parts = [bytes.fromhex(digests[tensor.name]) for tensor in tensors]
    return blake3(header + b"".join(parts)).hexdigest()


def of_checkpoint(tensors: Mapping[str, Tensor], digests: Mapping[str, str]) -> str:
    """The digest (hex) of a checkpoint's weights, whatever their sharding."""
    lines = (
        f"{name} {tensors[name].dtype} {list(tensors[name].shape)} {digests[name]}\n"
        for name in sorted(tensors)
    )
    return blake3("".join(lines).encode()).hexdigest()


def of_small_file(path: Path) -> str:
    """SHA-256 (hex) of a whole file, as ``sha256sum`` prints it; read in blocks, for what lies in a
    checkpoint's folder besides its weights need not be small.

    Raises:
        OSError: as the system says.
        CheckpointError: it is a pipe or device.
    """
    with open_plain(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
