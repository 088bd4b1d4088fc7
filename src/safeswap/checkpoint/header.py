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

from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.inside import open_plain
from safeswap.checkpoint.reader import StoredTensor
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


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file; the payload is not touched.

    Raises:
        CheckpointError: the file cannot be opened, is cut off, or its header is not what the format
            allows (sizes that do not match shapes, overlapping or missing ranges, unknown dtypes).
    """
    refuse_pointer(path)
    try:
        with open_plain(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            length = _header_length(path, prefix, size)
            body = stream.read(length)
    except OSError as error:
        todo = reading_remedy(error, _AGAIN)
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error
    entries = _parse(path, body)
    metadata = entries.pop("__metadata__", None)
    if metadata is None:  # some writers say null for none, and the format's own reader takes it
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _bad(path, "its __metadata__ is not an object of strings")
    tensors = [_tensor(path, name, entry, 8 + length) for name, entry in entries.items()]
    tensors.sort(key=lambda t: (t.start, t.nbytes))
    _check_cover(path, tensors, 8 + length, size)
    return Header(prefix + body, tuple(tensors), metadata)


_TOO_LARGE = 1 << 64
_AGAIN = "Check its permissions, or fetch the file again."


def _bad(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {what}. The file is damaged or is not safetensors; fetch it again."
    )


def _header_length(path: Path, prefix: bytes, size: int) -> int:
    if len(prefix) < 8:
        raise _bad(path, f"it has {size} bytes, too few for a safetensors header")
    length = int(struct.unpack("<Q", prefix)[0])
    if length > MAX_HEADER_BYTES:
        raise _bad(path, f"its header claims {length} bytes (the format allows {MAX_HEADER_BYTES})")
    if 8 + length > size:
        raise _bad(path, f"its header claims {length} bytes but the file has only {size}")
    return length


def _parse(path: Path, body: bytes) -> dict[str, Any]:
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


def _tensor(path: Path, name: str, entry: Any, payload: int) -> StoredTensor:
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
    tensor = StoredTensor(name, path, dtype, tuple(shape), payload + offsets[0])
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


def _check_cover(path: Path, tensors: Sequence[StoredTensor], payload: int, size: int) -> None:
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
