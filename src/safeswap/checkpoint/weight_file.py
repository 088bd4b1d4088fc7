"""One file of weights as opened: what the operating system says of it, and its tensors."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.inside import open_plain, refuse_leaving
from safeswap.checkpoint.source import Source, known_sha256
from safeswap.checkpoint.stored import ByteRanges, StoredTensor
from safeswap.checkpoint.torch_bin import read_torch_file
from safeswap.errors import CheckpointError
from safeswap.io.files import reading_remedy


@dataclass(frozen=True, slots=True)
class WeightFile:
    """One shard: its path, what the operating system says of it, and its tensors in file order.

    ``header`` is the raw safetensors header, empty for a ``.bin`` file; of GGUF, whose header may
    hold a vocabulary, the BLAKE3 of it. ``ranges`` gives the bytes of one that does not lie here;
    its ``path`` then only names it.
    """

    path: Path
    size: int
    mtime_ns: int
    header: bytes
    tensors: tuple[StoredTensor, ...]
    ranges: ByteRanges | None = None

    @property
    def version(self) -> str | None:
        """What a remote file's store says of its content; None of a file that lies here."""
        return None if self.ranges is None else self.ranges.version

    @property
    def sha256(self) -> str | None:
        """Its SHA-256 (hex), where a hub or its cache names it."""
        return known_sha256(self.path) if self.ranges is None else self.ranges.sha256


def open_file(source: Source, path: Path) -> WeightFile:
    """A checkpoint's file of weights, wherever it lies.

    Raises:
        CheckpointError: as `open_weight_file`.
    """
    return open_weight_file(path, source.remote.get(path.name))


def open_weight_file(path: Path, ranges: ByteRanges | None = None) -> WeightFile:
    """Read the header of a file of weights; no weights are read.

    Args:
        ranges: the bytes of one that does not lie here.

    Raises:
        CheckpointError: it cannot be read, is damaged, or leads out of its folder.
    """
    if ranges is not None:
        remote = read_header(path, ranges)
        return WeightFile(path, ranges.size, 0, remote.raw, remote.tensors, ranges)
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
