"""Views of tensors: stacked, transposed, braided, sliced; any range and its bytes, by numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.mixtures.views import Braid, Stack, Strand, Turned, leaves
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.sliced import SlicedTensor

ARRAYS = {
    name: np.random.default_rng(n).normal(size=shape).astype(np.float32)
    for n, (name, shape) in enumerate(
        {"a": (5, 7), "b": (5, 7), "c": (3, 4, 6), "d": (9, 6), "v": (5,), "w": (5,)}.items()
    )
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    file: Path = tmp_path_factory.mktemp("views") / "w.safetensors"
    save_file(ARRAYS, file)
    return {tensor.name: tensor for tensor in read_header(file).tensors}


def made(stored: dict[str, Tensor]) -> list[tuple[Tensor, Any]]:
    """Every view with what numpy makes of the same arrays."""
    a, b, c, d, v, w = (stored[name] for name in "abcdvw")
    x = ARRAYS
    braid = Braid("x", (a, b), (10, 7))
    braided = np.stack([x["a"], x["b"]], axis=1).reshape(10, 7)
    stack = Stack("x", (a, braid, b), (20, 7))
    stacked = np.concatenate([x["a"], braided, x["b"]])
    return [
        (braid, braided),
        (Braid("x", (v, w), (10,)), np.stack([x["v"], x["w"]], axis=1).reshape(10)),
        (stack, stacked),
        (Turned("x", (c,), (3, 6, 4)), x["c"].swapaxes(1, 2)),
        (Turned("x", (stack,), (7, 20)), stacked.T),
        (Turned("x", (Turned("x", (c,), (3, 6, 4)),), (3, 4, 6)), x["c"]),
        (Strand("x", (braid,), (5, 7), first=1), x["b"]),
        (Strand("x", (stack,), (10, 7)), stacked[::2]),
        (SlicedTensor("x", d, 12, (3, 6)), x["d"][2:5]),
        (SlicedTensor("x", Turned("x", (d,), (6, 9)), 9, (2, 9)), x["d"].T[1:3]),
    ]


@settings(max_examples=60, deadline=None)
@given(which=st.integers(0, 9), data=st.data())
def test_any_range_is_numpy_s(stored: dict[str, Tensor], which: int, data: st.DataObject) -> None:
    view, wanted = made(stored)[which]
    assert view.shape == wanted.shape and view.elements == wanted.size
    flat = np.ascontiguousarray(wanted).ravel()
    with view.reader() as reader:  # one reader for several ranges, in any order
        for _ in range(3):
            begin = data.draw(st.integers(0, flat.size))
            end = data.draw(st.integers(begin, flat.size))
            reader.prefetch(begin, end)
            for kind in (np.float32, np.float64):
                found = np.empty(end - begin, kind)
                reader.read_numbers(begin, end, found)
                assert np.array_equal(found, flat[begin:end])
            raw = np.empty(4 * (end - begin), np.uint8)
            assert reader.read_raw(begin, end, raw)
            assert np.array_equal(raw.view(np.float32), flat[begin:end])


def test_what_is_computed_has_no_bytes(stored: dict[str, Tensor]) -> None:
    class Computed:
        """The numbers of a tensor, and none of its bytes."""

        def __init__(self, tensor: Any) -> None:
            self.__dict__.update({n: getattr(tensor, n) for n in ("name", "shape", "dtype")})
            self.elements, self._tensor = tensor.elements, tensor

        def reader(self) -> Any:
            reader = self._tensor.reader()

            class Reader:
                __enter__ = lambda self: (reader.__enter__(), self)[1]  # noqa: E731
                __exit__ = lambda self, *error: reader.__exit__(*error)  # noqa: E731
                read_numbers = staticmethod(reader.read_numbers)
                read_raw = staticmethod(lambda *arguments: False)

            return Reader()

    one: Any = Computed(stored["c"])
    view = Turned("x", (one,), (3, 6, 4))
    found = np.empty(72, np.float64)
    with view.reader() as reader:
        assert not reader.read_raw(0, 72, np.empty(72 * 4, np.uint8))
        reader.read_numbers(0, 72, found)
    assert np.array_equal(found, ARRAYS["c"].swapaxes(1, 2).ravel())


def test_leaves_are_what_is_stored(stored: dict[str, Tensor]) -> None:
    views = [view for view, _ in made(stored)]
    assert [tensor.name for tensor in leaves(views[4])] == ["a", "b"]
    assert leaves(views[9]) == (stored["d"],) and leaves(stored["a"]) == (stored["a"],)
