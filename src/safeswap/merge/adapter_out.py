"""A run that writes an adapter: factors into one small file, with configuration, card, manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from safeswap.checkpoint import digests
from safeswap.checkpoint.adapters.config import CONFIG
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.header import build_header
from safeswap.checkpoint.loaded_names import is_tokenizer
from safeswap.checkpoint.source import ADAPTER_FILES
from safeswap.checkpoint.staging import Staging, check_place
from safeswap.errors import Interrupted, OutputError, PlanError, listed
from safeswap.io.blas import one_thread
from safeswap.io.files import fsync_path, remedy
from safeswap.io.workers import CHUNK_ELEMENTS
from safeswap.merge import card, manifest
from safeswap.merge.adapter_modules import AdapterParts, adapter_parts
from safeswap.merge.adapter_settings import adapter_config
from safeswap.merge.adapter_written import Written
from safeswap.merge.chunks import ChunkHash
from safeswap.merge.companions import PLAN_FILE, RestOfCheckpoint, copy_files, others
from safeswap.merge.prepare import MergeJob, check_inputs, identity, prepare, refuse_overlap
from safeswap.merge.shipping import Shipping, finish
from safeswap.merge.unchanged import refuse_changed, small_names
from safeswap.plan import Plan, pin_operators
from safeswap.profile import Profile

FILE = ADAPTER_FILES[0]
_VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for ``--max-lora-rank``."""

FORMS = ("whole", "biases", "tokens", "parameters", "dora")
"""Keys of what the manifest says of an adapter's forms."""
_NOT_VLLM = {
    "whole": "modules_to_save",
    "biases": "biases",
    "tokens": "trainable_token_indices",
    "dora": "DoRA",
}
"""Those of them that vLLM does not take, in peft's words."""


@dataclass(frozen=True)
class AdapterJob:
    """A plan and the adapter that it makes; ``said``: what is to be known of it, once made."""

    job: MergeJob
    parts: AdapterParts
    rank: int | None
    said: list[str] = field(default_factory=list)


def prepare_adapters(family: Family, plans: Sequence[Plan], rank: int | None) -> list[AdapterJob]:
    """Check that plans can be written as adapters; reads no weights.

    Raises:
        PlanError: as :func:`adapter_parts`.
    """
    if rank is not None and rank < 1:
        raise PlanError(f"--rank {rank}: no rank. Use a number from 1 on.")
    plans = [pin_operators(plan) for plan in plans]
    folders = [plan.language if len(plans) > 1 else "" for plan in plans]
    jobs = [prepare(family, p, folder=f) for p, f in zip(plans, folders, strict=True)]
    for job in jobs:
        if job.family is not family:
            raise PlanError(
                "--as adapter: the experts have tokens in other rows than the base, or tie their "
                "output projection otherwise, which no adapter of the base holds. Use --as "
                "checkpoint (the default): a whole checkpoint holds them."
            )
    return [AdapterJob(job, adapter_parts(family, job, rank), rank) for job in jobs]


def write_adapters(
    family: Family,
    jobs: Sequence[AdapterJob],
    target: Path,
    measured: Callable[[], Profile],
    *,
    overwrite: bool = False,
    shipping: Shipping | None = None,
) -> tuple[Profile, list[int]]:
    """Write the adapters of all jobs.

    Args:
        measured: gives the profile of the family, once all else was checked.
        shipping: takes the output away from ``target``.

    Returns:
        The profile, and the bytes of each file of weights.

    Raises:
        OutputError: the place cannot be written.
        CheckpointError, FamilyError: an input changed, or cannot be read.
    """
    refuse_overlap(family, target)
    if overwrite:
        manifest.refuse_foreign(target)
    check_place(target, sum(_nbytes(one.parts) for one in jobs), replace=overwrite)
    small = small_names(family)
    profile = measured()
    check_inputs(family, [one.job.plan for one in jobs], profile)
    staging = Staging(target, _identity(jobs, profile), replace=overwrite)
    sizes = []
    try:
        if shipping:
            shipping.begin(staging)
        for one in jobs:
            folder = staging.folder / one.job.folder
            folder.mkdir(parents=True, exist_ok=True)
            sizes.append(_write_one(family, one, folder, profile))
        refuse_changed(family, profile, small)
        finish(staging, shipping)
    except KeyboardInterrupt as error:
        raise Interrupted from error
    except OSError as error:
        raise OutputError(
            f"{error.filename or target}: failed ({error.strerror}). {remedy(error)}"
        ) from error
    finally:
        if shipping:
            shipping.stop()
        staging.release()
    return profile, sizes


def _identity(jobs: Sequence[AdapterJob], profile: Profile) -> str:
    said = [identity([one.job for one in jobs], profile), "adapter", [one.rank for one in jobs]]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _nbytes(parts: AdapterParts) -> int:
    total = 0
    for one in parts.written():
        size = one.dtype.size
        for length in one.shape:
            size *= length
        total += size
    return total


