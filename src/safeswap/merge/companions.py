"""The files that go along with merged weights: the donor's configuration, tokenizer, templates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safeswap.checkpoint import digests
from safeswap.checkpoint.dtypes import Dtype, torch_name
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.shards import INDEX_NAME
from safeswap.checkpoint.source import read_json
from safeswap.merge.prepare import MergeJob

MANIFEST = "safeswap.json"
PLAN_FILE = "safeswap-plan.yaml"
FIGURE = "safeswap.png"
CARD = "README.md"
OURS = (MANIFEST, PLAN_FILE, FIGURE, CARD)
"""What a merge writes besides weights."""
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")
_TRAINING = ("trainer_state.json", "training_args.bin", "optimizer", "scheduler", "rng_state")


@dataclass(frozen=True, slots=True)
class RestOfCheckpoint:
    """The donor's files that go along (name → SHA-256) and those that do not (name → reason)."""

    copied: Mapping[str, str]
    left_out: Mapping[str, str]


def copy_rest(family: Family, job: MergeJob, folder: Path, dtype: Dtype | None) -> RestOfCheckpoint:
    """Copy configuration, tokenizer, chat template and code files of the plan's donor.

    Only ``config.json`` may change: its dtype, when another one than the donor's is written.
    """
    donor = family.members[job.plan.donor].folder
    copied, left_out = {}, {}
    for name, reason in _others(donor).items():
        if reason:
            left_out[name] = reason
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(donor / name, target)
        if name == "config.json" and dtype is not None:
            _set_dtype(target, dtype)
        copied[name] = digests.of_small_file(target)
    if job.layout.index is not None:
        (folder / INDEX_NAME).write_text(job.layout.index, encoding="utf-8")
        copied[INDEX_NAME] = digests.of_small_file(folder / INDEX_NAME)
    return RestOfCheckpoint(copied, left_out)


def _others(folder: Path) -> dict[str, str | None]:
    """Every file of a checkpoint → why it does not go along with its weights, None if it does."""
    reasons: dict[str, str | None] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir():
            name = str(path.relative_to(folder))
            gone = None if path.is_file() else "no plain file, or a link to one that is gone"
            reasons[name] = _why_not(name) or gone
    return reasons


def rest_bytes(family: Family, donor: str) -> int:
    """Bytes of the files of a donor that go along, for the question whether there is room."""
    folder = family.members[donor].folder
    along = (name for name, reason in _others(folder).items() if reason is None)
    return sum((folder / name).stat().st_size for name in along)


def small_files(folder: Path) -> dict[str, str]:
    """SHA-256 of what lies in a checkpoint's folder besides its weights: configuration, tokenizer,
    templates, code."""
    return {
        name: digests.of_small_file(folder / name)
        for name, reason in _others(folder).items()
        if reason is None and "/" not in name
    }


def _why_not(name: str) -> str | None:
    parts = Path(name).parts
    if any(part.startswith(".") for part in parts):
        return "hidden file"
    if name in OURS:
        return "replaced by this merge's own"
    if parts[-1].startswith("adapter_"):
        return "belongs to an adapter, which transformers would load in place of the merge"
    if name.endswith((*_WEIGHTS, ".index.json")):
        return "weights: replaced by the merged ones"
    if parts[-1].startswith(_TRAINING) or parts[0].startswith(("checkpoint-", "runs")):
        return "belongs to the donor's training"
    return None


def _set_dtype(config: Path, dtype: Dtype) -> None:
    content = read_json(config)
    key = "torch_dtype" if "torch_dtype" in content and "dtype" not in content else "dtype"
    content[key] = torch_name(dtype)
    config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
