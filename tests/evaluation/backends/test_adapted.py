"""Adapters as models under evaluation and as experts of candidates in memory, without peft."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from plain_adapter import numbers_of, write_adapter  # noqa: E402
from safeswap import api  # noqa: E402
from safeswap.checkpoint.family import open_family  # noqa: E402
from safeswap.demo import models_folder  # noqa: E402
from safeswap.evaluation.backends import BackendOptions  # noqa: E402
from safeswap.evaluation.backends.hf import HFBackend  # noqa: E402
from safeswap.evaluation.models import name_models  # noqa: E402
from safeswap.search.hotswap import HotSwapModel  # noqa: E402
from tiny import refused  # noqa: E402

WORLD = models_folder()
CPU: Any = BackendOptions(dtype="float32", device="cpu", use_template=False)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", WORLD / "base")
    return tmp_path / "adapter"


def weights_of(model: Any) -> dict[str, Any]:
    return {name: value.double() for name, value in model.state_dict().items()}


def test_the_loaded_model_is_base_and_update(adapter: Path) -> None:
    updates = write_adapter(adapter, WORLD / "base")
    base, loaded = numbers_of(WORLD / "base"), HFBackend(str(adapter), CPU)
    found = weights_of(loaded.model)
    assert updates
    for name, update in updates.items():
        wanted = torch.from_numpy(base[name] + update)
        assert torch.allclose(found[name], wanted, rtol=2.0**-8, atol=1e-9), name
        assert torch.equal(found[name], found[name].bfloat16().double())  # as it is stored
    assert loaded.tokenizer("qa")["input_ids"]


def test_the_digest_of_a_model_is_that_of_adapter_and_base(adapter: Path, tmp_path: Path) -> None:
    (one,) = name_models([f"sw={adapter}"])
    copy = shutil.copytree(WORLD / "base", tmp_path / "base")
    write_adapter(adapter, copy)
    (same,) = name_models([f"sw={adapter}"])
    (copy / "generation_config.json").write_text("{}")
    (other,) = name_models([f"sw={adapter}"])
    assert len({one.digest, same.digest, other.digest}) == 3


def test_an_adapter_without_its_base_says_what_to_do(adapter: Path) -> None:
    config = adapter / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": ""}))
    refused(lambda: HFBackend(str(adapter), CPU), str(adapter), "names no base", "Fetch")


def test_candidates_in_memory_are_the_merges_that_would_be_written(
    adapter: Path, tmp_path: Path
) -> None:
    write_adapter(tmp_path / "safety", WORLD / "base", seed=5)
    family = open_family(WORLD / "base", tmp_path / "safety", {"qab": adapter})
    profile = api.make_profile(
        WORLD / "base", safety=tmp_path / "safety", languages={"qab": adapter}
    )
    inside = HotSwapModel(family, "qab", CPU)
    for options in ({"tau": 1e-9}, {"method": "uniform", "alpha": 0.25}):
        plan = api.make_plan(profile, **options)
        inside.apply(plan)
        (made,) = api.merge_plans(
            [plan], tmp_path / "out", profile=profile, figure=False, overwrite=True
        )
        found = weights_of(inside.loaded.model)
        for name, values in numbers_of(made.folder).items():
            assert torch.equal(found[name], torch.from_numpy(values)), name
    inside.close()
