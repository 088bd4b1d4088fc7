"""Layers of loaded models and tensors of their checkpoints, for every family that is known."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import AutoModelForCausalLM  # noqa: E402

from families import FAMILIES, WEIGHTLESS, save_tiny  # noqa: E402
from safeswap.anatomy import anatomy_of  # noqa: E402
from safeswap.calibration.layers import find_layers  # noqa: E402
from safeswap.checkpoint.model import open_checkpoint  # noqa: E402

# what is no linear layer once it is loaded: mixtures' experts and routers, Mamba's A
_NO_LAYER = re.compile(r"experts|router|\.gate\.weight$|A_log$")


@pytest.mark.parametrize("name", [*FAMILIES, *WEIGHTLESS])
def test_every_weight_matrix_has_its_layer(name: str, tmp_path: Path) -> None:
    stored = open_checkpoint(save_tiny(name, tmp_path / name)).tensors
    dtypes = {n: tensor.dtype.name for n, tensor in stored.items()}
    places = anatomy_of({n: t.shape for n, t in stored.items()}, dtypes=dtypes).placements
    wanted = {
        n: t for n, t in stored.items() if places[n].role == "projection" and len(t.shape) == 2
    }
    model = AutoModelForCausalLM.from_pretrained(tmp_path / name)
    layers, left_out = find_layers(model, wanted)
    assert all(_NO_LAYER.search(tensor) for tensor in left_out), left_out
    assert {layer.tensor for layer in layers} | left_out.keys() == wanted.keys()
    assert len(layers) + len(left_out) == len(wanted)
    weights = load_file(tmp_path / name / "model.safetensors")
    for layer in layers:
        held = layer.module.weight.detach().numpy()
        np.testing.assert_array_equal(held, weights[layer.tensor])
        found = layer.module(torch.zeros(1, layer.side))
        outputs = (found[-1] if isinstance(found, tuple) else found).shape[-1]  # Llama 4's router
        wide = (outputs, layer.side) if layer.inputs == "columns" else (layer.side, outputs)
        assert wide == held.shape
