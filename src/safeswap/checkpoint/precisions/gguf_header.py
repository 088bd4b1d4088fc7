"""The header of a GGUF file, read strictly: nothing in it is believed before the file's size bears
it out.

The format (ggml's docs/gguf.md), little-endian: ``GGUF``, a version, the number of tensors and of
metadata; each metadatum as key, type, value; each tensor as name, dimensions (the fastest first),
type and offset; then, aligned, the payload. Lists and texts of the metadata may be long (a
vocabulary), and are walked over, not kept.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NoReturn

from blake3 import blake3

from safeswap.checkpoint.inside import open_plain
from safeswap.errors import CheckpointError
from safeswap.io.files import reading_remedy, refuse_pointer

MOST_TENSORS = 1 << 16
MOST_METADATA = 1 << 14
MOST_HEADER_BYTES = 1 << 28
"""What no model comes near; a vocabulary of 262,144 tokens with its merges takes 15 MB."""
_LONGEST_NAME = 256
_LONGEST_KEPT = 1024
_LONGEST_LIST = 4096
_DEEPEST = 4
_TOKENS = "tokenizer.ggml.tokens"
_MOST_TOKENS = 1 << 21
_WINDOW = 1 << 20
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}


@dataclass(frozen=True, slots=True)
class BlockType:
    """How numbers lie in a GGUF file: so many in a block of so many bytes."""

    id: int
    name: str
    elements: int
    nbytes: int


TYPES: dict[int, BlockType] = {
    kind.id: kind
    for kind in (
        BlockType(0, "F32", 1, 4),
        BlockType(1, "F16", 1, 2),
        BlockType(2, "Q4_0", 32, 18),
        BlockType(3, "Q4_1", 32, 20),
        BlockType(6, "Q5_0", 32, 22),
        BlockType(7, "Q5_1", 32, 24),
        BlockType(8, "Q8_0", 32, 34),
        BlockType(10, "Q2_K", 256, 84),
        BlockType(11, "Q3_K", 256, 110),
        BlockType(12, "Q4_K", 256, 144),
        BlockType(13, "Q5_K", 256, 176),
        BlockType(14, "Q6_K", 256, 210),
        BlockType(30, "BF16", 1, 2),
    )
}
"""The types that are read, by their number in the file."""
_OTHERS = {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S"}
_OTHERS |= {20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0"}
_OTHERS |= {35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 28: "F64", 24: "I8", 25: "I16", 26: "I32"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its name in the file, type, shape (rows first) and place in the file."""

    name: str
    kind: BlockType
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A checked header.

    Attributes:
        metadata: key → number, short text, short list of numbers, or for all that is longer the
            number of its elements (`Long`).
        digest: BLAKE3 of all bytes before the payload.
    """

    path: Path
    size: int
    mtime_ns: int
    metadata: Mapping[str, Any]
    tensors: tuple[Entry, ...]
    digest: bytes


@dataclass(frozen=True, slots=True)
class Long:
    """A text or list that is not kept: how long it is."""

    count: int


def read_gguf(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file; the payload is not touched.

    Raises:
        CheckpointError: the file cannot be opened, is cut off, or its header is not what the format
            allows: counts, lengths and offsets that the file has no room for, types that are not
            read, tensors that overlap.
    """
    refuse_pointer(path)
    try:
        with open_plain(path) as stream:
            status = os.fstat(stream.fileno())
            cursor = _Cursor(path, stream, status.st_size)
            metadata, count = _metadata(cursor)
            entries = [_entry(cursor) for _ in range(count)]
            first = _aligned(cursor, metadata)
            digest = cursor.digest(min(first, status.st_size))
    except OSError as error:
        todo = reading_remedy(error, "Check its permissions, or fetch the file again.")
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error
    tensors = _placed(cursor, entries, first, metadata)
    return GgufHeader(path, status.st_size, status.st_mtime_ns, metadata, tensors, digest)


def read_tokens(path: Path) -> list[str]:
    """The texts of a file's vocabulary, by id; none where it has no list of them, or one that no
    model comes near.

    Raises:
        CheckpointError: as `read_gguf`.
    """
    found: list[str] = []
    try:
        with open_plain(path) as stream:
            cursor = _Cursor(path, stream, os.fstat(stream.fileno()).st_size)
            _metadata(cursor, found)
    except OSError as error:
        todo = reading_remedy(error, "Check its permissions, or fetch the file again.")
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). {todo}") from error
    return found


