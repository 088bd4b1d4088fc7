"""The verbs as functions: each step takes what the one before it made.

The examples run in a folder with the checkpoints ``base``, ``safety`` and ``swahili``; hub ids do
as well.

>>> import safeswap
>>> languages = {"sw": "swahili"}
>>> profile = safeswap.make_profile("base", safety="safety", languages=languages)
>>> plan = safeswap.make_plan(profile, by="layer")
>>> (merged,) = safeswap.merge_plans([plan], "merged", profile=profile)
>>> safeswap.verify_merge(merged.folder).from_inputs
True
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.checkpoint.dtypes import output_dtype
from safeswap.checkpoint.family import Family, open_family
from safeswap.checkpoint.shards import parse_size
from safeswap.checkpoint.staging import check_place
from safeswap.errors import PlanError, SafeswapError
from safeswap.io.workers import progress_bar
from safeswap.merge.companions import MANIFEST, rest_bytes
from safeswap.merge.manifest import read_manifest
from safeswap.merge.prepare import check_donor, output_layout, refuse_overlap
from safeswap.merge.run import Draw, Merged, Tell, family_of, measure, say_nothing
from safeswap.merge.run import merge as run_merge
from safeswap.merge.verify import Verification, verify_folder
from safeswap.plan import Plan, check_options, fill_plan
from safeswap.profile import Profile
from safeswap.report.figure_process import FigureProcess, can_draw
from safeswap.roles import BASE


def _refuse_twice(family: Family) -> None:
    """Before weights are read; copies under another name are found by their digests later."""
    seen: dict[Path, str] = {}
    for role, member in family.members.items():
        other = seen.setdefault(member.folder, role)
        if other != role:
            raise PlanError(
                f"the {role} expert ({member.source.text}) is identical to "
                f"{'the base' if other == BASE else f'the {other} expert'}: both are "
                f"{member.folder}, so there is nothing to swap. Give the expert's own folder."
            )


def make_profile(
    base: str | Path,
    *,
    safety: str | Path,
    languages: Mapping[str, str | Path],
    workers: int | None = None,
    quiet: bool = True,
    tell: Tell = say_nothing,
) -> Profile:
    """Measure how far each expert moved each tensor, in one pass over all checkpoints.

    Args:
        base, safety, languages: local folders or hub ids; languages by name.
        workers: threads (default: the cores, at most 8); the result does not depend on it.
        quiet: no progress bar.
        tell: given a line for each thing that a user should know although it is no obstacle.

    Raises:
        SafeswapError: a checkpoint is damaged, quantized, or not of the base's family.

    >>> profile = make_profile("base", safety="safety", languages={"sw": "swahili"})
    >>> profile.languages
    ('sw',)
    >>> profile.save(Path("profile.json"))
    >>> Profile.load(Path("profile.json")) == profile
    True
    """
    family = open_family(base, safety, languages)
    _refuse_twice(family)
    for note in family.notes:
        tell(note)
    return measure(family, workers, quiet)


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

    Raises:
        PlanError: an unknown method, parameter or language, a value out of its range, an expert
            with the weights of the base or of the other expert.

    >>> profile = make_profile("base", safety="safety", languages={"sw": "swahili"})
    >>> plan = make_plan(profile, by="module", tau=1.0, alpha=0.25)
    >>> plan.units["0.mlp"].decision, dict(plan.units["0.mlp"].weights)
    ('blend', {'safety': 0.25, 'sw': 0.75})
    >>> plan.save(Path("plan.yaml"))  # to be edited, and read with Plan.load
    """
    plan = fill_plan(profile, language, method=method, **options)
    safety, spoken = (profile.inputs[role] for role in plan.experts)
    if safety.digest == spoken.digest:
        raise PlanError(
            f"the safety expert ({safety.source}) and the {plan.language} expert "
            f"({spoken.source}) have the same weights: there is nothing to choose. Check whether "
            "one of them was given twice."
        )
    return plan


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
    tell: Tell = say_nothing,
) -> list[Merged]:
    """Carry plans out: one into ``out``, several into ``out/LANGUAGE``.

    Args:
        plans: tables that share base and safety expert, one per language.
        profile: of the same checkpoints; measured anew when missing or when files changed since.
        dtype: ``bfloat16``, ``float16``, ``float32``; by default as stored in the donor.
        shard_size: e.g. ``"5GB"``; by default the base's sharding.
        figure: draw ``safeswap.png`` (needs matplotlib; left out without it).
        tell: given a line, before anything is written, for each thing that a user should know
            although it is no obstacle.

    Raises:
        SafeswapError: what is wrong, before anything is written where it can be known before.

    >>> profile = make_profile("base", safety="safety", languages={"sw": "swahili"})
    >>> (merged,) = merge_plans([make_plan(profile)], "out", profile=profile, dtype="float16")
    >>> merged.folder.name, (merged.folder / "safeswap.json").exists()
    ('out', True)
    """
    family = family_of(plans)
    return run_merge(
        family,
        plans,
        out,
        profile=profile,
        dtype=dtype,
        shard_size=shard_size,
        workers=workers,
        draw=_told(family, figure, tell),
        quiet=quiet,
        tell=tell,
    )


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
    tell: Tell = say_nothing,
    **options: Any,
) -> list[Merged]:
    """Profile, plan and merge in one go; ``options`` are those of :func:`make_plan`, with method.

    One language goes into ``out``, several into ``out/LANGUAGE``; base and safety expert are
    measured once for all of them.

    Raises:
        SafeswapError: as the steps do.

    >>> (merged,) = swap("base", safety="safety", languages={"sw": "swahili"}, out="swapped")
    >>> merged.plan.counts()["embeddings"]
    {'blend': 1}
    """
    for language in languages:
        check_options(language, **options)
    kind = output_dtype(dtype) if dtype else None
    limit = parse_size(shard_size) if shard_size else None
    family = open_family(base, safety, languages)
    _refuse_twice(family)
    for language in languages:
        check_options(language, units=family.anatomy.units, **options)
    target = Path(out).expanduser().absolute()
    refuse_overlap(family, target)
    donors = [options.get("donor") or language for language in languages]
    for donor in donors:
        check_donor(family, donor)
    layouts = [output_layout(family, d, dtype=kind, shard_size=limit)[0] for d in donors]
    rest = sum(rest_bytes(family, donor) for donor in donors)
    check_place(target, rest + sum(layout.nbytes for layout in layouts))
    draw = _told(family, figure, tell)
    profile = measure(family, workers, quiet)
    plans = [make_plan(profile, language, **options) for language in languages]
    return run_merge(
        family,
        plans,
        out,
        profile=profile,
        dtype=dtype,
        shard_size=shard_size,
        workers=workers,
        draw=draw,
        quiet=quiet,
        tell=tell,
    )


def _told(family: Family, figure: bool, tell: Tell) -> Draw | None:
    """Tell what a user should know of a family; who draws its figure, where one can be drawn."""
    for note in family.notes:
        tell(note)
    if figure and not can_draw():
        tell("no figure is drawn: install safeswap[figures] for it, or say --no-figure")
        return None
    return FigureProcess if figure else None


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

    >>> _ = swap("base", safety="safety", languages={"sw": "swahili"}, out="checked")
    >>> verify_merge("checked").edited
    ()
    """
    manifest = read_manifest(Path(out))
    total = sum(record["size"] for record in manifest["outputs"])
    if not without_inputs:  # which are read again, to measure them
        profile = Profile.from_dict(manifest["profile"], str(Path(out) / MANIFEST))
        total += sum(file.size for record in profile.inputs.values() for file in record.files)
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
