"""A tensor whose rows lie elsewhere, against numpy's own indexing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.reader import Tensor, same_bytes
from safeswap.checkpoint.vocabularies import rows as rows_module
from safeswap.checkpoint.vocabularies.rows import MappedTensor, shared_rows

BF16 = ml_dtypes.bfloat16


def stored(file: Path, **arrays: Any) -> dict[str, Tensor]:
    save_file(arrays, file)
    return {tensor.name: tensor for tensor in read_header(file).tensors}


def numbers(tensor: Tensor, begin: int, end: int, kind: Any = np.float64) -> Any:
    out = np.full(end - begin, np.nan, kind)
    with tensor.reader() as reader:
        reader.prefetch(begin, end)
        reader.read_numbers(begin, end, out)
    return out


SHAPES = st.sampled_from([(7,), (7, 1), (7, 3), (1, 7), (7, 2, 2)])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), shape=SHAPES, same=st.booleans())
def test_any_range_of_any_map(
    data: st.DataObject, shape: tuple[int, ...], same: bool, tmp_path_factory: Any
) -> None:
    chance = np.random.default_rng(0)
    tall = tuple(7 if size == 7 else size for size in shape)
    own_shape = tuple(5 if size == 7 else size for size in shape)
    own = chance.standard_normal(own_shape).astype(BF16)
    other = chance.standard_normal(tall).astype(BF16 if same else np.float32)
    tensors = stored(tmp_path_factory.mktemp("rows") / "a.safetensors", own=own, other=other)
    rows = np.array(data.draw(st.lists(st.integers(-1, 4), min_size=7, max_size=7)), np.int64)
    mapped = MappedTensor(tensors["own"], tensors["other"], rows)
    flat_own, flat_other = own.reshape(5, -1), other.reshape(7, -1)
    wanted = np.concatenate(
        [(flat_own[row] if row >= 0 else flat_other[n]).astype(float) for n, row in enumerate(rows)]
    )
    assert mapped.shape == tall and mapped.elements == len(wanted)
    begin = data.draw(st.integers(0, len(wanted)))
    end = data.draw(st.integers(begin, len(wanted)))
    for kind in (np.float32, np.float64):
        assert np.array_equal(numbers(mapped, begin, end, kind), wanted[begin:end].astype(kind))
    raw = np.full((end - begin) * 2, 7, np.uint8)
    width = len(wanted) // 7
    with mapped.reader() as reader:
        whole = reader.read_raw(begin, end, raw)
        assert not reader.copy_raw(begin, end, -1, 0, Path("nowhere"))
    touched = rows[begin // width : -(-end // width)] if end > begin else rows[:0]
    assert whole == (same or bool((touched >= 0).all()))
    if whole:
        assert np.array_equal(raw.view(BF16).astype(float), wanted[begin:end])
    else:
        assert (raw == 7).all()
    assert shared_rows(mapped).tolist() == np.flatnonzero(rows >= 0).tolist()


def test_runs_are_read_in_one_go_and_scattered_short_rows_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not row by row: two shifted halves are two reads, a bias in another order is one."""
    reads = []
    size = 5000
    tall = np.arange(size * 4, dtype=np.float32).reshape(size, 4)
    tensors = stored(tmp_path / "a.safetensors", tall=tall, bias=tall[:, 0].copy())
    real = rows_module.MappedReader.__init__

    def counted(self: Any, tensor: MappedTensor) -> None:
        real(self, tensor)
        inner = self._own.read_numbers

        def read(begin: int, end: int, out: Any) -> None:
            reads.append((begin, end))
            inner(begin, end, out)

        class Counting:
            def __enter__(self) -> Any:
                own.__enter__()
                return self

            def __exit__(self, *error: Any) -> None:
                own.__exit__(None, None, None)

            read_numbers = staticmethod(read)

        own = self._own
        self._own = Counting()

    monkeypatch.setattr(rows_module.MappedReader, "__init__", counted)
    halves = np.r_[np.arange(size // 2, size), np.arange(size // 2)]
    mapped = MappedTensor(tensors["tall"], tensors["tall"], halves)
    out = np.empty(size * 4)
    with mapped.reader() as reader:
        reader.read_numbers(0, size * 4, out)
    assert np.array_equal(out, tall[halves].ravel()) and len(reads) == 2
    reads.clear()
    order = np.random.default_rng(1).permutation(size)
    mapped = MappedTensor(tensors["bias"], tensors["bias"], order)
    out = np.empty(size)
    with mapped.reader() as reader:
        reader.read_numbers(0, size, out)
    assert np.array_equal(out, tall[order, 0]) and len(reads) == 1


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    tensors = stored(
        tmp_path / "a.safetensors",
        own=np.zeros((3, 2), np.float32),
        other=np.zeros((4, 2), np.float32),
        wide=np.zeros((4, 3), np.float32),
    )
    for other, rows in (("other", [0, 1, 2, 3]), ("other", [0, 1]), ("wide", [0, 1, 2, -1])):
        with pytest.raises(ValueError, match="not there"):
            MappedTensor(tensors["own"], tensors[other], np.array(rows, np.int64))


def test_two_that_read_the_same_bytes_are_the_same(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    order = np.array([2, 0, 3, 1])
    tensors = stored(tmp_path / "a.safetensors", one=values, two=values[order])
    mapped = MappedTensor(tensors["one"], tensors["two"], order)
    assert same_bytes(mapped, tensors["two"]) and not same_bytes(mapped, tensors["one"])
