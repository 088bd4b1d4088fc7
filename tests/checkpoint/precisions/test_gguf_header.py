"""GGUF headers that lie: refused in words, before memory is set aside for what they claim."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from gguf_bytes import ARCHITECTURE, entry, file_of, pair, text
from safeswap.checkpoint.precisions.gguf_header import Long, read_gguf
from tiny import refused


def test_a_header_by_hand(tmp_path: Path) -> None:
    pairs = (
        ARCHITECTURE,
        pair("llama.block_count", 4, struct.pack("<I", 7)),
        pair("a.float", 6, struct.pack("<f", 0.5)),
        pair("a.flag", 7, b"\1"),
        pair("a.list", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3)),
        pair("a.texts", 9, struct.pack("<IQ", 8, 2) + text("x") + text("yy")),
        pair("a.lists", 9, struct.pack("<IQIQHIQ", 9, 2, 2, 1, 9, 2, 0)),
        pair("a.long", 8, text("z" * 5000)),
    )
    file = tmp_path / "x.gguf"
    entries = (entry("b", (2, 4), 0, 32), entry("a", (4,), 1, 0), entry("c", (1, 32), 2, 64))
    file.write_bytes(file_of(pairs, entries, 96))
    header = read_gguf(file)
    assert header.metadata == {
        "general.architecture": "llama",
        "llama.block_count": 7,
        "a.float": 0.5,
        "a.flag": True,
        "a.list": [1, -2, 3],
        "a.texts": Long(2),
        "a.lists": Long(2),
        "a.long": Long(5000),
    }
    begin = file.stat().st_size - 96
    found = [(t.name, t.kind.name, t.shape, t.start - begin, t.nbytes) for t in header.tensors]
    assert found == [
        ("a", "F16", (4,), 0, 8),
        ("b", "F32", (2, 4), 32, 32),
        ("c", "Q4_0", (1, 32), 64, 18),
    ]


HUGE = (1 << 64) - 1
LIES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("does not begin with GGUF",)),
    "mark": (file_of(mark=b"GGML"), ("does not begin with GGUF",)),
    "version": (file_of(version=1), ("version 1", "2 and 3")),
    "big-endian": (file_of(version=3 << 24), ("big-endian",)),
    "tensors": (file_of(counts=(HUGE, 1)), ("claims", "tensors")),
    "few tensors too many": (file_of(counts=(3, 1)), ("0 dimensions",)),
    "metadata": (file_of(counts=(0, 1 << 60)), ("claims", "metadata")),
    "key": (file_of((struct.pack("<Q", HUGE) + b"x",)), ("claims", "no name has")),
    "key of a megabyte": (
        file_of((text("k" * 2_000_000) + struct.pack("<IB", 0, 1),)),
        ("no name has",),
    ),
    "text": (file_of((pair("k", 8, struct.pack("<Q", HUGE)),)), ("'k'", "the file ends")),
    "kind": (file_of((pair("k", 77, b""),)), ("'k' has type 77",)),
    "list": (
        file_of((pair("k", 9, struct.pack("<IQ", 0, HUGE)),)),
        ("the list 'k'", "the file ends"),
    ),
    "list of texts": (
        file_of((pair("k", 9, struct.pack("<IQ", 8, 1 << 61)),)),
        ("the list 'k'", "the file ends"),
    ),
    "lists in lists": (
        file_of((pair("k", 9, struct.pack("<IQ", 9, 1) * 40),), payload=4096),
        ("inside lists",),
    ),
    "key twice": (file_of((ARCHITECTURE, ARCHITECTURE)), ("twice", "general.architecture")),
    "name": (
        file_of(entries=(struct.pack("<Q", HUGE) + bytes(40),)),
        ("a tensor's name", "no name has"),
    ),
    "name twice": (file_of(entries=(entry("a", (4,)), entry("a", (4,), 0, 32))), ("'a' twice",)),
    "no text": (file_of(entries=(text("ab").replace(b"ab", b"\xff\xfe") + bytes(40),)), ("UTF-8",)),
    "dimensions": (
        file_of(entries=(text("a") + struct.pack("<I", HUGE & 0xFFFFFFFF) + bytes(40),)),
        ("dimensions",),
    ),
    "shape": (file_of(entries=(entry("a", (1 << 63, 4)),)), ("larger than any file",)),
    "shape whose product is small": (
        file_of(entries=(entry("a", (1 << 39, 1 << 39)),)),
        ("larger than any file",),
    ),
    "no side": (file_of(entries=(entry("a", (0, 4)),)), ("empty",)),
    "type": (file_of(entries=(entry("a", (4,), 23),)), ("IQ4_XS", "not read")),
    "type of tomorrow": (file_of(entries=(entry("a", (4,), 99),)), ("99", "not read")),
    "part of a block": (file_of(entries=(entry("a", (2, 33), 2),)), ("no whole blocks",)),
    "offset": (file_of(entries=(entry("a", (4,), 0, 1 << 62),)), ("ends at byte",)),
    "offset between": (file_of(entries=(entry("a", (4,), 0, 8),)), ("no whole blocks",)),
    "cut": (file_of(entries=(entry("a", (4, 8)),), payload=100), ("ends at byte",)),
    "overlap": (
        file_of(entries=(entry("a", (4, 4)), entry("b", (4,), 0, 32))),
        ("'b' overlaps 'a'",),
    ),
    "alignment": (
        file_of((pair("general.alignment", 4, struct.pack("<I", 0)),)),
        ("general.alignment",),
    ),
    "alignment of 3": (
        file_of((pair("general.alignment", 4, struct.pack("<I", 48)),)),
        ("general.alignment",),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_refused_and_costs_no_memory(tmp_path: Path, lie: str) -> None:
    content, words = LIES[lie]
    file = tmp_path / "x.gguf"
    file.write_bytes(content)

    def read() -> Any:
        return read_gguf(file)

    tracemalloc.start()
    refused(read, str(file), *words)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("cut", range(0, 200, 3))
def test_cut_anywhere(tmp_path: Path, cut: int) -> None:
    whole = file_of(entries=(entry("a", (4, 4)), entry("b", (4,), 0, 64)), payload=80)
    file = tmp_path / "x.gguf"
    file.write_bytes(whole)
    assert len(read_gguf(file).tensors) == 2
    file.write_bytes(whole[: min(cut, len(whole) - 1)])
    refused(lambda: read_gguf(file), str(file))