class _Cursor:
    """Reads forward through a file, in windows; what the file has no room for is refused first."""

    def __init__(self, path: Path, stream: Any, size: int) -> None:
        self.path, self.size, self.at = path, size, 0
        self._stream = stream
        self._window, self._base = b"", 0

    def bad(self, what: str) -> NoReturn:
        raise CheckpointError(
            f"{self.path}: {what}. The file is damaged or is not GGUF; fetch it again."
        )

    def need(self, nbytes: int, what: str) -> None:
        """Refuse what reaches past the end of the file, or past what a header may have."""
        end = self.at + nbytes
        if end > self.size:
            self.bad(f"{what} at byte {self.at} needs {nbytes} bytes, the file ends at {self.size}")
        if end > MOST_HEADER_BYTES:
            self.bad(f"its header is larger than {MOST_HEADER_BYTES} bytes")

    def take(self, nbytes: int, what: str) -> bytes:
        self.need(nbytes, what)
        inside = self.at - self._base
        if inside < 0 or inside + nbytes > len(self._window):
            self._stream.seek(self.at)
            self._window = self._stream.read(max(nbytes, _WINDOW))
            self._base, inside = self.at, 0
            if len(self._window) < nbytes:
                self.bad(f"it ends in {what}")
        self.at += nbytes
        return self._window[inside : inside + nbytes]

    def skip(self, nbytes: int, what: str) -> None:
        self.need(nbytes, what)
        self.at += nbytes

    def number(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def text(self, longest: int, what: str) -> str:
        length = self.number("Q", what)
        if length > longest:
            self.bad(f"{what} at byte {self.at} claims {length} bytes, no name has")
        raw = self.take(length, what)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            self.bad(f"{what} at byte {self.at} is no UTF-8")

    def digest(self, end: int) -> bytes:
        """BLAKE3 of the bytes before ``end``."""
        hashing = blake3()
        self._stream.seek(0)
        while end > 0:
            piece = self._stream.read(min(end, _WINDOW))
            if not piece:
                break
            hashing.update(piece)
            end -= len(piece)
        return hashing.digest()


def _metadata(cursor: _Cursor, tokens: list[str] | None = None) -> tuple[dict[str, Any], int]:
    """The metadata, and the number of tensors; ``tokens`` takes the vocabulary, where asked for."""
    if cursor.size < 4 or cursor.take(4, "its mark") != b"GGUF":
        cursor.bad("it does not begin with GGUF")
    version = cursor.number("I", "its version")
    if version not in _VERSIONS:
        swapped = version & 0xFFFF == 0
        kind = "big-endian" if swapped else f"GGUF of version {version}"
        raise CheckpointError(
            f"{cursor.path}: is {kind}; versions 2 and 3, little-endian, are read. Use a file "
            "that is made anew with llama.cpp's convert_hf_to_gguf.py."
        )
    tensors = cursor.number("Q", "the number of tensors")
    entries = cursor.number("Q", "the number of metadata")
    for count, most, least, what in (
        (tensors, MOST_TENSORS, 24, "tensors"),
        (entries, MOST_METADATA, 13, "metadata"),
    ):
        if count > most or count * least > cursor.size:
            cursor.bad(f"it claims {count} {what} in {cursor.size} bytes")
    found: dict[str, Any] = {}
    for _ in range(entries):
        key = cursor.text(_LONGEST_NAME, "a key of its metadata")
        if key in found:
            cursor.bad(f"its metadata give {key!r} twice")
        kept = tokens if key == _TOKENS else None
        found[key] = _value(cursor, cursor.number("I", f"the type of {key!r}"), key, kept=kept)
    return found, tensors


def _value(
    cursor: _Cursor, kind: int, key: str, depth: int = 0, kept: list[str] | None = None
) -> Any:
    if kind in _SCALARS:
        return cursor.number(_SCALARS[kind], repr(key))
    if kind == _STRING:
        length = cursor.number("Q", repr(key))
        if length > _LONGEST_KEPT:
            cursor.skip(length, repr(key))
            return Long(length)
        return cursor.take(length, repr(key)).decode("utf-8", "replace")
    if kind != _ARRAY or depth >= _DEEPEST:
        cursor.bad(f"{key!r} has type {kind}{' inside lists' if depth else ''}")
    inner, count = cursor.number("I", repr(key)), cursor.number("Q", repr(key))
    if inner in _SCALARS:
        width = struct.calcsize(f"<{_SCALARS[inner]}")
        cursor.need(count * width, f"the list {key!r}")
        if count > _LONGEST_LIST:
            cursor.skip(count * width, f"the list {key!r}")
            return Long(count)
        raw = cursor.take(count * width, f"the list {key!r}")
        return list(struct.unpack(f"<{count}{_SCALARS[inner]}", raw))
    cursor.need(count * 8, f"the list {key!r}")
    for _ in range(count):
        if inner == _STRING and kept is not None and count <= _MOST_TOKENS:
            length = cursor.number("Q", repr(key))
            raw = cursor.take(length, f"a text of {key!r}") if length <= _LONGEST_KEPT else b""
            cursor.skip(0 if raw else length, f"a text of {key!r}")
            kept.append(raw.decode("utf-8", "replace"))
        elif inner == _STRING:
            cursor.skip(cursor.number("Q", repr(key)), f"a text of {key!r}")
        else:
            _value(cursor, inner, key, depth + 1)
    return Long(count)


def _entry(cursor: _Cursor) -> tuple[str, int, tuple[int, ...], int]:
    """Name, type, shape (rows first) and offset."""
    name = cursor.text(_LONGEST_NAME, "a tensor's name")
    count = cursor.number("I", f"the dimensions of {name!r}")
    if not 1 <= count <= 4:
        cursor.bad(f"tensor {name!r} has {count} dimensions")
    sides = struct.unpack(f"<{count}Q", cursor.take(8 * count, f"the shape of {name!r}"))
    kind = cursor.number("I", f"the type of {name!r}")
    return name, kind, sides[::-1], cursor.number("Q", f"the offset of {name!r}")


def _alignment(cursor: _Cursor, metadata: Mapping[str, Any]) -> int:
    step = metadata.get("general.alignment", 32)
    if type(step) is not int or not 1 <= step <= 1 << 20 or step & (step - 1):
        cursor.bad(f"general.alignment is {step!r}, no power of two")
    return int(step)


def _aligned(cursor: _Cursor, metadata: Mapping[str, Any]) -> int:
    step = _alignment(cursor, metadata)
    return -(-cursor.at // step) * step


def _placed(
    cursor: _Cursor,
    entries: list[tuple[str, int, tuple[int, ...], int]],
    first: int,
    metadata: Mapping[str, Any],
) -> tuple[Entry, ...]:
    """The tensors in file order, each checked to lie in the file, and alone."""
    step = _alignment(cursor, metadata)
    found: dict[str, Entry] = {}
    for name, number, shape, offset in entries:
        kind = TYPES.get(number)
        if kind is None:
            raise CheckpointError(
                f"{cursor.path}: tensor {name!r} is of type {_OTHERS.get(number, number)}, which "
                f"is not read; {', '.join(k.name for k in TYPES.values())} are. Use a file of one "
                "of these, or the transformers checkpoint that it was made from."
            )
        if name in found:
            cursor.bad(f"it names {name!r} twice")
        if any(not 1 <= side < 1 << 40 for side in shape) or prod(shape) >= 1 << 48:
            cursor.bad(f"tensor {name!r}: shape {list(shape)} is larger than any file, or empty")
        if shape[-1] % kind.elements or offset % step:
            cursor.bad(
                f"tensor {name!r}: rows of {shape[-1]} in {kind.name}, or its offset {offset}, are "
                "no whole blocks"
            )
        nbytes = prod(shape) // kind.elements * kind.nbytes
        if first + offset + nbytes > cursor.size:
            cursor.bad(
                f"tensor {name!r} ends at byte {first + offset + nbytes}, the file at {cursor.size}"
            )
        found[name] = Entry(name, kind, shape, first + offset, nbytes)
    placed = sorted(found.values(), key=lambda entry: entry.start)
    for before, after in pairwise(placed):
        if before.start + before.nbytes > after.start:
            cursor.bad(f"tensor {after.name!r} overlaps {before.name!r}")
    return tuple(placed)
