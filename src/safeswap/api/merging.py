"""Profile, plan, merge, verify: the verbs that make a checkpoint, as functions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safeswap.checkpoint.dtypes import is_same, output_dtype
from safeswap.checkpoint.family import Family, open_family
from safeswap.checkpoint.shards import parse_size
from safeswap.checkpoint.staging import check_place
from safeswap.errors import PlanError, listed
from safeswap.io.progress import bytes_bar
from safeswap.merge.companions import MANIFEST, rest_bytes
from safeswap.merge.manifest import read_manifest, refuse_foreign
from safeswap.merge.prepare import check_donor, output_layout, refuse_overlap
from safeswap.merge.run import Draw, Merged, check_form, family_of, measure
from safeswap.merge.run import merge as run_merge
from safeswap.merge.shipping import bytes_here
from safeswap.merge.verify import Verification, verify_folder
from safeswap.plan import Plan, check_options, fill_plan
from safeswap.plan.sampled import Wish, sample_family, uncertain
from safeswap.plan.table import SELECTOR
from safeswap.profile import Profile, check_descent, refuse_strangers
from safeswap.publish.shipment import refuse_same, shipped
from safeswap.report.figure_process import FigureProcess, can_draw
from safeswap.roles import BASE, RESERVED, SAFETY

_log = logging.getLogger("safeswap.api")
_RULE = ("by", "tau", "tau_relative")
NONE: Mapping[str, str | Path] = MappingProxyType({})
"""No checkpoints."""


def _refuse_twice(family: Family) -> None:
    """Before weights are read; copies under another name are found by their digests later."""
    seen: dict[tuple[Path, ...], str] = {}
    for role, member in family.members.items():
        other = seen.setdefault(member.folders, role)
        if other != role:
            raise PlanError(
                f"the {role} expert ({member.text}) is identical to "
                f"{'the base' if other == BASE else f'the {other} expert'}: both are "
                f"{member.folders[-1]}, so there is nothing to swap. Give the expert's own folder."
            )


def make_profile(
    base: str | Path,
    *,
    safety: str | Path | None = None,
    languages: Mapping[str, str | Path] = NONE,
    adapters: Mapping[str, str | Path] = NONE,
    sample: Wish | None = None,
    workers: int | None = None,
    force: bool = False,
) -> Profile:
    """Measure how far each expert moved each tensor, in one pass over all checkpoints.

    Args:
        base, safety, languages: local folders or hub ids; languages by name. Experts may be
            adapters (peft's LoRA), whose configuration names their base.
        adapters: role → adapter, on the expert of that role or, where none is given, on its base.
        sample: read a part of the weights only, and give intervals for the differences of shares.
        workers: threads (default: the cores, at most 8); the result does not depend on it.
        force: measure experts too whose configuration or weights say that they are no fine-tunes
            of the base; the profile's notes say what was wrong.

    Raises:
        SafeswapError: a checkpoint is damaged, quantized, or not of the base's family.

    >>> profile = make_profile("base", safety="safety", languages={"sw": "swahili"})
    >>> profile.languages
    ('sw',)
    >>> profile.save(Path("profile.json"))
    >>> Profile.load(Path("profile.json")) == profile
    True
    """
    family = open_family(base, safety, languages, adapters=adapters, force=force)
    _refuse_twice(family)
    _note(family)
    if sample is None:
        return measure(family, workers, force=force)
    if not force:
        refuse_strangers(family)
    with bytes_bar("sample", family.bytes_to_read()) as advance:
        profile = sample_family(family, sample, workers=workers, advance=advance)
    check_descent(profile, force=force)
    return profile


def make_plan(
    profile: Profile,
    language: str | None = None,
    *,
    method: str = "share-difference",
    force: bool = False,
    **options: Any,
) -> Plan:
    """Fill a plan from a profile; reads no weights.

    Args:
        language: which language of the profile; needed when it has several.
        method: the name of a selector, see ``safeswap methods``.
        force: plan for an expert too that is no fine-tune of the base.
        options: the method's parameters, and those of :func:`safeswap.plan.fill_plan`.

    Raises:
        PlanError: an unknown method, parameter or language, a value out of its range, an expert
            with the weights of the base or of the other expert.
        FamilyError: an expert is no fine-tune of the base, by the profile's numbers.

    >>> profile = make_profile("base", safety="safety", languages={"sw": "swahili"})
    >>> plan = make_plan(profile, by="module", tau=1.0, alpha=0.25)
    >>> plan.units["0.mlp"].decision, dict(plan.units["0.mlp"].weights)
    ('blend', {'safety': 0.25, 'sw': 0.75})
    >>> plan.save(Path("plan.yaml"))  # to be edited, and read with Plan.load
    """
    plan = fill_plan(profile, language, method=method, **options)
    check_plannable(profile, [plan.language], force=force)
    _note_uncertain(profile, plan)
    return plan


def check_plannable(profile: Profile, languages: Sequence[str], *, force: bool = False) -> None:
    """Refuse experts that no plan can choose among.

    Args:
        force: take one too that is no fine-tune of the base, with a warning.

    Raises:
        PlanError: a language expert with the weights of the safety expert.
        FamilyError: an expert is no fine-tune of the base, by the profile's numbers.
    """
    check_descent(profile, (SAFETY, *languages), force=force)
    safety = profile.inputs[SAFETY]
    for language in languages:
        spoken = profile.inputs[language]
        if safety.digest == spoken.digest != "":
            raise PlanError(
                f"the safety expert ({safety.given}) and the {language} expert "
                f"({spoken.given}) have the same weights: there is nothing to choose. Check "
                "whether one of them was given twice."
            )


def _note_uncertain(profile: Profile, plan: Plan) -> None:
    """What a plan from a sample leaves open, in the log."""
    if profile.sample is None:
        return
    settings = plan.selector
    if settings["name"] != SELECTOR:
        _log.warning(
            f"{plan.language}: planned from a sample of the weights; a sample knows intervals for "
            f"--method {SELECTOR} only, so how certain these decisions are is not known"
        )
        return
    found = uncertain(profile, plan.language, **{k: settings[k] for k in _RULE})
    if found:
        _log.warning(
            f"{plan.language}: {len(found)} decisions are not certain at "
            f"{100 * profile.sample.confidence:g} %: {listed(found)}. Read more: safeswap profile "
            "with --until-certain, or without --budget"
        )


def merge_plans(
    plans: Sequence[Plan],
    out: str | Path,
    *,
    profile: Profile | None = None,
    dtype: str | None = None,
    shard_size: str | None = None,
    workers: int | None = None,
    figure: bool = True,
    allow_remote: bool = False,
    overwrite: bool = False,
    force: bool = False,
    as_adapter: bool = False,
    rank: int | None = None,
    scratch: str | Path | None = None,
) -> list[Merged]:
    """Carry plans out: one into ``out``, several into ``out/LANGUAGE``.

    ``out`` is a folder, or one in a bucket (``s3://bucket/folder``, ``gs://…``): then shards are
    sent as soon as they are whole, and nothing is shown there until all are.

    Args:
        plans: tables that share base and safety expert, one per language.
        profile: of the same checkpoints; measured anew when missing or when files changed since.
        dtype: ``bfloat16``, ``float16``, ``float32``; by default as stored in the donor, quantized
            weights in bfloat16. ``same``: quantized again as the donor's are.
        shard_size: e.g. ``"5GB"``; by default the base's sharding.
        figure: draw ``safeswap.png`` (needs matplotlib; left out without it).
        allow_remote: the plans' inputs may be on another host than the configured hub.
        overwrite: an earlier merge at ``out`` is replaced, once the new one is whole.
        force: merge experts too whose configuration or weights say that they are no fine-tunes of
            the base.
        as_adapter: write an adapter of the base (peft's LoRA); all experts must be adapters of it.
        rank: of that adapter's modules at most; by default the sum of those that are joined.
        scratch: the folder in which what goes into a bucket grows; by default one of the cache.

    Raises:
        SafeswapError: what is wrong, before anything is written where it can be known before.

    >>> profile = make_profile("base", safety="safety", languages={"sw": "swahili"})
    >>> (merged,) = merge_plans([make_plan(profile)], "out", profile=profile, dtype="float16")
    >>> merged.folder.name, (merged.folder / "safeswap.json").exists()
    ('out', True)
    """
    with shipped(out, scratch, overwrite=overwrite) as (target, shipment):
        family = family_of(plans, allow_remote=allow_remote, force=force)
        refuse_same(family, shipment)
        return run_merge(
            family,
            plans,
            target,
            profile=profile,
            dtype=dtype,
            shard_size=shard_size,
            workers=workers,
            draw=_noted(family, figure and not as_adapter),
            overwrite=overwrite and shipment is None,
            force=force,
            as_adapter=as_adapter,
            rank=rank,
            shipping=shipment,
        )


def merge(
    base: str | Path,
    *,
    safety: str | Path | None = None,
    languages: Mapping[str, str | Path] = NONE,
    adapters: Mapping[str, str | Path] = NONE,
    out: str | Path,
    dtype: str | None = None,
    shard_size: str | None = None,
    workers: int | None = None,
    figure: bool = True,
    overwrite: bool = False,
    force: bool = False,
    as_adapter: bool = False,
    rank: int | None = None,
    scratch: str | Path | None = None,
    **options: Any,
) -> list[Merged]:
    """Profile, plan and merge in one go; ``options`` are those of :func:`make_plan`, with method.

    ``out``, ``force``, ``as_adapter``, ``rank`` and ``scratch`` are those of :func:`merge_plans`.

    One language goes into ``out``, several into ``out/LANGUAGE``; base and safety expert are
    measured once for all of them.

    Raises:
        SafeswapError: as the steps do.

    >>> (merged,) = merge("base", safety="safety", languages={"sw": "swahili"}, out="swapped")
    >>> merged.plan.counts()["embeddings"]
    {'blend': 1}
    """
    spoken = tuple(dict.fromkeys(r for r in (*languages, *adapters) if r not in RESERVED))
    for language in spoken:
        check_options(language, **options)
    kind, same = output_dtype(dtype), is_same(dtype)
    limit = parse_size(shard_size) if shard_size else None
    with shipped(out, scratch, overwrite=overwrite) as (target, shipment):
        family = open_family(base, safety, languages, adapters=adapters, force=force)
        _refuse_twice(family)
        refuse_same(family, shipment)
        for language in spoken:
            anatomy = family.anatomy
            check_options(language, units=anatomy.units, parts=anatomy.parts, **options)
        target = target.expanduser().absolute()
        refuse_overlap(family, target)
        here = overwrite and shipment is None
        if here:
            refuse_foreign(target)
        donors = {language: options.get("donor") or language for language in spoken}
        for donor in donors.values():
            check_donor(family, donor)
        check_form(as_adapter, rank, dtype, shard_size)
        layouts = [
            output_layout(
                family.output(language, donor), donor, dtype=kind, shard_size=limit, same=same
            )[0]
            for language, donor in donors.items()
        ]
        room = sum(rest_bytes(family.members[donor]) for donor in donors.values())
        room += bytes_here(layouts, leaving=shipment is not None and not same)
        option = "--scratch" if shipment else "--out"
        check_place(target, 0 if as_adapter else room, replace=here, option=option)
        draw = _noted(family, figure and not as_adapter)
        profile = measure(family, workers, force=force)
        plans = [make_plan(profile, language, force=force, **options) for language in spoken]
        return run_merge(
            family,
            plans,
            target,
            profile=profile,
            dtype=dtype,
            shard_size=shard_size,
            workers=workers,
            draw=draw,
            overwrite=here,
            force=force,
            as_adapter=as_adapter,
            rank=rank,
            shipping=shipment,
        )


def _note(family: Family) -> None:
    """What a user should know of a family although it is no obstacle."""
    for note in family.notes:
        _log.warning(note)


def _noted(family: Family, figure: bool) -> Draw | None:
    """Note what is to be known of a family; who draws its figure, where one can be drawn."""
    _note(family)
    if figure and not can_draw():
        _log.warning("no figure is drawn: install safeswap[figures] for it, or say --no-figure")
        return None
    return FigureProcess if figure else None


def verify_merge(
    out: str | Path,
    *,
    inputs: Mapping[str, str | Path] | None = None,
    adapters: Mapping[str, str | Path] | None = None,
    grams: str | Path | None = None,
    without_inputs: bool = False,
    allow_remote: bool = False,
    workers: int | None = None,
) -> Verification:
    """Compute a merged checkpoint again from its inputs and compare it bit for bit.

    Args:
        inputs: role → where an input lies now, for those that moved.
        adapters: the same of adapters.
        grams: where the Gram matrices of ``regmean`` lie now, if they moved.
        without_inputs: compare the recorded digests only.
        allow_remote: inputs that only the manifest names may be on another host than the hub's.

    Raises:
        SafeswapError: names what differs.

    >>> _ = merge("base", safety="safety", languages={"sw": "swahili"}, out="checked")
    >>> verify_merge("checked").edited
    ()
    """
    manifest = read_manifest(Path(out))
    total = sum(record["size"] for record in manifest["outputs"])
    if not without_inputs:  # which are read again, to measure them
        profile = Profile.from_dict(manifest["profile"], str(Path(out) / MANIFEST))
        total += sum(file.size for record in profile.inputs.values() for file in record.files)
    with bytes_bar("verify", total) as advance:
        return verify_folder(
            Path(out),
            inputs=inputs,
            adapters=adapters,
            grams=grams,
            without_inputs=without_inputs,
            allow_remote=allow_remote,
            workers=workers,
            advance=advance,
        )


def swap(*arguments: Any, **named: Any) -> list[Merged]:
    """The name of :func:`merge` before; it goes with the next version.

    Raises:
        SafeswapError: as :func:`merge` does.

    >>> import warnings
    >>> with warnings.catch_warnings(record=True) as seen:
    ...     warnings.simplefilter("always")
    ...     _ = swap("base", safety="safety", languages={"sw": "swahili"}, out="as-before")
    >>> [one.category.__name__ for one in seen]
    ['DeprecationWarning']
    """
    warnings.warn(
        "safeswap.swap is now safeswap.api.merge; the old name goes with the next version.",
        DeprecationWarning,
        stacklevel=2,
    )
    return merge(*arguments, **named)
