"""The safetensors header: what is read, what is refused, against the safetensors library."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.header import build_header, read_header
from safeswap.errors import CheckpointError
from tiny import refused, safetensors_bytes

A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}
PAYLOAD = bytes(16)


def test_a_good_header_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"x": np.arange(6, dtype=np.float32).reshape(2, 3)}, file, metadata={"k": "v"})
    header = read_header(file)
    (tensor,) = header.tensors
    assert (tensor.name, tensor.shape, tensor.dtype.name) == ("x", (2, 3), "F32")
    content = file.read_bytes()
    assert content[tensor.start :] == np.arange(6, dtype=np.float32).tobytes()
    assert header.raw == content[: tensor.start]
    assert header.metadata == {"k": "v"}


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_file({"s": np.array(3, np.float32), "e": np.empty((0, 4), np.float16)}, file)
    assert {t.name: t.nbytes for t in read_header(file).tensors} == {"s": 4, "e": 0}


BAD: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("0 bytes",)),
    "short-prefix": (b"\x01\x02", ("2 bytes",)),
    "huge-length": (safetensors_bytes({}, length=1 << 60), ("claims", "allows")),
    "length-beyond-file": (safetensors_bytes({"a": A}, length=4000), ("claims 4000", "only")),
    "not-json": (safetensors_bytes(b"{nope"), ("not JSON",)),
    "not-utf8": (safetensors_bytes(b'{"\xff": 1}'), ("not JSON",)),
    "not-an-object": (safetensors_bytes(b"[1, 2]"), ("not a JSON object",)),
    "space-before": (safetensors_bytes(b' {"a": 1}'), ("not a JSON object",)),
    "deep": (safetensors_bytes(b'{"a":' + b"[" * 100_000), ("not JSON",)),
    "many-digits": (
        safetensors_bytes(b'{"a":{"dtype":"F32","shape":[' + b"9" * 9000 + b"]}}"),
        ("no size",),
    ),
    "half-a-surrogate": (safetensors_bytes(b'{"\\ud800": {}}'), ("not JSON",)),
    "metadata-no-object": (safetensors_bytes({"__metadata__": [1]}), ("__metadata__",)),
    "metadata-no-string": (safetensors_bytes({"__metadata__": {"a": 1}}), ("__metadata__",)),
    "duplicate-key": (
        safetensors_bytes(
            b'{"a":' + json.dumps(A).encode() + b',"a":' + json.dumps(B).encode() + b"}", PAYLOAD
        ),
        ("'a' twice",),
    ),
    "entry-no-object": (safetensors_bytes({"a": 7}), ("'a'", "dtype, shape")),
    "entry-lacks-offsets": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": [1]}}),
        ("'a'", "data_offsets"),
    ),
    "entry-unknown-key": (safetensors_bytes({"a": A | {"stride": 1}}, bytes(8)), ("'a'",)),
    "unknown-dtype": (
        safetensors_bytes({"a": A | {"dtype": "BF61"}}, bytes(8)),
        ("'a'", "did you mean 'BF16'"),
    ),
    "dtype-no-string": (safetensors_bytes({"a": A | {"dtype": [1]}}, bytes(8)), ("'a'", "dtype")),
    "negative-shape": (safetensors_bytes({"a": A | {"shape": [-2]}}, bytes(8)), ("no size",)),
    "fractional-shape": (safetensors_bytes({"a": A | {"shape": [2.0]}}, bytes(8)), ("'a'",)),
    "boolean-shape": (safetensors_bytes({"a": A | {"shape": [True, 2]}}, bytes(8)), ("'a'",)),
    "overflowing-shape": (
        safetensors_bytes(
            {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40, 0], "data_offsets": [0, 0]}}
        ),
        ("'a'", "larger"),
    ),
    "three-offsets": (
        safetensors_bytes({"a": A | {"data_offsets": [0, 8, 8]}}, bytes(8)),
        ("'a'", "not sizes"),
    ),
    "size-lie": (
        safetensors_bytes({"a": A | {"shape": [3]}}, bytes(8)),
        ("'a'", "hold 8 bytes", "needs 12"),
    ),
    "reversed-offsets": (
        safetensors_bytes({"a": A | {"data_offsets": [8, 0]}}, bytes(8)),
        ("'a'", "needs 8"),
    ),
    "half-byte": (
        safetensors_bytes({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"x"),
        ("'a'",),
    ),
    "overlap": (
        safetensors_bytes({"a": A, "b": B | {"data_offsets": [4, 12]}}, bytes(12)),
        ("'b' overlaps",),
    ),
    "hole": (
        safetensors_bytes({"a": A, "b": B | {"data_offsets": [12, 20]}}, bytes(20)),
        ("4 bytes before 'b'",),
    ),
    "hole-at-the-start": (
        safetensors_bytes({"a": A | {"data_offsets": [4, 12]}}, bytes(12)),
        ("4 bytes before 'a'",),
    ),
    "cut-off": (safetensors_bytes({"a": A, "b": B}, bytes(11)), ("cut off", "5 bytes", "'b'")),
    "trailing": (safetensors_bytes({"a": A}, bytes(11)), ("3 bytes after",)),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_header_is_refused(tmp_path: Path, case: str) -> None:
    content, words = BAD[case]
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content)
    refused(lambda: read_header(file), str(file), *words)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    refused(lambda: read_header(tmp_path), str(tmp_path), "cannot be read")


def library_accepts(file: Path) -> bool:
    try:
        with safe_open(file, "np") as opened:
            opened.keys()
    except SafetensorError:
        return False
    return True


GOOD = safetensors_bytes(
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "b": {"dtype": "F32", "shape": [0], "data_offsets": [12, 12]},
        "c": {"dtype": "U8", "shape": [], "data_offsets": [12, 13]},
    },
    bytes(13),
)
edits = st.lists(
    st.tuples(
        st.sampled_from(("set", "insert", "delete", "swap")),
        st.integers(0, len(GOOD) - 1),
        st.one_of(st.integers(0, 255), st.sampled_from(list(b'0123456789-,:"[]{}\\eE. '))),
    ),
    min_size=1,
    max_size=4,
)


@given(edits)
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_corruption_is_accepted_that_the_library_refuses(
    tmp_path: Path, changes: list[tuple[str, int, int]]
) -> None:
    content = bytearray(GOOD)
    for kind, place, byte in changes:
        at = min(place, len(content) - 1)
        if kind == "set":
            content[at] = byte
        elif kind == "insert":
            # the length prefix keeps up, so that the edit reaches the parser
            content.insert(max(at, 8), byte)
            _lengthen(content, 1)
        elif kind == "delete" and at >= 8:
            del content[at]
            _lengthen(content, -1)
        else:
            content[at], content[-1 - at] = content[-1 - at], content[at]
    _same_as_library(tmp_path, bytes(content))


def _lengthen(content: bytearray, by: int) -> None:
    length = struct.unpack("<Q", content[:8])[0] + by
    content[:8] = struct.pack("<Q", length % (1 << 64))


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F33"]),
        "shape": st.lists(st.one_of(st.integers(0, 3), st.integers(0, 1 << 66)), max_size=4),
        "data_offsets": st.lists(st.integers(0, 24), min_size=2, max_size=2),
    }
)


@given(st.dictionaries(st.text(max_size=3), entries, max_size=3), st.integers(0, 24))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_made_up_header_is_accepted_that_the_library_refuses(
    tmp_path: Path, header: dict[str, Any], size: int
) -> None:
    _same_as_library(tmp_path, safetensors_bytes(header, bytes(size)))


def _same_as_library(folder: Path, content: bytes) -> None:
    file = folder / "edited.safetensors"
    file.write_bytes(content)
    try:
        header = read_header(file)
    except CheckpointError as error:
        assert str(file) in str(error)
        return
    assert library_accepts(file)
    with safe_open(file, "np") as opened:
        assert {t.name: list(t.shape) for t in header.tensors} == {
            name: list(opened.get_slice(name).get_shape())
            for name in opened.keys()  # noqa: SIM118
        }


shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
layouts = st.dictionaries(
    st.text(min_size=1, max_size=4).filter(lambda name: name != "__metadata__"),
    st.tuples(st.sampled_from([d for d in DTYPES.values() if d.bits >= 8]), shapes),
    max_size=4,
)


@given(layouts)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_built_is_read_back_and_the_library_agrees(
    tmp_path: Path, layout: dict[str, Any]
) -> None:
    built = [(name, dtype, shape) for name, (dtype, shape) in layout.items()]
    raw, starts = build_header(built, {"format": "pt"})
    nbytes = sum(int(np.prod(shape, dtype=int)) * d.size for _, d, shape in built)
    file = tmp_path / "built.safetensors"
    file.write_bytes(raw + bytes(nbytes))
    header = read_header(file)
    assert header.raw == raw and len(raw) % 8 == 0
    assert {t.name: (t.dtype, t.shape, t.start) for t in header.tensors} == {
        name: (dtype, shape, starts[name]) for name, dtype, shape in built
    }
    assert library_accepts(file)
