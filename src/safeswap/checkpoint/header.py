"""The safetensors header: read strictly, built deterministically.

The format (safetensors README): 8 bytes little-endian length N, N bytes of JSON that map a tensor's
name to its dtype, shape and [begin, end) offsets into the rest, then the rest, without holes.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from operator import mul
from pathlib import Path
from typing import Any

import numpy as np

from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.inside import open_plain
from safeswap.checkpoint.stored import ByteRanges, StoredTensor
from safeswap.errors import CheckpointError, nearest
from safeswap.io.files import reading_remedy, refuse_pointer
from safeswap.io.jsonfile import MOST

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit on N; a larger number means that the file is something else."""


@dataclass(frozen=True, slots=True)
class Header:
    """A checked header: raw bytes (length prefix included), tensors in file order, metadata."""

    raw: bytes
    tensors: tuple[StoredTensor, ...]
    metadata: Mapping[str, str]


def read_header(path: Path, ranges: ByteRanges | None = None) -> Header:
    """Read and check the header of a safetensors file; the payload is not touched.

    Args:
        path: the file, or what one that does not lie here is called.
        ranges: the bytes of the latter.

    Raises:
        CheckpointError: the file cannot be opened, is cut off, or its header is not what the format
            allows (sizes that do not match shapes, overlapping or missing ranges, unknown dtypes).
    """
    where: Path | str = path if ranges is None else ranges.where
    prefix, body, size = _stored_header(path) if ranges is None else _ranged_header(ranges)
    entries = _parse(where, body)
    metadata = entries.pop("__metadata__", None)
    if metadata is None:  # some writers say null for none, and the format's own reader takes it
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(where, "its __metadata__ is not an object of strings")
    payload = 8 + len(body)
    place = (path, where, ranges)
    tensors = [_tensor(place, name, entry, payload) for name, entry in entries.items()]
    tensors.sort(key=lambda t: (t.start, t.nbytes))
    _check_cover(where, tensors, payload, size)
    return Header(prefix + body, tuple(tensors), metadata)


def _stored_header(path: Path) -> tuple[bytes, bytes, int]:
    """The length prefix, the header's JSON and the file's size."""
    refuse_pointer(path)
    try:
        with open_plain(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            return prefix, stream.read(_header_length(path, prefix, size)), size
    except OSError as error:
        todo = reading_remedy(error, _AGAIN)
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error


def _ranged_header(ranges: ByteRanges) -> tuple[bytes, bytes, int]:
    """The same of a remote file, in one request where the header is no longer than most are."""
    first = _read(ranges, 0, min(ranges.size, _FIRST))
    length = _header_length(ranges.where, first[:8], ranges.size)
    body = first[8 : 8 + length]
    if len(body) < length:
        body += _read(ranges, len(first), 8 + length)
    return first[:8], body, ranges.size


def _read(ranges: ByteRanges, begin: int, end: int) -> bytes:
    content = np.empty(end - begin, np.uint8)
    ranges.prefetch(begin, end - begin)
    ranges.read_into(begin, content)
    return content.tobytes()


_TOO_LARGE = 1 << 64
_FIRST = 1 << 16
"""Bytes of a remote file that are asked for at first."""
_AGAIN = "Check its permissions, or fetch the file again."


def _bad(path: Path | str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {what}. The file is damaged or is not safetensors; fetch it again."
    )


def _header_length(path: Path | str, prefix: bytes, size: int) -> int:
    if len(prefix) < 8:
        raise _bad(path, f"it has {size} bytes, too few for a safetensors header")
    length = int(struct.unpack("<Q", prefix)[0])
    if length > MAX_HEADER_BYTES:
        raise _bad(path, f"its header claims {length} bytes (the format allows {MAX_HEADER_BYTES})")
    if 8 + length > size:
        raise _bad(path, f"its header claims {length} bytes but the file has only {size}")
    return length


def _parse(path: Path | str, body: bytes) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            key.encode()  # half a surrogate pair is JSON, but no text: a ValueError
            if key in found:
                raise _bad(path, f"its header names {key!r} twice")
            found[key] = value
        return found

    if not body.startswith(b"{"):
        raise _bad(path, "its header is not a JSON object")
    if sum(map(body.count, (b",", b"[", b"{"))) > MOST:
        raise _bad(path, f"its header holds more than {MOST} values")
    try:
        entries: dict[str, Any] = json.loads(
            body.decode("utf-8"), object_pairs_hook=no_duplicates, parse_int=_natural
        )
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"its header is not JSON ({error})") from error
    return entries


def _natural(text: str) -> int:
    """The only numbers of a header are sizes; Python alone would take any number of digits."""
    value = int(text) if len(text) <= 20 else _TOO_LARGE
    if text.startswith("-") or value >= _TOO_LARGE:
        raise ValueError(f"{text[:24]} is no size")
    return value


def _tensor(
    place: tuple[Path, Path | str, ByteRanges | None], name: str, entry: Any, payload: int
) -> StoredTensor:
    """A tensor of a file, which is called and shown so, and whose bytes are there."""
    file, path, ranges = place
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _bad(path, f"tensor {name!r}: its entry must have dtype, shape and data_offsets")
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        known = nearest(str(entry["dtype"]), DTYPES).rstrip("?")
        raise _bad(path, f"tensor {name!r}: unknown dtype {entry['dtype']!r}{known}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise _bad(path, f"tensor {name!r}: shape {shape!r} or offsets {offsets!r} are not sizes")
    if any(size >= _TOO_LARGE for size in accumulate(shape, mul)):
        raise _bad(path, f"tensor {name!r}: shape {shape} is larger than any file")
    tensor = StoredTensor(name, file, dtype, tuple(shape), payload + offsets[0], ranges)
    claimed = offsets[1] - offsets[0]
    if tensor.elements * dtype.bits % 8 or claimed != tensor.nbytes:
        raise _bad(
            path,
            f"tensor {name!r}: offsets {offsets} hold {claimed} bytes, but shape {shape} "
            f"in {dtype} needs {tensor.nbytes}",
        )
    return tensor


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values
    )


def _check_cover(
    path: Path | str, tensors: Sequence[StoredTensor], payload: int, size: int
) -> None:
    position = payload
    for tensor in tensors:
        if tensor.start < position:
            raise _bad(path, f"tensor {tensor.name!r} overlaps the one before it")
        if tensor.start > position:
            raise _bad(
                path, f"{tensor.start - position} bytes before {tensor.name!r} belong to none"
            )
        position += tensor.nbytes
    if position > size:
        last = tensors[-1].name
        raise _bad(
            path, f"it is cut off: {position - size} bytes are missing, the last of {last!r}"
        )
    if position < size:
        raise _bad(path, f"it has {size - position} bytes after its last tensor")


def build_header(
    entries: Sequence[tuple[str, Dtype, tuple[int, ...]]], metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    """The header for tensors laid out one after another in the order given.

    Returns:
        The header's bytes (length prefix included, padded with spaces to 8 bytes as the format
        recommends) and the absolute start of every tensor's payload.
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    begins: dict[str, int] = {}
    position = 0
    for name, dtype, shape in entries:
        end = position + prod(shape) * dtype.bits // 8
        table[name] = {
            "dtype": dtype.name,
            "shape": list(shape),
            "data_offsets": [position, end],
        }
        begins[name] = position
        position = end
    body = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    body += b" " * (-len(body) % 8)
    header = struct.pack("<Q", len(body)) + body
    return header, {name: len(header) + begin for name, begin in begins.items()}
