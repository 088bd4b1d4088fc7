"""The files that go along with merged weights: the donor's configuration, tokenizer, templates."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from safeswap.checkpoint import digests
from safeswap.checkpoint.adapters.config import CONFIG
from safeswap.checkpoint.dtypes import DTYPES, Dtype, torch_name
from safeswap.checkpoint.inside import files_below, open_plain, why_not_read
from safeswap.checkpoint.loaded_names import (
    LARGEST,
    is_companion,
    is_tokenizer,
    is_weights,
    looks_like_weights,
)
from safeswap.checkpoint.model import Checkpoint
from safeswap.checkpoint.refusals import QUANTIZATION_KEYS, quantization_of
from safeswap.checkpoint.remote_code import names_code
from safeswap.checkpoint.shards import INDEX_NAME
from safeswap.checkpoint.source import read_json
from safeswap.merge.prepare import MergeJob

MANIFEST = "safeswap.json"
PLAN_FILE = "safeswap-plan.yaml"
FIGURE = "safeswap.png"
CARD = "README.md"
OURS = (MANIFEST, PLAN_FILE, FIGURE, CARD)
"""What a merge writes besides weights."""
_TRAINING = ("trainer_state.json", "training_args.bin", "optimizer", "scheduler", "rng_state")


@dataclass(frozen=True, slots=True)
class RestOfCheckpoint:
    """The donor's files that go along (name → SHA-256) and those that do not (name → reason)."""

    copied: Mapping[str, str]
    left_out: Mapping[str, str]


def copy_rest(job: MergeJob, folder: Path, dtype: Dtype | None) -> RestOfCheckpoint:
    """Copy what a loader or reader needs of the plan's donor: configuration, tokenizer, chat
    templates, licence, and code where the configuration names it. Nothing else goes along.

    Only ``config.json`` may change: its dtype, when another one than the donor's is written, and
    what it says of a quantization that the output does not have: a loader would quantize by it.
    """
    donor = job.family.members[job.plan.donor]
    rest = copy_files(others(donor), folder)
    copied = dict(rest.copied)
    if "config.json" in copied:
        _adapt_config(folder / "config.json", dtype, donor, quantized=bool(job.packings))
        copied["config.json"] = digests.of_small_file(folder / "config.json")
    if job.layout.index is not None:
        (folder / INDEX_NAME).write_text(job.layout.index, encoding="utf-8")
        copied[INDEX_NAME] = digests.of_small_file(folder / INDEX_NAME)
    return RestOfCheckpoint(copied, rest.left_out)


def copy_files(files: Mapping[str, tuple[Path, str | None]], folder: Path) -> RestOfCheckpoint:
    """Copy the files that no reason speaks against; ``files``: name → (path, reason)."""
    copied, left_out = {}, {}
    for name, (path, reason) in files.items():
        if reason:
            left_out[name] = reason
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(path, target)
        copied[name] = digests.of_small_file(target)
    return RestOfCheckpoint(copied, left_out)


def _copy(source: Path, target: Path) -> None:
    with open_plain(source) as stream, target.open("wb") as out:
        shutil.copyfileobj(stream, out)


def others(member: Checkpoint) -> dict[str, tuple[Path, str | None]]:
    """Every file of a checkpoint → where it is, and why it does not go along with its weights (None
    if it does).

    An adapter has its base's configuration. Its own tokenizer takes the place of all of its base's,
    and a file of it that goes along goes before its base's of that name.
    """
    found = _of_folder(member.folder)
    if member.adapter is None:
        return found
    own = _of_folder(member.adapter.folder)
    for name, (path, reason) in own.items():
        if name == "config.json" and reason is None:
            own[name] = (path, "belongs to the adapter: its base's configuration goes along")
    if member.tokenizer_folder != member.folder:
        for name, (path, reason) in found.items():
            if reason is None and is_tokenizer(name):
                found[name] = (path, "replaced by the adapter's own tokenizer")
    goes = {name for name, (_, reason) in found.items() if reason is None}
    return found | {n: one for n, one in own.items() if one[1] is None or n not in goes}


def _of_folder(folder: Path) -> dict[str, tuple[Path, str | None]]:
    code = names_code(folder)
    return {name: (folder / name, _why_not(folder, name, code)) for name in files_below(folder)}


def rest_bytes(member: Checkpoint) -> int:
    """Bytes of the files of a donor that go along, for the question whether there is room."""
    return sum(path.stat().st_size for path, reason in others(member).values() if reason is None)


def small_files(member: Checkpoint) -> dict[str, Path]:
    """What lies in a checkpoint's folders besides its weights: configuration, tokenizer, templates,
    code, and an adapter's own configuration. A folder without config.json (where GGUF lies) has
    none: what is in it is not the checkpoint's.
    """
    if not member.has_config:
        return {}
    found = {
        name: path
        for name, (path, reason) in others(member).items()
        if reason is None and "/" not in name
    }
    return found | ({CONFIG: member.adapter.config.path} if member.adapter else {})


def _why_not(folder: Path, name: str, code: bool) -> str | None:
    reason = _why_not_by_name(name, code)
    if reason is None and not (folder / name).is_file():
        reason = "no plain file, or a link to one that is gone"
    if reason is None:
        reason = why_not_read(folder, folder / name)
    if reason is None and (folder / name).stat().st_size > LARGEST:
        reason = f"larger than {LARGEST} bytes, which no file of its kind is"
    if reason is None and looks_like_weights(folder / name):
        reason = "holds weights or an archive, whatever its name says"
    return reason


def _why_not_by_name(name: str, code: bool) -> str | None:
    parts = Path(name).parts
    if any(part.startswith(".") for part in parts):
        return "hidden file"
    if name in OURS:
        return "replaced by this merge's own"
    if parts[-1].startswith("adapter_"):
        return "belongs to an adapter, which transformers would load in place of the merge"
    if parts[-1].startswith(_TRAINING) or parts[0].startswith(("checkpoint-", "runs")):
        return "belongs to the donor's training"
    if is_weights(name):
        return "weights or an archive: the merged weights take their place"
    if not is_companion(name, code=code):
        return "nothing that a loader or a reader of the merged model needs"
    return None


def _adapt_config(config: Path, dtype: Dtype | None, donor: Checkpoint, *, quantized: bool) -> None:
    content = read_json(config)
    stale = None if quantized else quantization_of(content)
    grown = donor.adapter is not None and content != donor.config
    if dtype is None and not stale and not grown:
        return  # to the byte as it was
    if grown:  # by the vocabulary that the adapter brought
        content = deepcopy(dict(donor.config))
    if dtype is not None:
        key = "torch_dtype" if "torch_dtype" in content and "dtype" not in content else "dtype"
        content[key] = torch_name(dtype)
    inner = content.get("text_config")
    for place in (content, inner if isinstance(inner, dict) else {}) if stale else ():
        for key in QUANTIZATION_KEYS:
            place.pop(key, None)
        for key in ("dtype", "torch_dtype"):  # float8_e4m3fn is no format to compute in
            if (
                str(place.get(key, ""))
                .removeprefix("torch.")
                .startswith(("float8", "uint8", "int8"))
            ):
                place[key] = torch_name(DTYPES["BF16"])
    config.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
