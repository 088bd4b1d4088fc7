"""Is a merged checkpoint what its plan says, bit for bit? Computed again from the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safeswap.checkpoint import digests
from safeswap.checkpoint.adapted import open_member
from safeswap.checkpoint.dtypes import DTYPES
from safeswap.checkpoint.family import Family, join_family
from safeswap.checkpoint.header import read_header
from safeswap.checkpoint.model import Checkpoint, open_checkpoint
from safeswap.checkpoint.reader import Tensor
from safeswap.checkpoint.shards import OutputTensor, lay_out
from safeswap.errors import PlanError, VerificationError, listed, nearest
from safeswap.io.buffers import buffer
from safeswap.io.workers import BLOCK_ELEMENTS, chunks_of, default_workers, run_chunks
from safeswap.merge.adapter_verify import check_adapter
from safeswap.merge.chunks import ChunkHash, all_finite, announce_chunks, chunk_bytes
from safeswap.merge.companions import MANIFEST
from safeswap.merge.manifest import AGAIN, check_digest, read_manifest
from safeswap.merge.manifest_check import check_manifest
from safeswap.merge.packed import differing_parts
from safeswap.merge.prepare import Chunk, MergeJob, check_operator_files, prepare
from safeswap.merge.stream import run_passes
from safeswap.merge.verify_files import (
    changed_small_files,
    check_plan_file,
    check_small_files,
    is_file_with,
    refuse_links,
    unexpected_files,
)
from safeswap.operators import paths_in
from safeswap.plan import Plan, edited_units, pin_operators
from safeswap.profile import Profile, measure_family
from safeswap.roles import BASE, SAFETY


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked.

    Attributes:
        tensors, nbytes: how much was compared.
        from_inputs: True when every byte was computed again; False when only digests were compared.
        edited: units whose weights are not what the recorded selector says (edited by hand).
        rewritten: card and figure where they are not as the merge wrote them: no fault, cards are
            there to be edited.
        notes: other things that are no fault: files that were added and that no loader looks for,
            configurations or tokenizers of inputs that changed since.
    """

    tensors: int
    nbytes: int
    from_inputs: bool
    edited: tuple[str, ...]
    rewritten: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def verify_folder(
    out: Path,
    *,
    inputs: Mapping[str, str | Path] | None = None,
    adapters: Mapping[str, str | Path] | None = None,
    grams: str | Path | None = None,
    without_inputs: bool = False,
    allow_remote: bool = False,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> Verification:
    """Check a merged checkpoint against its manifest, its plan and its inputs.

    Args:
        inputs: role → where an input lies now, for those that moved.
        adapters: the same of adapters.
        grams: where the Gram matrices of ``regmean`` lie now, if they moved.
        without_inputs: compare digests only.
        allow_remote: inputs that only the manifest names may be on another host than the hub's.
        advance: told how many output bytes were checked.

    Raises:
        VerificationError: names the first file or tensor that is wrong, and whether the output or
            an input changed.
        CheckpointError: an input cannot be read, or is on a host that only the manifest names.
        CalibrationError: the files of an operator are not those of the merge.
    """
    out = Path(out)
    manifest = read_manifest(out)
    plan = Plan.from_dict(manifest["plan"], str(out / MANIFEST))
    for role in {**(inputs or {}), **(adapters or {})}:
        if role not in plan.inputs:
            raise PlanError(f"{out}: has no input {role!r}{nearest(role, plan.inputs)}")
    profile = Profile.from_dict(manifest["profile"], str(out / MANIFEST))
    refuse_links(out)
    check_small_files(out, manifest)
    notes = unexpected_files(out, manifest)
    check_plan_file(out, plan)
    written = _check_shards(out, manifest)
    if grams is not None:
        plan = _with_grams(plan, Path(grams), out)
    named_in = "" if allow_remote else str(out / MANIFEST)
    recomputed = family = None
    if not without_inputs:
        family = _family_of(plan, inputs or {}, adapters or {}, named_in)
        if "adapter" not in manifest:
            recomputed = _recompute(family, plan, written, manifest)
    chunks = [
        chunk
        for name, tensor in written.items()
        for chunk in (
            recomputed.job.chunks(name, tensor.elements)
            if recomputed and name in recomputed.plain
            else [Chunk(0, name, begin, end) for begin, end in chunks_of(tensor.elements)]
        )
    ]
    jobs = [recomputed.job] if recomputed else []
    if recomputed:
        check_operator_files(jobs, {role: one.digest for role, one in profile.inputs.items()})
        run_passes(jobs, workers=workers)
    results = run_chunks(
        chunks,
        lambda chunk: _check_chunk(
            chunk,
            written[chunk.name],
            recomputed if recomputed and chunk.name in recomputed.plain else None,
        ),
        workers=workers or default_workers(),
        advance=advance,
        size=lambda chunk: (chunk.end - chunk.begin) * written[chunk.name].dtype.size,
        ahead=_ahead(recomputed),
    )
    _report(chunks, results, manifest, out)
    if recomputed:
        _check_packed(recomputed, written, out, workers or default_workers())
    if family:
        log: dict[str, dict[str, str]] | None = None
        if recomputed:
            job = recomputed.job
        else:
            job, log = check_adapter(out, manifest, family, pin_operators(plan, MANIFEST), written)
        measured = measure_family(family, workers=workers, advance=advance)
        check_manifest(out / MANIFEST, manifest, job, measured, log)
        notes += changed_small_files(manifest, family)
    check_digest(out / MANIFEST, manifest)  # last: what the others find, they name
    return Verification(
        tensors=len(written),
        nbytes=sum(tensor.nbytes for tensor in written.values()),
        from_inputs=not without_inputs,
        edited=edited_units(plan, profile),
        rewritten=tuple(n for n, d in manifest["about"].items() if not is_file_with(out / n, d)),
        notes=tuple(notes),
    )


def _ahead(recomputed: _Recomputed | None) -> Callable[[Chunk], None] | None:
    announce = announce_chunks([recomputed.job]) if recomputed else None
    if recomputed is None or announce is None:
        return None
    plain = recomputed.plain
    return lambda chunk: announce(chunk) if chunk.name in plain else None


def _with_grams(plan: Plan, grams: Path, out: Path) -> Plan:
    """The plan with its Gram matrices where they lie now; their digest stays the recorded one."""
    if not any("grams" in paths_in(operation) for operation in plan.operations):
        raise PlanError(f"{out}: no operator of its plan reads Gram matrices. Run without --grams.")
    moved = {"grams": str(grams.resolve())}
    return plan.with_operations(
        lambda o: replace(o, settings={**o.settings, **moved}) if "grams" in paths_in(o) else o
    )


def _check_shards(out: Path, manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for record in manifest["outputs"]:
        if not (out / record["name"]).exists():
            raise VerificationError(f"{out / record['name']}: the shard is missing. {AGAIN}")
        header = read_header(out / record["name"])
        known = {t.name: manifest["tensors"].get(t.name, {}).get("digest") for t in header.tensors}
        strange = [name for name, digest in known.items() if digest is None]
        if strange:
            raise VerificationError(
                f"{out / record['name']}: holds {listed(strange)}, which the manifest does not "
                f"name: one of the two was changed. {AGAIN}"
            )
        if digests.of_weight_file(header.raw, header.tensors, known) != record["digest"]:
            raise VerificationError(
                f"{out / record['name']}: its header was changed after the merge was made, or the "
                f"digests in {MANIFEST} were. {AGAIN}"
            )
        tensors |= {tensor.name: tensor for tensor in header.tensors}
    missing = [name for name in manifest["tensors"] if name not in tensors]
    if missing:
        raise VerificationError(
            f"{out}: the shards lack {listed(missing)}, which {MANIFEST} names. {AGAIN}"
        )
    return tensors


@dataclass(frozen=True, slots=True)
class _Recomputed:
    """What the inputs give; ``plain``: the tensors that are not written in parts."""

    family: Family
    job: MergeJob
    plain: frozenset[str]


def _family_of(
    plan: Plan,
    inputs: Mapping[str, str | Path],
    adapters: Mapping[str, str | Path],
    named_in: str,
) -> Family:
    """The inputs of a plan, where they lie now; an adapter's base moves with the run's."""

    def member(role: str) -> Checkpoint:
        given = plan.inputs[role]
        source: str | Path = inputs.get(role, given.source)
        if role not in inputs and given.source == plan.inputs[BASE].source:
            source = inputs.get(BASE, source)
        if role == BASE:
            return open_checkpoint(source, named_in="" if role in inputs else named_in)
        adapter = adapters.get(role) or given.adapter or None
        own = role in inputs and (adapter is None or role in adapters)
        named = "" if own else named_in
        return open_member(role, source, adapter, base=members[BASE], named_in=named)[0]

    members: dict[str, Checkpoint] = {}
    for role in (BASE, SAFETY, plan.language):
        members[role] = member(role)
    # whatever was noted or forced when the merge was made, its bytes are what is asked for now
    return join_family(members, force=True)


def _recompute(
    family: Family, plan: Plan, written: Mapping[str, Tensor], manifest: Mapping[str, Any]
) -> _Recomputed:
    names = set(family.output(plan.language, plan.donor).names)
    same = set(written) != names  # what is quantized again is written in parts
    job = prepare(family, pin_operators(plan, MANIFEST), same=same)
    seen = job.family
    found = {one.name: one.shape for name in seen.names for one in job.outputs(name)}
    if found != {name: tensor.shape for name, tensor in written.items()}:
        raise VerificationError(
            "the inputs have other tensors than the merge: they are of another model. Give the "
            "checkpoints that it was made from."
        )
    dtypes = {name: DTYPES[entry["dtype"]] for name, entry in manifest["tensors"].items()}
    groups = [[OutputTensor(n, dtypes[n], written[n].shape) for n in written]]
    dtypes = {**job.dtypes, **dtypes}
    job = replace(job, plan=plan, layout=lay_out(groups), dtypes=dtypes)
    plain = frozenset(name for name in seen.names if name not in job.packings)
    return _Recomputed(family, job, plain)


def _check_packed(
    recomputed: _Recomputed, written: Mapping[str, Tensor], out: Path, workers: int
) -> None:
    """Compare what is quantized again with what plan and inputs give.

    Raises:
        VerificationError: names the first tensor that differs.
    """
    for name in differing_parts(recomputed.job, written, workers):
        raise VerificationError(
            f"{out}: tensor {name!r} is as it was written, but the inputs now give other bytes. An "
            "input changed since; give the original."
        )


@dataclass(frozen=True, slots=True)
class _Checked:
    digest: bytes
    equal: bool
    finite: bool


def _check_chunk(chunk: Chunk, tensor: Tensor, recomputed: _Recomputed | None) -> _Checked:
    hashing, equal, finite = ChunkHash(tensor.dtype.size), True, True
    with tensor.reader() as reader:
        for at, count, wanted in _wanted(chunk, tensor, recomputed):
            found = buffer("written", count * tensor.dtype.size, np.uint8)
            reader.read_raw(at, at + count, found)
            equal = equal and (wanted is None or np.array_equal(found, wanted))
            hashing.update(found)
            finite = finite and all_finite(found, tensor.dtype)
    return _Checked(hashing.digest(), equal, finite)


def _wanted(
    chunk: Chunk, tensor: Tensor, recomputed: _Recomputed | None
) -> Iterator[tuple[int, int, NDArray[np.uint8] | None]]:
    """First element, how many, and the bytes that plan and inputs give (None: not asked for)."""
    if recomputed is None:
        for at in range(chunk.begin, chunk.end, BLOCK_ELEMENTS):
            yield at, min(BLOCK_ELEMENTS, chunk.end - at), None
        return
    for at, wanted in chunk_bytes(recomputed.job, chunk):
        yield at, len(wanted) // tensor.dtype.size, wanted


def _report(
    chunks: list[Chunk], results: list[_Checked], manifest: Mapping[str, Any], out: Path
) -> None:
    parts: dict[str, list[_Checked]] = {}
    for chunk, checked in zip(chunks, results, strict=True):
        parts.setdefault(chunk.name, []).append(checked)
    for name, checks in parts.items():
        entry = manifest["tensors"][name]
        if not all(check.finite for check in checks):
            raise VerificationError(f"{out}: tensor {name!r} has NaN or infinite weights. {AGAIN}")
        if digests.of_chunks(check.digest for check in checks) != entry["digest"]:
            raise VerificationError(
                f"{out}: tensor {name!r} was changed after the merge was made. {AGAIN}"
            )
        if not all(check.equal for check in checks):
            raise VerificationError(
                f"{out}: tensor {name!r} is as it was written, but the inputs now give other "
                f"bytes ({entry['fate']}). An input changed since; give the original."
            )
