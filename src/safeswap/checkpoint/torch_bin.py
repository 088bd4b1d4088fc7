"""``pytorch_model*.bin``: where each tensor's bytes lie, by torch's weights-only loader.

The unpickler runs on fake tensors, so no weight is read: it says at which byte of the file each
storage begins, and from there on a ``.bin`` is read like a safetensors file.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.stored import StoredTensor
from safeswap.errors import CheckpointError
from safeswap.io.files import refuse_pointer
from safeswap.io.regular import shortened

_LARGEST_PICKLE = 1 << 28
"""Bytes of names, shapes and places; some kB per thousand tensors."""


def _refuse_large_pickle(path: Path) -> None:
    """The pickle is read whole, and packed it may be a thousandth of what it unpacks to."""
    with zipfile.ZipFile(path) as archive:
        largest = max(
            (e.file_size for e in archive.infolist() if e.filename.endswith(".pkl")), default=0
        )
    if largest > _LARGEST_PICKLE:
        raise CheckpointError(
            f"{path}: its table of tensors unpacks to {largest} bytes, too large for any model. "
            "Fetch it again, or convert the checkpoint to safetensors."
        )


def read_torch_file(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of one ``.bin`` file in file order; tied tensors share their byte range.

    Raises:
        CheckpointError: torch is not installed, the file holds more than tensors, it is of the
            format before torch 1.6, is cut off, or a tensor is not stored contiguously.
    """
    try:
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode
    except ImportError:
        raise CheckpointError(
            f"{path}: reading .bin weights needs torch. Install safeswap[torch], or convert the "
            "checkpoint to safetensors."
        ) from None
    refuse_pointer(path)
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path}: is cut off, or of the format before torch 1.6. Fetch it again, or load it "
            "with torch and save it as safetensors."
        )
    try:
        _refuse_large_pickle(path)
        with FakeTensorMode():
            state: Any = torch.load(path, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # the unpickler raises many kinds; all mean the same to the user
        reason = shortened((str(error).strip() or repr(error)).splitlines()[0])
        raise CheckpointError(
            f"{path}: torch's weights-only loader refuses it ({reason}). "
            "safeswap never runs code from a pickle; convert the checkpoint to safetensors."
        ) from error
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16"}
    names |= {torch.bfloat16: "BF16", torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8"}
    names |= {torch.int16: "I16", torch.int32: "I32", torch.int64: "I64"}
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: holds a {type(state).__name__}, not tensors by name. "
            "Save the model's state_dict as safetensors."
        )
    tensors = []
    for name, value in state.items():
        if not isinstance(value, torch.Tensor) or value.dtype not in names:
            raise CheckpointError(
                f"{path}: {name!r} is not a plain tensor ({type(value).__name__}). "
                "Save the model's state_dict as safetensors."
            )
        begin = getattr(value.untyped_storage(), "_checkpoint_offset", None)
        if begin is None or not value.is_contiguous():
            raise CheckpointError(
                f"{path}: tensor {name!r} is not stored in one piece. "
                "Load the model with transformers and save_pretrained it as safetensors."
            )
        dtype = DTYPES[names[value.dtype]]
        start = int(begin) + int(value.storage_offset()) * dtype.size
        tensors.append(StoredTensor(str(name), path, dtype, tuple(value.shape), start))
    tensors.sort(key=lambda t: (t.start, t.name))
    size = path.stat().st_size
    for tensor in tensors:
        if tensor.start + tensor.nbytes > size:
            raise CheckpointError(f"{path}: is cut off in tensor {tensor.name!r}; fetch it again.")
    return tuple(tensors)
