"""Adapters as models: the base loaded by transformers, with its weights as the adapter makes them.

What is asked is what a merge would copy: every changed tensor is computed as the reading seam does
and rounded to the base's format. peft is not needed, and nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safeswap.checkpoint.adapted import open_member
from safeswap.checkpoint.adapters import is_adapter
from safeswap.checkpoint.model import Checkpoint
from safeswap.checkpoint.reader import read_copied
from safeswap.errors import CheckpointError, EvaluationError, listed
from safeswap.io.blas import one_thread
from safeswap.io.regular import is_folder
from safeswap.io.workers import BLOCK_ELEMENTS


def adapter_at(source: str | Path) -> Checkpoint | None:
    """The adapter of a folder on the base that it names; None for anything else.

    Raises:
        EvaluationError: it names no base that is here.
        CheckpointError: the adapter is damaged, or of a kind that is not read.
    """
    folder = Path(source)
    if not is_folder(folder) or not is_adapter(folder):
        return None
    try:
        return open_member("adapter", folder)[0]
    except CheckpointError as error:
        raise EvaluationError(
            f"{error} A model under evaluation is the adapter on the base that its "
            "adapter_config.json names (base_model_name_or_path). Fetch that base, correct the "
            "name, or evaluate the merge of the two."
        ) from error


def tokenizer_source(source: str) -> str:
    """Where the tokenizer of a model is: an adapter may have none of its own."""
    whole = adapter_at(source)
    return source if whole is None else str(whole.tokenizer_folder)


def put_into(model: Any, whole: Checkpoint) -> None:
    """Make a loaded base's parameters those of an adapter on it.

    Args:
        model: loaded by transformers from the base's folder.

    Raises:
        EvaluationError: a changed tensor is no parameter of the loaded model by itself.
        CheckpointError: a read fails.
    """
    import numpy as np
    import torch

    from safeswap.evaluation.backends.loaded import match_parameters

    assert whole.adapter is not None
    held = {name: value for name, value in model.state_dict().items() if value.is_contiguous()}
    changed = [name for name in whole.adapter.applied.changed if name in whole.stored]
    matches = match_parameters(held, {name: whole.stored[name] for name in changed})
    lost = {name for name in whole.adapter.applied.changed if name not in matches.parameters}
    grown = [n for n in changed if whole.tensors[n].shape != whole.stored[n].shape]
    if lost or grown:
        raise EvaluationError(
            f"{whole.adapter.folder}: transformers does not hold {listed([*sorted(lost), *grown])} "
            "as the base stores them, so the adapter cannot be put into the loaded model. Merge it "
            "first (peft: merge_and_unload, then save_pretrained), and use the merged folder."
        )
    with torch.inference_mode(), one_thread():
        for name, parameter in matches.parameters.items():
            tensor, flat = whole.tensors[name], held[parameter].view(-1)
            kind = np.float64 if tensor.dtype.name == "F64" else np.float32
            values = np.empty(min(BLOCK_ELEMENTS, tensor.elements), kind)
            with tensor.reader() as reader:
                for at in range(0, tensor.elements, BLOCK_ELEMENTS):
                    end = min(at + BLOCK_ELEMENTS, tensor.elements)
                    read_copied(tensor, reader, at, end, values[: end - at])
                    flat[at:end].copy_(torch.from_numpy(values[: end - at]))
