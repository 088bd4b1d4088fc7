"""Checkpoints whose numbers are no weights: what is refused, and why.

The words are the anatomy's, which refuses by names alone whatever comes to it without a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.anatomy.vocabulary import QUANTIZED_NAMES
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import CheckpointError

_QUANTIZED = ("quantization_config", "compression_config", "quantization")


def refuse_quantized(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose configuration says that it is quantized.

    Raises:
        CheckpointError: the weights are quantized; names the method.
    """
    inner = config.get("text_config")
    places = [config, inner] if isinstance(inner, Mapping) else [config]
    found = (place.get(key) for place in places for key in _QUANTIZED)
    quantization = next((value for value in found if value), None)
    if quantization:
        method = "unnamed"
        if isinstance(quantization, Mapping):
            method = str(quantization.get("quant_method") or "unnamed")
        raise CheckpointError(
            f"{folder / 'config.json'}: the checkpoint is quantized ({method}), and task vectors "
            "of quantized weights mean nothing. Use the 16-bit original."
        )


def refuse_packed(tensors: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint whose tensors are packed, by their names and dtypes.

    Raises:
        CheckpointError: one of them holds quantized weights, or their scales.
    """
    for tensor in tensors.values():
        packed_dtype = tensor.dtype.numpy is None
        packed_matrix = tensor.dtype.name in ("U8", "I8", "I32") and tensor.name.endswith(".weight")
        packed_name = tensor.name.rpartition(".")[2] in QUANTIZED_NAMES
        if packed_dtype or packed_matrix or packed_name:
            raise CheckpointError(
                f"{tensor.where}: tensor {tensor.name!r} ({tensor.dtype}) holds quantized weights "
                "or their scales (bitsandbytes, GPTQ, AWQ or fp8). Use the 16-bit original."
            )
