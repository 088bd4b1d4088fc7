"""Numbers and their bytes: F16 by our own arithmetic, against numpy's for every number it has."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.numerics import decode, encode, inner_product

F16 = DTYPES["F16"]
EVERY = np.arange(1 << 16, dtype=np.uint16)


def encoded(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    raw = np.empty(2 * len(values), np.uint8)
    encode(values, F16, raw)
    return raw.view(np.uint16)


def test_every_f16_number_is_widened_as_numpy_does() -> None:
    out = np.empty(len(EVERY), np.float32)
    decode(EVERY.view(np.uint8), F16, out)
    wanted = EVERY.view(np.float16).astype(np.float32)
    assert np.array_equal(out.view(np.uint32), wanted.view(np.uint32))


def test_every_f16_number_and_midpoint_is_rounded_as_numpy_does() -> None:
    """All finite numbers, all points halfway between two, and the float32 numbers beside both."""
    numbers = EVERY[: EVERY.searchsorted(0x7C00)].view(np.float16).astype(np.float32)
    middles = (numbers[1:] + numbers[:-1]) / 2
    assert (np.diff(numbers) > 0).all() and (middles > numbers[:-1]).all()
    points = np.concatenate([numbers, middles])
    around = [np.nextafter(points, np.float32(end)) for end in (-np.inf, np.inf)]
    values = np.concatenate([points, *around])
    values = np.concatenate([values, -values])
    values = values[np.abs(values) <= 65504]
    assert np.array_equal(encoded(values), values.astype(np.float16).view(np.uint16))


def test_numbers_of_any_size_are_rounded_to_f16_as_numpy_does() -> None:
    bits = np.random.default_rng(0).integers(0, 1 << 32, 2_000_000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.abs(values) <= 65504]
    tiny = np.array([0.0, -0.0, 1e-45, -1e-45, 2.0**-25, -(2.0**-25), 1e-38], np.float32)
    values = np.concatenate([values, tiny])
    before = values.copy()
    assert np.array_equal(encoded(values), values.astype(np.float16).view(np.uint16))
    assert np.array_equal(values, before)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 70_001])
def test_inner_products_of_any_length(length: int, kind: type) -> None:
    chance = np.random.default_rng(length)
    left, right = (chance.standard_normal(length).astype(kind) for _ in range(2))
    exact = float((left.astype(np.float64) * right).sum())
    assert inner_product(left, right) == pytest.approx(exact, rel=1e-6, abs=1e-4)


def test_bf16_is_rounded_to_the_nearest() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3.3e38, 1e-40], np.float32)
    raw = np.empty(10, np.uint8)
    encode(values, DTYPES["BF16"], raw)
    assert np.array_equal(raw.view(np.uint16), values.astype(ml_dtypes.bfloat16).view(np.uint16))
