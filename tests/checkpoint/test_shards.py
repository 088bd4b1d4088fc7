"""Output shards: sizes, names, alignment and the index."""

from __future__ import annotations

import json

import pytest

from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.shards import OutputTensor, group_by_size, lay_out, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("2GiB", 2 << 30), ("1.5KB", 1500), ("7", 7)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0GB", "-1GB", "many", "5TB", "GB"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"--shard-size.*write e.g. 5GB"):
        parse_size(text)


def test_shards_are_filled_in_order_and_aligned() -> None:
    formats = ("BF16", "U8", "F32", "F64", "F16")
    tensors = [OutputTensor(f"t{i}", DTYPES[f], (3, i + 1)) for i, f in enumerate(formats)]
    layout = lay_out(group_by_size(tensors, 60))
    assert layout.index is not None
    table = json.loads(layout.index)["weight_map"]
    assert list(table) == [t.name for t in tensors]
    assert [s.name for s in layout.shards] == sorted(set(table.values()))
    for tensor in tensors:
        shard, start = layout.place[tensor.name]
        assert table[tensor.name] == shard.name
        assert start % tensor.dtype.size == 0
        assert len(shard.header) <= start <= shard.size - tensor.nbytes
    alone = lay_out([tensors])
    assert alone.index is None and alone.shards[0].name == "model.safetensors"
