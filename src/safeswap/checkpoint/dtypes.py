"""The number formats of safetensors: their names and sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

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


SAME = "same"
"""What ``--save-dtype`` says for the donor's own precision, quantized weights quantized again."""


def output_dtype(text: str | None) -> Dtype | None:
    """The format asked for with ``--save-dtype``; None where all stays as stored.

    Args:
        text: ``bfloat16``, ``float16``, ``float32``, ``float64``, the safetensors name, or `SAME`.

    Raises:
        ConfigError: the name is none of these.
    """
    if text is None or text.lower() == SAME:
        return None
    by_name = {torch: DTYPES[name] for name, torch in _TORCH_NAMES.items()}
    by_name |= {name.lower(): DTYPES[name] for name in _TORCH_NAMES}
    try:
        return by_name[text.lower().removeprefix("torch.")]
    except KeyError:
        known = nearest(text, (*by_name, SAME))
        message = f"--save-dtype {text!r} is not a format to write{known}"
        raise ConfigError(message) from None


def is_same(text: str | None) -> bool:
    """Whether ``--save-dtype`` asks for the donor's own precision."""
    return text is not None and text.lower() == SAME
