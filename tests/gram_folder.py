"""Folders of Gram matrices written by hand: numpy and JSON, nothing of safeswap's writing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from safetensors.numpy import load_file, save_file

Array = np.ndarray[Any, Any]
NEED_GRAMS = frozenset({"regmean", "gram-add", "gram-swap", "sparse-edit"})
"""Operators that read such a folder."""


def write_grams(
    folder: Path,
    grams: Mapping[str, Mapping[str, Array]],
    *,
    inputs: str = "columns",
    rows: int = 100,
    weights: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
) -> Path:
    """A folder with each expert's matrices (role → tensor → [n, n]); returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    experts = {}
    for role, matrices in grams.items():
        stored = {name: np.asarray(matrix, np.float32) for name, matrix in matrices.items()}
        save_file(stored, folder / f"{role}.safetensors")
        tensors = {
            name: {
                "gram": name,
                "inputs": inputs,
                "rows": rows,
                "digest": blake3(matrix.tobytes()).hexdigest(),
            }
            for name, matrix in stored.items()
        }
        experts[role] = {
            "source": role,
            "weights": (weights or {}).get(role, ""),
            "texts": {},
            "settings": {},
            "backend": {},
            "tensors": tensors,
            "left_out": dict(left_out or {}),
        }
    content = {"format": "safeswap-grams/1", "safeswap": "test", "experts": experts}
    (folder / "grams.json").write_text(json.dumps(content))
    return folder


def edit_manifest(folder: Path, change: Any) -> None:
    """Change the manifest's plain values in place."""
    content = json.loads((folder / "grams.json").read_text())
    change(content)
    (folder / "grams.json").write_text(json.dumps(content, indent=2))


def edit_matrices(folder: Path, role: str, change: Any) -> None:
    """Change an expert's matrices, and leave the manifest as it is."""
    stored = load_file(folder / f"{role}.safetensors")
    change(stored)
    save_file(stored, folder / f"{role}.safetensors")
