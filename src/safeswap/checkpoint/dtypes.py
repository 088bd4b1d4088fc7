"""The number formats of safetensors: their sizes, and how their bytes become numbers and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from safeswap.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Dtype:
    """One number format.

    Attributes:
        name: the name in a safetensors header, e.g. ``"BF16"``.
        bits: size of one element in bits (below 8 for packed formats).
        numpy: the numpy type of one element, or None where numpy has no such type.
        mergeable: True for the formats that task vectors are computed in (F64, F32, F16, BF16).
    """

    name: str
    bits: int
    numpy: np.dtype[Any] | None
    mergeable: bool = False

    @property
    def size(self) -> int:
        """Bytes of one element; whole bytes only (packed formats are refused before this)."""
        return self.bits // 8

    def __str__(self) -> str:
        return self.name


def _dtype(name: str, numpy: Any, mergeable: bool = False) -> Dtype:
    kind = np.dtype(numpy)
    return Dtype(name, kind.itemsize * 8, kind, mergeable)


DTYPES: dict[str, Dtype] = {
    d.name: d
    for d in (
        _dtype("F64", np.float64, True),
        _dtype("F32", np.float32, True),
        _dtype("F16", np.float16, True),
        _dtype("BF16", ml_dtypes.bfloat16, True),
        _dtype("BOOL", np.bool_),
        _dtype("U8", np.uint8),
        _dtype("I8", np.int8),
        _dtype("U16", np.uint16),
        _dtype("I16", np.int16),
        _dtype("U32", np.uint32),
        _dtype("I32", np.int32),
        _dtype("U64", np.uint64),
        _dtype("I64", np.int64),
        _dtype("C64", np.complex64),
        Dtype("F8_E4M3", 8, None),
        Dtype("F8_E5M2", 8, None),
        Dtype("F8_E8M0", 8, None),
        Dtype("F8_E4M3FNUZ", 8, None),
        Dtype("F8_E5M2FNUZ", 8, None),
        Dtype("F6_E2M3", 6, None),
        Dtype("F6_E3M2", 6, None),
        Dtype("F4", 4, None),
    )
}
"""Every format that a safetensors header may name."""

_TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def torch_name(dtype: Dtype) -> str:
    """The format's name in a transformers ``config.json`` (``"bfloat16"`` for BF16)."""
    return _TORCH_NAMES[dtype.name]


def output_dtype(text: str) -> Dtype:
    """The format asked for with ``--save-dtype``.

    Args:
        text: ``bfloat16``, ``float16``, ``float32``, ``float64`` or the safetensors name.

    Raises:
        ConfigError: the name is none of these.
    """
    by_name = {torch: DTYPES[name] for name, torch in _TORCH_NAMES.items()}
    by_name |= {name.lower(): DTYPES[name] for name in _TORCH_NAMES}
    try:
        return by_name[text.lower().removeprefix("torch.")]
    except KeyError:
        message = f"--save-dtype {text!r} is not a format to write{nearest(text, by_name)}"
        raise ConfigError(message) from None


def arithmetic_dtype(*dtypes: Dtype) -> np.dtype[Any]:
    """float32 for 16-bit weights; float64 once a wider one takes part, so that the single rounding
    to the output format is the only one that shows.
    """
    wide = any(d.name in ("F32", "F64") for d in dtypes)
    return np.dtype(np.float64 if wide else np.float32)


SUM_ROW = 256
"""Products summed in their own type before float64 takes over. Longer rows lose digits (equal
values: 9e-6 of the norm in one row of 65 536, 2e-8 in rows of 256, which cost 0.03 ns more per
element), and from 10 000 on BLAS starts threads of its own: they fight with ours, and their sums
depend on the number of cores."""


def inner_product(left: NDArray[Any], right: NDArray[Any]) -> float:
    """⟨left, right⟩ of two contiguous vectors of one type; rows of 256 are summed in float64.

    For float32 the relative error of a norm is below 1e-7 (2e-8 for equal values).
    """
    whole = len(left) - len(left) % SUM_ROW
    shape = (whole // SUM_ROW, SUM_ROW)
    rows = np.vecdot(left[:whole].reshape(shape), right[:whole].reshape(shape))
    rest = np.dot(left[whole:], right[whole:])
    return float(rows.sum(dtype=np.float64)) + float(rest)


def as_numbers(raw: NDArray[np.uint8], dtype: Dtype) -> NDArray[Any]:
    """A view of little-endian bytes as numbers (no copy). ``raw``: uint8, whole elements."""
    assert dtype.numpy is not None, dtype
    return raw.view(dtype.numpy)


def decode(raw: NDArray[np.uint8], dtype: Dtype, out: NDArray[Any]) -> None:
    """Widen stored bytes into ``out`` (float32 or float64, one element per stored element)."""
    if dtype.name == "F16" and out.dtype == np.float32:
        # a table of all 65 536 numbers takes 0.45 ns per element, numpy's arithmetic 1.2 ns
        np.take(_f16_as_f32(), raw.view(np.uint16), out=out, mode="wrap")
    else:
        np.copyto(out, as_numbers(raw, dtype), casting="unsafe")


@cache
def _f16_as_f32() -> NDArray[np.float32]:
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


def encode(values: NDArray[Any], dtype: Dtype, raw: NDArray[np.uint8]) -> None:
    """Round ``values`` once, to nearest even, into the stored format's bytes.

    Args:
        values: float32 or float64; for F16 no larger than it can hold (±65 504), and finite.
    """
    if dtype.name == "F16" and values.dtype == np.float32:
        _round_to_f16(values, raw.view(np.uint16))
        return
    with np.errstate(over="ignore"):
        np.copyto(as_numbers(raw, dtype), values, casting="unsafe")


def _round_to_f16(values: NDArray[np.float32], out: NDArray[np.uint16]) -> None:
    """The bits of the nearest F16 numbers: 1.0 ns per element whatever the values, where numpy
    takes 1.6 ns and, for numbers below F16's smallest normal one (6e-5), 60 ns.

    |v| + 2^(e+13) − 2^(e+13), with e the exponent of v and at least −14, rounds v to the digits
    that F16 has there, as float32's own rounding cuts the sum at 2^(e−10). Times 2^-112 the
    exponent is counted as F16 counts it (below 2^-14 too), and only zeros follow the ten digits.
    """
    bits = values.view(np.uint32)
    exponent = np.bitwise_and(bits, np.uint32(0x7F800000))
    np.maximum(exponent, np.uint32((127 - 14) << 23), out=exponent)
    np.add(exponent, np.uint32(13 << 23), out=exponent)
    rounded = np.abs(values)
    np.add(rounded, exponent.view(np.float32), out=rounded)
    np.subtract(rounded, exponent.view(np.float32), out=rounded)
    np.multiply(rounded, np.float32(2.0**-112), out=rounded)
    result, sign = rounded.view(np.uint32), exponent
    np.right_shift(result, np.uint32(13), out=result)
    np.right_shift(bits, np.uint32(16), out=sign)
    np.bitwise_and(sign, np.uint32(0x8000), out=sign)
    np.bitwise_or(result, sign, out=result)
    np.copyto(out, result, casting="unsafe")
