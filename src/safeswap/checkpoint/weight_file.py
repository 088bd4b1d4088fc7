"""One file of weights as opened: what the operating system says of it, and its tensors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.inside import open_plain, refuse_leaving
from safeswap.checkpoint.reader import StoredTensor
from safeswap.checkpoint.torch_bin import read_torch_file
from safeswap.errors import CheckpointError
from safeswap.io.files import reading_remedy


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One shard: its path, what the operating system says of it, and its tensors in file order.

    ``header`` is the raw safetensors header, empty for a ``.bin`` file; of GGUF, whose header may
    hold a vocabulary, the BLAKE3 of it.
    """

    path: Path
    size: int
    mtime_ns: int
    header: bytes
    tensors: tuple[StoredTensor, ...]


def open_weight_file(path: Path) -> WeightFile:
    """Read the header of a file of weights; no weights are read.

    Raises:
        CheckpointError: it cannot be read, is damaged, or leads out of its folder.
    """
    refuse_leaving(path.parent, path)
    try:
        with open_plain(path) as stream:
            status = os.fstat(stream.fileno())
    except OSError as error:
        todo = reading_remedy(error, "Fetch the shard again or fix its permissions.")
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error
    if path.suffix == ".bin":
        header, tensors = b"", read_torch_file(path)
    else:
        checked = read_header(path)
        header, tensors = checked.raw, checked.tensors
    return WeightFile(path, status.st_size, status.st_mtime_ns, header, tensors)
