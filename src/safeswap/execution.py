"""A run of the merge: measured where needed, written beside its name, named when whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from safeswap import card, provenance
from safeswap.checkpoint.dtypes import output_dtype
from safeswap.checkpoint.family import Family
from safeswap.checkpoint.files import remedy
from safeswap.checkpoint.layout import parse_size
from safeswap.checkpoint.staging import Staging, check_place
from safeswap.errors import CheckpointError, Interrupted, OutputError
from safeswap.merge import (
    check_donor,
    check_inputs,
    check_operator_files,
    identity,
    measure_joins,
    passes_bytes,
    prepare,
    refuse_overlap,
    write_weights,
)
from safeswap.plan import Plan, pin_operators
from safeswap.profile import Profile, measure_family, unchanged
from safeswap.work import progress_bar

Tell = Callable[[str], None]
"""Takes one line for the user."""


def say_nothing(note: str) -> None:
    """The default listener."""


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


def measure(family: Family, workers: int | None, quiet: bool) -> Profile:
    """Measure a family, with a progress bar unless ``quiet``."""
    total = sum(m.tensors[n].nbytes for m in family.members.values() for n in family.names)
    with progress_bar("profile", total, quiet) as advance:
        return measure_family(family, workers=workers, advance=advance)


def told(family: Family, figure: bool, tell: Tell) -> bool:
    """Tell what a user should know of a family; whether a figure that is wanted can be drawn."""
    for note in family.notes:
        tell(note)
    if figure and find_spec("matplotlib") is None:
        tell("no figure is drawn: install safeswap[figures] for it, or say --no-figure")
        return False
    return figure


def carry_out(
    family: Family,
    plans: Sequence[Plan],
    out: str | Path,
    *,
    profile: Profile | None,
    dtype: str | None,
    shard_size: str | None,
    workers: int | None,
    figure: bool,
    quiet: bool,
    tell: Tell,
) -> list[Merged]:
    """Carry plans out; the arguments are those of :func:`safeswap.merge_plans`."""
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
    for plan in plans:
        check_donor(family, plan.donor)
    check_place(
        target,
        sum(job.layout.nbytes + provenance.rest_bytes(family, job.plan.donor) for job in jobs),
    )
    if profile is None or not is_current(profile, family):
        profile = measure(family, workers, quiet)
    check_inputs(family, plans, profile)
    check_operator_files(jobs, {role: record.digest for role, record in profile.inputs.items()})
    staging = Staging(target, identity(jobs, profile))
    drawing = None
    try:
        drawing = _start_figures(plans, folders, staging) if figure else None
        with progress_bar("statistics", passes_bytes(family, jobs), quiet) as advance:
            measure_joins(family, jobs, workers=workers, advance=advance)
        total = sum(
            job.dtypes[name].size * family.base.tensors[name].elements
            for job in jobs
            for name in family.names
        )
        with progress_bar("merge", total, quiet) as advance:
            written = write_weights(
                family, profile, jobs, staging, workers=workers, advance=advance
            )
        _refuse_changed(family, profile)
        drawn = drawing is not None and drawing.wait() == 0
        if drawing is not None and not drawn:
            tell("the figure could not be drawn; safeswap show OUT --png FILE says why")
        for job, tensors in zip(jobs, written.digests, strict=True):
            folder = staging.folder / job.folder
            rest = provenance.copy_rest(family, job, folder, kind)
            job.plan.save(folder / provenance.PLAN_FILE)
            if not drawn:
                (folder / provenance.FIGURE).unlink(missing_ok=True)
            card.write_card(profile, job.plan, folder, drawn, repeated)
            provenance.write_manifest(family, profile, job, folder, tensors, rest)
        staging.commit()
    except KeyboardInterrupt as error:
        raise Interrupted from error
    except OSError as error:  # configuration, tokenizer, card: small, but disks fill up
        raise OutputError(
            f"{error.filename or target}: failed ({error.strerror}). {remedy(error)}"
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


def is_current(profile: Profile, family: Family) -> bool:
    """Whether a profile is of these very checkpoints, as far as their files tell."""
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
