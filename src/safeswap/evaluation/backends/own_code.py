"""Checkpoints that bring Python code along: refused in our words before anything is loaded.

Asked by itself, transformers would put a question to the terminal, and take its answer from a pipe.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safeswap.checkpoint.remote_code import code_named_in, kernels_in
from safeswap.checkpoint.source import read_json
from safeswap.errors import CheckpointError, EvaluationError


def refuse_own_code(source: str, trusted: bool) -> None:
    """Refuse a checkpoint that only runs with its own code, unless the user trusts it.

    Where transformers knows the model itself, its own implementation is used, and what the
    checkpoint brings is not looked at.

    Args:
        source: a local folder; a hub id is left to transformers, which is told not to run code.
        trusted: the user's word for this checkpoint.

    Raises:
        EvaluationError: it needs code of its own, or kernels of another repository.
    """
    folder = Path(source)
    if trusted or not folder.is_dir():
        return
    try:
        named, kernels = code_named_in(folder), kernels_in(folder)
    except CheckpointError:
        return  # the loader says what is wrong with the file
    for file, classes in named.items():
        if not _is_native(folder, file):
            raise EvaluationError(
                f"{folder / file}: names Python code of the checkpoint ({classes}), and this "
                "transformers does not know the model without it. Code of a checkpoint runs with "
                "all your rights: read it, and if you trust it add --trust-remote-code; or install "
                "a transformers that has the model."
            )
    if kernels:
        raise EvaluationError(
            f"{folder / 'config.json'}: asks for the kernels {kernels!r}, which are code from a "
            "hub. Remove that key, or if you trust them add --trust-remote-code."
        )


def _is_native(folder: Path, file: str) -> bool:
    """Whether transformers has the classes that a configuration is for."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    config = folder / "config.json"
    content: Any = read_json(config) if config.is_file() else {}
    model = content.get("model_type") in CONFIG_MAPPING
    if file == "tokenizer_config.json":
        name = read_json(folder / file).get("tokenizer_class")
        known = isinstance(name, str) and tokenizer_class_from_name(name) is not None
        return known or model
    return model
