"""Which of a checkpoint's tensors are one weight together: narrow numbers and their scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from safeswap.checkpoint.dtypes import DTYPES, Dtype
from safeswap.checkpoint.precisions.fp8 import CODES, SCALES, ScaledTensor, block_of
from safeswap.checkpoint.precisions.mxfp4 import Mxfp4Tensor
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.stored import StoredTensor
from safeswap.errors import CheckpointError, listed

FP8_METHODS = ("fp8", "fbgemm_fp8", "compressed-tensors", "modelopt", "mxfp8")
"""What ``quant_method`` says where eight-bit floats are multiplied by their scales."""
_SCALES = ("_scale_inv", "_scale")
_INPUT_SCALES = ("input_scale", "activation_scale", "input_scale_ub", "output_scale")
_CACHE_SCALES = ("k_scale", "v_scale", "kv_scale", "q_scale", "prob_scale")
_BLOCKS, _EXPONENTS = "_blocks", "_scales"
_ACTIVATIONS = "a scale of activations: those of the output are not quantized"
_CACHE = "a scale of the cache of keys and values: the output's is not quantized"


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The tensors of a checkpoint as a model has them.

    Attributes:
        tensors: name → tensor; packed ones stand where their weights are stored.
        aside: stored tensors that are none of these → why.
        extra: name → the scales of its activations, which a quantized output needs again.
    """

    tensors: Mapping[str, Tensor]
    aside: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, tuple[StoredTensor, ...]] = field(default_factory=dict)


def unpacked(tensors: Mapping[str, StoredTensor], quantization: Any, dtype: object) -> Unpacked:
    """Put narrow weights and their scales together; everything else stays as it is stored.

    Args:
        quantization: what config.json says of it.
        dtype: the model's own, as config.json names it: float16 where that is said, else decoded
            copies are BF16.

    Raises:
        CheckpointError: a scale is missing, of a shape or format that fits no rule, or belongs to
            nothing.
    """
    if not any(map(_is_narrow, tensors.values())):
        return Unpacked(tensors)
    said = quantization if isinstance(quantization, Mapping) else {}
    kind = DTYPES["F16" if str(dtype).endswith("float16") and "b" not in str(dtype) else "BF16"]
    packed: dict[str, ScaledTensor | Mxfp4Tensor] = {p.name: p for p in _fours(tensors, kind)}
    if said.get("quant_method") in FP8_METHODS:
        packed |= {p.name: p for p in _eights(tensors, said, kind)}
    if not packed:
        return Unpacked(tensors)  # whoever opens it says what it is
    at = {packed[name].parts[0].name: name for name in packed}
    aside = {p.parts[1].name: f"the scales of {name}" for name, p in packed.items()}
    extra = {name: _activations(name, tensors) for name in packed}
    aside |= {one.name: _ACTIVATIONS for found in extra.values() for one in found}
    cache = {n: t for n, t in tensors.items() if n.rpartition(".")[2] in _CACHE_SCALES}
    aside |= dict.fromkeys(cache, _CACHE)
    for name, tensor in cache.items():
        owner = next((n for n in packed if n.startswith(name.rpartition(".")[0] + ".")), None)
        if owner:
            extra[owner] = (*extra[owner], tensor)
    kept: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name in at:
            kept[at[name]] = packed[at[name]]
        elif name not in aside:
            kept[name] = tensor
    return Unpacked(kept, aside, {name: found for name, found in extra.items() if found})


def _is_narrow(tensor: StoredTensor) -> bool:
    return tensor.dtype.name in CODES or (
        tensor.dtype.name == "U8" and tensor.name.endswith(_BLOCKS)
    )


def _fours(tensors: Mapping[str, StoredTensor], kind: Dtype) -> Iterator[Mxfp4Tensor]:
    for name, blocks in tensors.items():
        if not name.endswith(_BLOCKS) or blocks.dtype.name != "U8":
            continue
        whole = name.removesuffix(_BLOCKS)
        scales = tensors.get(whole + _EXPONENTS)
        fits = len(blocks.shape) == 4 and blocks.shape[3] == 16 and 0 not in blocks.shape
        fits = fits and scales is not None and scales.dtype.name in ("U8", "F8_E8M0")
        if scales is None or not fits or scales.shape != blocks.shape[:-1]:
            found = "nothing" if scales is None else f"{scales.dtype} {list(scales.shape)}"
            raise CheckpointError(
                f"{blocks.where}: {name!r} of {list(blocks.shape)} and {whole + _EXPONENTS!r} of "
                f"{found} are no MXFP4, which has [experts, rows, groups, 16] and one byte for "
                "every group. Fetch the checkpoint again."
            )
        if whole in tensors:
            raise CheckpointError(
                f"{blocks.where}: holds {whole!r} in MXFP4, and in {tensors[whole].where} again. "
                "Remove the stale one."
            )
        yield Mxfp4Tensor(whole, blocks, scales, kind)


def _eights(
    tensors: Mapping[str, StoredTensor], said: Mapping[str, Any], kind: Dtype
) -> Iterator[ScaledTensor]:
    block = _block_said(said)
    for name, weight in tensors.items():
        if weight.dtype.name not in CODES:
            continue
        scale = next((tensors[name + s] for s in _SCALES if name + s in tensors), None)
        if scale is None:
            wanted = listed([name + suffix for suffix in _SCALES])
            raise CheckpointError(
                f"{weight.where}: tensor {name!r} ({weight.dtype}) has no scale ({wanted}), so its "
                "numbers are not known. Fetch the checkpoint again, with all its shards."
            )
        sides = block_of(weight.shape, scale.shape, block)
        if sides is None or scale.dtype.name not in SCALES:
            raise CheckpointError(
                f"{scale.where}: {scale.name!r} ({scale.dtype}, {list(scale.shape)}) is no scale "
                f"for {name!r} of {list(weight.shape)}: one number, one for each row, or one for "
                f"each block of {list(block) or 'a size that divides it'} (weight_block_size in "
                "config.json). Fetch the checkpoint again."
            )
        yield ScaledTensor(weight, scale, sides, kind, said.get("scale_fmt") == "ue8m0")


def _block_said(said: Mapping[str, Any]) -> list[int]:
    """The block of the last two dimensions that a quantization_config gives."""
    places = [said.get("weight_block_size")]
    groups = said.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        places.append(weights.get("block_structure") if isinstance(weights, Mapping) else None)
    for sides in places:
        if isinstance(sides, list) and len(sides) == 2 and all(type(s) is int for s in sides):
            return [max(side, 0) for side in sides]
    return []


def _activations(name: str, tensors: Mapping[str, StoredTensor]) -> tuple[StoredTensor, ...]:
    owner = name.removesuffix(".weight")
    names = (f"{owner}{mark}{one}" for one in _INPUT_SCALES for mark in "._")
    return tuple(tensors[one] for one in names if one in tensors and one != name)
