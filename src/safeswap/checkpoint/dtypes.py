"""The number formats of safetensors: their sizes, and how their bytes become numbers and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from safeswap.errors import PlanError, nearest


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
    """The format asked for with ``--dtype``.

    Args:
        text: ``bfloat16``, ``float16``, ``float32``, ``float64`` or the safetensors name.

    Raises:
        PlanError: the name is none of these.
    """
    by_name = {torch: DTYPES[name] for name, torch in _TORCH_NAMES.items()}
    by_name |= {name.lower(): DTYPES[name] for name in _TORCH_NAMES}
    try:
        return by_name[text.lower().removeprefix("torch.")]
    except KeyError:
        message = f"--dtype {text!r} is not a format to write{nearest(text, by_name)}"
        raise PlanError(message) from None


def arithmetic_dtype(*dtypes: Dtype) -> np.dtype[Any]:
    """float32 for 16-bit weights; float64 once a wider one takes part, so that the single rounding
    to the output format is the only one that shows."""
    wide = any(d.name in ("F32", "F64") for d in dtypes)
    return np.dtype(np.float64 if wide else np.float32)


def inner_product(left: NDArray[Any], right: NDArray[Any]) -> float:
    """⟨left, right⟩ of two vectors of one type, summed in that type by blocks.

    float64 goes in blocks that stay below the length from which BLAS starts threads of its own:
    those fight with ours (30 × slower), and their sums would depend on the number of cores.
    """
    if left.dtype == np.float32:
        return float(np.dot(left, right))
    step = 8192
    starts = range(0, len(left), step)
    return math.fsum(float(np.dot(left[i : i + step], right[i : i + step])) for i in starts)


def as_numbers(raw: NDArray[np.uint8], dtype: Dtype) -> NDArray[Any]:
    """A view of little-endian bytes as numbers (no copy). ``raw``: uint8, whole elements."""
    assert dtype.numpy is not None, dtype
    return raw.view(dtype.numpy)


def decode(raw: NDArray[np.uint8], dtype: Dtype, out: NDArray[Any]) -> None:
    """Widen stored bytes into ``out`` (float32 or float64, one element per stored element)."""
    np.copyto(out, as_numbers(raw, dtype), casting="unsafe")


def encode(values: NDArray[Any], dtype: Dtype, raw: NDArray[np.uint8]) -> None:
    """Round ``values`` once, to nearest even, into the stored format's bytes."""
    with np.errstate(over="ignore"):
        np.copyto(as_numbers(raw, dtype), values, casting="unsafe")
