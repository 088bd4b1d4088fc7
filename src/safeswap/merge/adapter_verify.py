"""Is a merged adapter what its plan says, bit for bit? Made again from its inputs' factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from safeswap.checkpoint.adapters.config import CONFIG
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.source import read_json
from safeswap.errors import VerificationError
from safeswap.merge.adapter_out import FORMS, about, prepare_adapters
from safeswap.merge.adapter_settings import adapter_config
from safeswap.merge.adapter_written import Written
from safeswap.merge.manifest import AGAIN
from safeswap.merge.prepare import MergeJob
from safeswap.plan import Plan


def check_adapter(
    out: Path,
    manifest: Mapping[str, Any],
    family: Family,
    plan: Plan,
    written: Mapping[str, Tensor],
) -> tuple[MergeJob, dict[str, dict[str, str]]]:
    """Make every tensor of an adapter again and compare it with what was written.

    Returns:
        The plan made ready, and what became of every tensor, for the manifest's check.

    Raises:
        VerificationError: names the first tensor or entry that is not what plan and inputs say.
    """
    (one,) = prepare_adapters(family, [plan], manifest["adapter"]["rank"])
    log: dict[str, dict[str, str]] = {}
    for tensor in one.parts.written():
        found = written.get(tensor.name)
        if found is None or (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise VerificationError(
                f"{out}: {tensor.name!r} is not of the shape and format that plan and inputs "
                f"give. An input changed since, or the adapter did. {AGAIN}"
            )
        if not _is_as_made(found, tensor):
            raise VerificationError(
                f"{out}: tensor {tensor.name!r} is as it was written, but the inputs now give "
                f"other bytes ({tensor.fate}). An input changed since. Give the original."
            )
        digest = manifest["tensors"][tensor.name]["digest"]
        log[tensor.name] = {"unit": tensor.unit, "fate": tensor.fate, "dtype": tensor.dtype.name}
        log[tensor.name]["digest"] = digest
    config = adapter_config(family, plan, one.parts)
    moved = ("base_model_name_or_path", "revision")
    said = {k: v for k, v in read_json(out / CONFIG).items() if k not in moved}
    if said != {k: v for k, v in config.items() if k not in moved}:
        raise VerificationError(
            f"{out / CONFIG}: is not what plan and inputs give. The adapter was changed. {AGAIN}"
        )
    _check_said(out, manifest["adapter"], about(one, config))
    return one.job, log


def _is_as_made(found: Tensor, made: Written) -> bool:
    at, size = 0, found.dtype.size
    with found.reader() as reader:
        for wanted in made.blocks():
            raw = np.empty(len(wanted), np.uint8)
            reader.read_raw(at, at + len(wanted) // size, raw)
            if not np.array_equal(raw, wanted):
                return False
            at += len(wanted) // size
    return at == found.elements


def _check_said(out: Path, said: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    lost, now = said["discarded"], wanted["discarded"]
    near = lost.keys() == now.keys() and all(
        math.isclose(lost[unit], now[unit], rel_tol=1e-6, abs_tol=1e-12) for unit in now
    )
    if not near or any(said.get(key) != wanted[key] for key in ("ranks", *FORMS)):
        raise VerificationError(
            f"{out}: what its manifest says of ranks and of what was discarded is not what plan "
            f"and inputs give. The manifest was changed. {AGAIN}"
        )
