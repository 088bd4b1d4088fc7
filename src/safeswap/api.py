"""The verbs as functions: each step takes what the one before it made.

>>> import safeswap                                            # doctest: +SKIP
>>> profile = safeswap.make_profile("base", safety="safety", languages={"sw": "swahili"})
...                                                            # doctest: +SKIP
>>> plan = safeswap.make_plan(profile, by="module")            # doctest: +SKIP
>>> safeswap.merge_plans([plan], "merged", profile=profile)    # doctest: +SKIP
>>> safeswap.verify_merge("merged").from_inputs                # doctest: +SKIP
True
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeswap import provenance
from safeswap.checkpoint.dtypes import output_dtype
from safeswap.checkpoint.family import BASE, SAFETY, Family, join_family
from safeswap.checkpoint.layout import parse_size
from safeswap.checkpoint.staging import Staging, check_place
from safeswap.checkpoint.store import open_checkpoint
from safeswap.errors import CheckpointError, OutputError, PlanError, SafeswapError
from safeswap.merge import (
    check_inputs,
    check_operator_files,
    identity,
    measure_joins,
    output_layout,
    passes_bytes,
    prepare,
    refuse_overlap,
    write_weights,
)
from safeswap.plan import Plan, check_options, check_role, fill_plan, pin_operators
from safeswap.profile import Profile, measure_family, unchanged
from safeswap.verification import Verification, verify_folder
from safeswap.work import progress_bar


@dataclass(frozen=True, slots=True)
class Merged:
    """One merged checkpoint: where it is, its plan and profile, and how it came about.

    ``resumed_bytes`` were found written and verified from an earlier, interrupted run.
    """

    folder: Path
    plan: Plan
    profile: Profile
    nbytes: int
    resumed_bytes: int


def open_family(
    base: str | Path, safety: str | Path, languages: Mapping[str, str | Path]
) -> Family:
    """Open the checkpoints of a run and check that they belong together; no weights are read.

    Raises:
        CheckpointError, FamilyError, PlanError: what is wrong with which of them.
    """
    if not languages:
        raise PlanError("no language expert is given: add --language NAME=CHECKPOINT.")
    sources = {BASE: base, SAFETY: safety}
    sources |= {check_role(name): source for name, source in languages.items()}
    members = {role: open_checkpoint(source) for role, source in sources.items()}
    return join_family(members)


def make_profile(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    workers: int | None = None,
    quiet: bool = True,
) -> Profile:
    """Measure how far each expert moved each tensor, in one pass over all checkpoints.

    Args:
        base, safety, languages: local folders or hub ids; languages by name.
        workers: threads (default: the cores, at most 8); the result does not depend on it.
        quiet: no progress bar.

    Raises:
        SafeswapError: a checkpoint is damaged, quantized, or not of the base's family.
    """
    return _measure(open_family(base, safety, languages), workers, quiet)


def _measure(family: Family, workers: int | None, quiet: bool) -> Profile:
    total = sum(m.tensors[n].nbytes for m in family.members.values() for n in family.names)
    with progress_bar("profile", total, quiet) as advance:
        return measure_family(family, workers=workers, advance=advance)


def make_plan(
    profile: Profile,
    language: str | None = None,
    *,
    method: str = "share-difference",
    **options: Any,
) -> Plan:
    """Fill a plan from a profile; reads no weights.

    Args:
        language: which language of the profile; needed when it has several.
        method: the name of a selector, see ``safeswap methods``.
        options: the method's parameters, and those of :func:`safeswap.plan.fill_plan`.
    """
    return fill_plan(profile, language, method=method, **options)


def merge_plans(
    plans: Sequence[Plan],
    out: str | Path,
    *,
    profile: Profile | None = None,
    dtype: str | None = None,
    shard_size: str | None = None,
    workers: int | None = None,
    figure: bool = True,
    quiet: bool = True,
) -> list[Merged]:
    """Carry plans out: one into ``out``, several into ``out/LANGUAGE``.

    Args:
        plans: tables that share base and safety expert, one per language.
        profile: of the same checkpoints; measured anew when missing or when files changed since.
        dtype: ``bfloat16``, ``float16``, ``float32``; by default as stored in the donor.
        shard_size: e.g. ``"5GB"``; by default the base's sharding.
        figure: draw ``safeswap.png`` (needs matplotlib; left out without it).

    Raises:
        SafeswapError: what is wrong, before anything is written where it can be known before.
    """
    family = _family_of(plans)
    plans = [pin_operators(plan) for plan in plans]
    target = Path(out).expanduser().absolute()
    kind = output_dtype(dtype) if dtype else None
    limit = parse_size(shard_size) if shard_size else None
    repeated = f" --dtype {dtype}" if dtype else ""
    repeated += f" --shard-size {shard_size}" if shard_size else ""
    folders = [plan.language if len(plans) > 1 else "" for plan in plans]
    jobs = [
        prepare(family, plan, folder=folder, dtype=kind, shard_size=limit)
        for plan, folder in zip(plans, folders, strict=True)
    ]
    refuse_overlap(family, target)
    check_place(target, sum(job.layout.nbytes for job in jobs))
    if profile is None or not _current(profile, family):
        profile = _measure(family, workers, quiet)
    check_inputs(family, plans, profile)
    check_operator_files(jobs, {role: record.digest for role, record in profile.inputs.items()})
    staging = Staging(target, identity(jobs, profile))
    drawing = None
    try:
        drawing = _start_figures(plans, folders, staging) if figure else None
        with progress_bar("statistics", passes_bytes(family, jobs), quiet) as advance:
            measure_joins(family, jobs, workers=workers, advance=advance)
        total = sum(job.layout.nbytes for job in jobs)
        with progress_bar("merge", total, quiet) as advance:
            written = write_weights(
                family, profile, jobs, staging, workers=workers, advance=advance
            )
        _refuse_changed(family, profile)
        drawn = drawing is not None and drawing.wait() == 0
        for job, tensors in zip(jobs, written.digests, strict=True):
            folder = staging.folder / job.folder
            rest = provenance.copy_rest(family, job, folder, kind)
            job.plan.save(folder / provenance.PLAN_FILE)
            if not drawn:
                (folder / provenance.FIGURE).unlink(missing_ok=True)
            provenance.write_card(family, profile, job.plan, folder, drawn, repeated)
            provenance.write_manifest(family, profile, job, folder, tensors, rest)
        staging.commit()
    except OSError as error:  # configuration, tokenizer, card: small, but disks fill up
        raise OutputError(
            f"{error.filename or target}: failed ({error.strerror}). Free some space or mend "
            "the permissions, then run the same command again: it goes on where it stopped."
        ) from error
    finally:
        if drawing is not None and drawing.poll() is None:
            drawing.kill()
            drawing.wait()
        staging.release()
    return [
        Merged(target / job.folder, job.plan, profile, job.layout.nbytes, written.resumed_bytes)
        for job in jobs
    ]


def _family_of(plans: Sequence[Plan]) -> Family:
    if not plans:
        raise PlanError("no plan is given.")
    first = plans[0].inputs
    languages: dict[str, str | Path] = {}
    for plan in plans:
        for role in (BASE, SAFETY):
            if plan.inputs[role].source != first[role].source:
                raise PlanError(f"the plans have different {role} checkpoints; merge them apart.")
        if plan.language in languages:
            raise PlanError(f"two plans are for {plan.language}; merge them into different --out.")
        languages[plan.language] = plan.inputs[plan.language].source
    return open_family(first[BASE].source, first[SAFETY].source, languages)


def _current(profile: Profile, family: Family) -> bool:
    known = set(family.members) <= set(profile.inputs)
    return known and all(unchanged(profile.inputs[role], family, role) for role in family.members)


def _refuse_changed(family: Family, profile: Profile) -> None:
    for role, member in family.members.items():
        for file in member.files:
            status = file.path.stat()
            if (status.st_size, status.st_mtime_ns) != (file.size, file.mtime_ns):
                raise CheckpointError(
                    f"{file.path}: the {role} checkpoint changed during the merge. Run it again."
                )


def _start_figures(
    plans: Sequence[Plan], folders: Sequence[str], staging: Staging
) -> subprocess.Popen[bytes]:
    """Draw beside the merge, in one process of its own: matplotlib takes a second to import."""
    command = [sys.executable, "-m", "safeswap.report.figure"]
    for plan, folder in zip(plans, folders, strict=True):
        target = staging.folder / folder
        target.mkdir(parents=True, exist_ok=True)
        plan.save(target / provenance.PLAN_FILE)
        command += [str(target / provenance.PLAN_FILE), str(target / provenance.FIGURE)]
    # numpy's BLAS would start a thread per core, which nothing here uses
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)


def swap(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    out: str | Path,
    dtype: str | None = None,
    shard_size: str | None = None,
    workers: int | None = None,
    figure: bool = True,
    quiet: bool = True,
    **options: Any,
) -> list[Merged]:
    """Profile, plan and merge in one go; ``options`` are those of :func:`make_plan`, with method.

    One language goes into ``out``, several into ``out/LANGUAGE``; base and safety expert are
    measured once for all of them.

    Raises:
        SafeswapError: as the steps do.
    """
    for language in languages:
        check_options(language, **options)
    kind = output_dtype(dtype) if dtype else None
    limit = parse_size(shard_size) if shard_size else None
    family = open_family(base, safety, languages)
    for language in languages:
        check_options(language, units=family.anatomy.units, **options)
    target = Path(out).expanduser().absolute()
    refuse_overlap(family, target)
    donors = [options.get("donor") or language for language in languages]
    layouts = (output_layout(family, d, dtype=kind, shard_size=limit)[0] for d in donors)
    check_place(target, sum(layout.nbytes for layout in layouts))
    profile = _measure(family, workers, quiet)
    plans = [fill_plan(profile, language, **options) for language in languages]
    return merge_plans(
        plans,
        out,
        profile=profile,
        dtype=dtype,
        shard_size=shard_size,
        workers=workers,
        figure=figure,
        quiet=quiet,
    )


def verify_merge(
    out: str | Path,
    *,
    inputs: Mapping[str, str | Path] | None = None,
    grams: str | Path | None = None,
    without_inputs: bool = False,
    workers: int | None = None,
    quiet: bool = True,
) -> Verification:
    """Compute a merged checkpoint again from its inputs and compare it bit for bit.

    Args:
        inputs: role → where an input lies now, for those that moved.
        grams: where the Gram matrices of `regmean` lie now, if they moved.
        without_inputs: compare the recorded digests only.

    Raises:
        SafeswapError: names what differs.
    """
    manifest = provenance.read_manifest(Path(out))
    total = sum(record["size"] for record in manifest["outputs"])
    with progress_bar("verify", total, quiet) as advance:
        return verify_folder(
            Path(out),
            inputs=inputs,
            grams=grams,
            without_inputs=without_inputs,
            workers=workers,
            advance=advance,
        )


__all__ = [
    "Merged",
    "SafeswapError",
    "make_plan",
    "make_profile",
    "merge_plans",
    "swap",
    "verify_merge",
]
