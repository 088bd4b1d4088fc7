"""Checkpoints whose numbers are no weights: what is refused, and why.

The words are the anatomy's, which refuses by names alone whatever comes to it without a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safeswap.anatomy.rules import is_buffer
from safeswap.anatomy.vocabulary import QUANTIZED_NAMES
from safeswap.checkpoint.precisions.remedies import remedy
from safeswap.checkpoint.reader import Tensor
from safeswap.errors import CheckpointError, listed

ADAPTER = "adapter_config.json"
QUANTIZATION_KEYS = ("quantization_config", "compression_config", "quantization")
"""Where a config.json says how weights are, or once were, quantized."""
_STORED_PACKED = frozenset(
    (
        *("bitsandbytes", "gptq", "awq", "fp8", "fbgemm_fp8", "compressed-tensors", "mxfp4"),
        *("hqq", "eetq", "aqlm", "auto-round", "quanto", "vptq", "spqr", "higgs", "torchao"),
        *("modelopt", "mxfp8", "bitsandbytes_4bit", "bitsandbytes_8bit"),
    )
)
"""Methods whose weights are stored in other dtypes or under other names, so that a checkpoint of
plain floats is not quantized by them, whatever its config.json still says. With others (BitNet) the
floats are quantized while the model runs."""


def refuse_adapter(folder: Path, whole: bool) -> None:
    """Refuse an adapter where a whole model is asked for.

    Args:
        whole: the weights of a whole model lie in the folder too.

    Raises:
        CheckpointError: there is an adapter's configuration.
    """
    path = folder / ADAPTER
    if not path.exists():
        return
    if not whole:
        raise CheckpointError(
            f"{folder}: is an adapter, not a model. Experts may be adapters, and the base of a run "
            "or of an adapter may not: merge it into its base first (peft: merge_and_unload, then "
            "save_pretrained)."
        )
    raise CheckpointError(
        f"{path}: lies beside the weights of a whole model. transformers would load "
        "the adapter of that file and not these weights alone. Remove the adapter's files "
        "(adapter_*) if it is merged in already; else merge it in first."
    )


def refuse_quantized(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Refuse a checkpoint whose configuration says that it is quantized, unless the weights show
    that it no longer is.

    Raises:
        CheckpointError: the weights are quantized, or will be when they are loaded; names the
            method.
    """
    quantization = quantization_of(config)
    if not quantization:
        return
    method = method_of(quantization) or "unnamed"
    if method not in _STORED_PACKED:
        raise CheckpointError(
            f"{folder / 'config.json'}: the checkpoint is quantized ({method}), and task vectors "
            "of quantized weights mean nothing. Use the 16-bit original; or, if these weights are "
            "it, remove the quantization from config.json."
        )
    narrow = [name for name in tensors if not _plain(name, tensors[name])]
    if narrow:
        raise CheckpointError(
            f"{folder / 'config.json'}: the checkpoint is quantized ({method}; {listed(narrow)}), "
            f"and safeswap does not decode them. {remedy(method)}"
        )


def method_of(quantization: Any) -> str:
    """The method that a config.json's quantization names, empty where it names none."""
    said = quantization.get("quant_method") if isinstance(quantization, Mapping) else None
    return str(said or "")[:40]


def quantization_of(config: Mapping[str, Any]) -> Any:
    """What a config.json says of quantization, None where it says nothing."""
    inner = config.get("text_config")
    places = [config, inner] if isinstance(inner, Mapping) else [config]
    found = (place.get(key) for place in places for key in QUANTIZATION_KEYS)
    return next((value for value in found if value), None)


def _plain(name: str, tensor: Tensor) -> bool:
    return tensor.dtype.mergeable or is_buffer(name.split("."), tensor.shape, "")


def refuse_packed(tensors: Mapping[str, Tensor], quantization: Any = None) -> None:
    """Refuse a checkpoint whose tensors are packed, by their names and dtypes.

    Args:
        quantization: what config.json says of it (see :func:`quantization_of`).

    Raises:
        CheckpointError: one of them holds quantized weights, or their scales; says how to get
            16-bit weights.
    """
    for tensor in tensors.values():
        packed_dtype = tensor.dtype.numpy is None
        packed_matrix = tensor.dtype.name in ("U8", "I8", "I32") and tensor.name.endswith(".weight")
        packed_name = tensor.name.rpartition(".")[2] in QUANTIZED_NAMES
        if packed_dtype or packed_matrix or packed_name:
            method = method_of(quantization)
            raise CheckpointError(
                f"{tensor.where}: tensor {tensor.name!r} ({tensor.dtype}) holds quantized weights "
                f"or their scales ({method or 'config.json does not say which'}), and safeswap "
                f"does not decode them. {remedy(method, tensors)}"
            )
