"""A run of the merge: measured where needed, written beside its name, named when whole."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from safeswap.checkpoint.dtypes import is_same, output_dtype
from safeswap.checkpoint.family import Family, open_family
from safeswap.checkpoint.shards import parse_size
from safeswap.checkpoint.staging import Staging, check_place
from safeswap.errors import ConfigError, Interrupted, OutputError, PlanError
from safeswap.io.files import remedy
from safeswap.io.progress import bytes_bar
from safeswap.merge import card, companions, manifest
from safeswap.merge.adapter_out import prepare_adapters, write_adapters
from safeswap.merge.prepare import (
    check_donor,
    check_inputs,
    check_operator_files,
    identity,
    prepare,
    refuse_overlap,
)
from safeswap.merge.shipping import Shipping, bytes_here, finish
from safeswap.merge.stream import passes_bytes, run_passes
from safeswap.merge.unchanged import refuse_changed, small_names
from safeswap.merge.write import write_weights
from safeswap.plan import Plan, pin_operators
from safeswap.profile import (
    Profile,
    bytes_to_measure,
    check_descent,
    measure_family,
    refuse_strangers,
    unchanged,
)
from safeswap.roles import BASE, SAFETY

_log = logging.getLogger("safeswap.merge")


class Drawing(Protocol):
    """Figures that are being drawn while the weights are written."""

    def finish(self) -> bool:
        """Wait for the figures; whether all were drawn."""
        ...

    def cancel(self) -> None:
        """Stop drawing; does nothing when it is finished."""
        ...


Draw = Callable[[Sequence[tuple[Path, Path]], Profile | None], Drawing]
"""Starts to draw each plan file into the PNG beside it; with what was measured, where a plan's own
numbers say nothing of the experts."""


@dataclass(frozen=True, slots=True)
class Merged:
    """One merged checkpoint: where it is, its plan and profile, and how it came about.

    ``resumed_bytes`` were found written and verified from an earlier, interrupted run; ``said`` is
    what is to be known of an adapter. ``sent_to`` is its address where it is in a bucket; nothing
    is left in ``folder`` then.
    """

    folder: Path
    plan: Plan
    profile: Profile
    nbytes: int
    resumed_bytes: int
    said: tuple[str, ...] = ()
    sent_to: str = ""


def measure(family: Family, workers: int | None, *, force: bool = False) -> Profile:
    """Measure a family, with a progress bar where they are on.

    Args:
        force: measure experts too that are no fine-tunes of the base.

    Raises:
        FamilyError: a sample of the weights, read first, shows such an expert, or all of them do.
        CheckpointError: as `measure_family`.
    """
    if not force:
        refuse_strangers(family)
    with bytes_bar("profile", bytes_to_measure(family)) as advance:
        profile = measure_family(family, workers=workers, advance=advance)
    check_descent(profile, force=force)
    return profile


def family_of(plans: Sequence[Plan], *, allow_remote: bool = False, force: bool = False) -> Family:
    """The checkpoints of plans that are carried out together, opened.

    Args:
        allow_remote: they may be on another host than the configured hub.
        force: as for :func:`open_family`.

    Raises:
        PlanError: no plan, another base or safety expert in one of them, a language twice.
        CheckpointError, FamilyError: as :func:`open_family`.
    """
    if not plans:
        raise PlanError("no plan is given.")
    first = plans[0].inputs
    languages: dict[str, str | Path] = {}
    adapters: dict[str, str | Path] = {}
    for plan in plans:
        for role in (BASE, SAFETY):
            one, two = plan.inputs[role], first[role]
            if (one.source, one.adapter) != (two.source, two.adapter):
                raise PlanError(f"the plans have different {role} checkpoints; merge them apart.")
        if plan.language in languages:
            raise PlanError(f"two plans are for {plan.language}; merge them into different --out.")
        languages[plan.language] = plan.inputs[plan.language].source
        adapters |= {r: given.adapter for r, given in plan.inputs.items() if given.adapter}
    named_in = "" if allow_remote else "the plan"
    return open_family(
        first[BASE].source,
        first[SAFETY].source,
        languages,
        adapters=adapters,
        named_in=named_in,
        force=force,
    )


def merge(
    family: Family,
    plans: Sequence[Plan],
    out: str | Path,
    *,
    profile: Profile | None = None,
    dtype: str | None = None,
    shard_size: str | None = None,
    workers: int | None = None,
    draw: Draw | None = None,
    overwrite: bool = False,
    force: bool = False,
    as_adapter: bool = False,
    rank: int | None = None,
    shipping: Shipping | None = None,
) -> list[Merged]:
    """Carry plans out; the arguments are those of :func:`safeswap.merge_plans`.

    Args:
        draw: starts to draw the figures that the cards show; None draws none.
        shipping: takes the output away from ``out``, which then is where it grows.
    """
    plans = [pin_operators(plan) for plan in plans]
    target = Path(out).expanduser().absolute()
    check_form(as_adapter, rank, dtype, shard_size)

    def current() -> Profile:
        known = profile
        if known is None or not is_current(known, family):
            known = measure(family, workers, force=force)
        check_descent(known, force=force)
        return known

    if as_adapter:
        adapters = prepare_adapters(family, plans, rank)
        found, sizes = write_adapters(
            family, adapters, target, current, overwrite=overwrite, shipping=shipping
        )
        return [
            Merged(
                target / a.job.folder,
                a.job.plan,
                found,
                size,
                0,
                tuple(a.said),
                _address(shipping, a.job.folder),
            )
            for a, size in zip(adapters, sizes, strict=True)
        ]
    kind, same = output_dtype(dtype), is_same(dtype)
    limit = parse_size(shard_size) if shard_size else None
    repeated = f" --save-dtype {dtype}" if dtype else ""
    repeated += f" --shard-size {shard_size}" if shard_size else ""
    folders = [plan.language if len(plans) > 1 else "" for plan in plans]
    jobs = [
        prepare(family, plan, folder=folder, dtype=kind, shard_size=limit, same=same)
        for plan, folder in zip(plans, folders, strict=True)
    ]
    for job in jobs:
        for line in job.family.rows.said():
            _log.info(f"{job.plan.language}: {line}")
    refuse_overlap(family, target)
    if overwrite:
        manifest.refuse_foreign(target)
    for plan in plans:
        check_donor(family, plan.donor)
    leaving = shipping is not None and not any(job.packings for job in jobs)
    small_bytes = sum(companions.rest_bytes(family.members[job.plan.donor]) for job in jobs)
    check_place(
        target,
        small_bytes + bytes_here([job.layout for job in jobs], leaving=leaving),
        replace=overwrite,
        option="--scratch" if shipping else "--out",
    )
    small = small_names(family)
    profile = current()
    check_inputs(family, plans, profile)
    check_operator_files(jobs, {role: record.digest for role, record in profile.inputs.items()})
    staging = Staging(target, identity(jobs, profile), replace=overwrite)
    drawing: Drawing | None = None
    try:
        if shipping:
            shipping.begin(staging)
        measured = profile if any(plan.is_uniform for plan in plans) else None
        drawing = draw(_save_plans(plans, folders, staging), measured) if draw else None
        with bytes_bar("statistics", passes_bytes(jobs)) as advance:
            run_passes(jobs, workers=workers, advance=advance)
        total = sum(
            job.dtypes[name].size * job.elements(name) for job in jobs for name in job.family.names
        )
        with bytes_bar("merge", total) as advance:
            written = write_weights(
                family,
                profile,
                jobs,
                staging,
                workers=workers,
                advance=advance,
                shipping=shipping,
            )
        drawn = drawing is not None and drawing.finish()
        if drawing is not None and not drawn:
            _log.warning("the figure could not be drawn; safeswap show OUT --png FILE says why")
        for job, tensors in zip(jobs, written.digests, strict=True):
            folder = staging.folder / job.folder
            rest = companions.copy_rest(job, folder, kind)
            job.plan.save(folder / companions.PLAN_FILE)
            if not drawn:
                (folder / companions.FIGURE).unlink(missing_ok=True)
            rows = job.family.rows.said()
            card.write_card(profile, job.plan, folder, drawn, repeated, rows)
            manifest.write_manifest(profile, job, folder, tensors, rest)
        refuse_changed(family, profile, small)
        finish(staging, shipping)
    except KeyboardInterrupt as error:
        raise Interrupted from error
    except OSError as error:  # configuration, tokenizer, card: small, but disks fill up
        raise OutputError(
            f"{error.filename or target}: failed ({error.strerror}). {remedy(error)}"
        ) from error
    finally:
        if drawing is not None:
            drawing.cancel()
        if shipping:
            shipping.stop()
        staging.release()
    return [
        Merged(
            target / job.folder,
            job.plan,
            profile,
            job.layout.nbytes,
            written.resumed_bytes,
            sent_to=_address(shipping, job.folder),
        )
        for job in jobs
    ]


def _address(shipping: Shipping | None, folder: str) -> str:
    if shipping is None:
        return ""
    return f"{shipping.address}/{folder}" if folder else shipping.address


def check_form(
    as_adapter: bool, rank: int | None, dtype: str | None, shard_size: str | None
) -> None:
    """Refuse options of the output that do not go together.

    Raises:
        ConfigError: names them.
    """
    if rank is not None and not as_adapter:
        raise ConfigError("--rank is the rank of an adapter: use it with --as adapter.")
    if as_adapter and (dtype or shard_size):
        named = "--save-dtype" if dtype else "--shard-size"
        raise ConfigError(f"{named} is of whole checkpoints. Use it without --as adapter.")


def is_current(profile: Profile, family: Family) -> bool:
    """Whether a profile is of all weights of these very checkpoints, as far as their files tell;
    and, where rows are matched by token, by the same map, which the notes name.
    """
    known = profile.sample is None and set(family.members) <= set(profile.inputs)
    known = known and {tensor.name for tensor in profile.tensors} == set(family.names)
    known = known and (family.alignment is None or set(family.notes) <= set(profile.notes))
    return known and all(unchanged(profile.inputs[role], family, role) for role in family.members)


def _save_plans(
    plans: Sequence[Plan], folders: Sequence[str], staging: Staging
) -> list[tuple[Path, Path]]:
    """Write each plan beside where its weights will be; (plan file, figure) for who draws it."""
    places = []
    for plan, folder in zip(plans, folders, strict=True):
        target = staging.folder / folder
        target.mkdir(parents=True, exist_ok=True)
        plan.save(target / companions.PLAN_FILE)
        places.append((target / companions.PLAN_FILE, target / companions.FIGURE))
    return places
