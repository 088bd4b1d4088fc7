"""A real Gemma 3 270M in Q4_K_M, against transformers: ``make gguf``; not in CI (250 MB).

``SAFESWAP_REAL_GGUF`` names the file.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from safeswap.checkpoint.model import open_checkpoint
from safeswap.io.workers import BLOCK_ELEMENTS

FILE = os.environ.get("SAFESWAP_REAL_GGUF", "")
pytestmark = pytest.mark.skipif(not FILE, reason="SAFESWAP_REAL_GGUF names no file")


def test_every_number_is_transformers_own() -> None:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    path = Path(FILE)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).state_dict()
    opened = open_checkpoint(path)
    assert set(theirs) - set(opened.tensors) <= {"lm_head.weight"}
    kinds = set()
    for name, tensor in opened.tensors.items():
        wanted = theirs[name].numpy().ravel()
        assert tensor.shape == tuple(theirs[name].shape)
        with tensor.reader() as reader:
            for at in range(0, tensor.elements, BLOCK_ELEMENTS):
                end = min(at + BLOCK_ELEMENTS, tensor.elements)
                out = np.empty(end - at, np.float32)
                reader.read_numbers(at, end, out)
                assert np.array_equal(out, wanted[at:end]), name
        kinds.add(tensor.kind.name)  # type: ignore[attr-defined]
    assert {"Q4_K", "Q6_K", "F32"} <= kinds