def _write_one(family: Family, one: AdapterJob, folder: Path, profile: Profile) -> int:
    job, parts = one.job, one.parts
    written = list(parts.written())
    header, _ = build_header([(w.name, w.dtype, w.shape) for w in written], {"format": "pt"})
    found: dict[str, str] = {}
    path = folder / FILE
    with one_thread(), path.open("wb") as stream:
        stream.write(header)
        for tensor in written:
            found[tensor.name] = digest_of(tensor, lambda raw: stream.write(raw.data))
    fsync_path(path)
    entries = {
        w.name: {"unit": w.unit, "fate": w.fate, "dtype": w.dtype.name, "digest": found[w.name]}
        for w in written
    }
    digest = blake3(header + b"".join(bytes.fromhex(found[w.name]) for w in written)).hexdigest()
    config = adapter_config(family, job.plan, parts)
    rest = _copy_rest(family, job, folder, config)
    job.plan.save(folder / PLAN_FILE)
    said = about(one, config)
    written_card = card.AdapterCard(lines(said), said["discarded"])
    card.write_card(profile, job.plan, folder, False, options(one), adapter=written_card)
    manifest.write_content(
        profile,
        job,
        folder,
        outputs=[{"name": FILE, "size": path.stat().st_size, "digest": digest}],
        tensors=entries,
        rest=rest,
        more={"adapter": said},
    )
    one.said[:] = lines(said)
    return path.stat().st_size


def digest_of(tensor: Written, take: Any) -> str:
    """The digest (hex) of a tensor while it is made; ``take`` is given its bytes, block by block.

    They are cut where the digests' chunks end: a block may hold several.
    """
    hashing = ChunkHash(tensor.dtype.size)
    room = limit = CHUNK_ELEMENTS * tensor.dtype.size
    for raw in tensor.blocks():
        take(raw)
        at = 0
        while at < len(raw):
            piece = raw[at : at + room]
            hashing.update(piece)
            at += len(piece)
            room = room - len(piece) or limit
    done = hashing.digest()
    return digests.of_chunks(done[n : n + 32] for n in range(0, len(done), 32))


def _copy_rest(
    family: Family, job: MergeJob, folder: Path, config: Mapping[str, Any]
) -> RestOfCheckpoint:
    """The donor's tokenizer and templates go along, as trainers save them; not its model's."""
    donor = family.members[job.plan.donor]
    found = {
        name: (path, reason or (None if is_tokenizer(name) else "belongs to the base"))
        for name, (path, reason) in others(donor).items()
    }
    rest = copy_files(found, folder)
    text = json.dumps(dict(config), indent=2, ensure_ascii=False) + "\n"
    (folder / CONFIG).write_text(text, encoding="utf-8")
    digest = digests.of_small_file(folder / CONFIG)
    return RestOfCheckpoint({**rest.copied, CONFIG: digest}, rest.left_out)


def about(one: AdapterJob, config: Mapping[str, Any]) -> dict[str, Any]:
    """What the manifest says of the adapter; after its tensors were made."""
    parts = one.parts
    return {
        "rank": one.rank,
        "base": config["base_model_name_or_path"],
        "ranks": sorted({module.rank for module in parts.modules}),
        "whole": list(parts.owners),
        "biases": list(parts.biases),
        "tokens": {module: len(rows) for module, rows in parts.tokens.items()},
        "parameters": [module.name for module in parts.modules if module.parameter],
        "dora": parts.dora,
        "discarded": parts.discarded(),
    }


def options(one: AdapterJob) -> str:
    """What the command to make it again needs besides the plan."""
    return " --as adapter" + (f" --rank {one.rank}" if one.rank else "")


def lines(said: Mapping[str, Any]) -> list[str]:
    """What a user should know of a merged adapter, in a line each."""
    return list(_lines(said))


def _lines(said: Mapping[str, Any]) -> Iterator[str]:
    ranks, lost = said["ranks"], said["discarded"]
    if ranks:
        shown = f"{ranks[0]}" if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
        yield f"ranks of its modules: {shown}"
    if lost:
        worst = sorted(lost, key=lambda unit: -lost[unit])
        shown = listed([f"{unit} {100 * lost[unit]:.3g} %" for unit in worst], 6)
        yield (
            f"cut to rank {said['rank']}; discarded of the sum of squares of each unit's update, "
            f"most first: {shown}"
        )
    if said["whole"]:
        yield f"written whole (modules_to_save): {', '.join(said['whole'])}"
    for module, count in said["tokens"].items():
        yield f"rows of {module} (trainable_token_indices): {count}"
    if said["biases"]:
        yield f"biases, which stay where peft takes the adapter off again: {len(said['biases'])}"
    if said["dora"]:
        yield "all modules have magnitudes (DoRA)"
    others = [word for form, word in _NOT_VLLM.items() if said[form]]
    if others:
        yield f"vLLM takes no {', no '.join(others)}: write a whole checkpoint for it"
    elif ranks:
        needed = next((rank for rank in _VLLM_RANKS if rank >= ranks[-1]), None)
        if needed is None:
            yield f"vLLM takes ranks up to {_VLLM_RANKS[-1]}: compress with --rank for it"
        else:
            yield f"vLLM: --enable-lora --max-lora-rank {needed}"
