"""The verbs that make something: ``profile``, ``plan``, ``merge``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from safeswap.anatomy.units import MODULE_KINDS, PART_KINDS
from safeswap.cli.config_file import CONFIG
from safeswap.cli.options import (
    EXPERTS,
    FORCE,
    JSON,
    PLANNING,
    REMOTE,
    RUNNING,
    OutPlace,
    languages_of,
    plan_record,
    print_json,
    say_outlook,
    selection,
)
from safeswap.cli.publishing import AT_ONCE, check_push, push_merged
from safeswap.cli.sampling import SAMPLING, sample_wish, sampled_lines, sampled_record
from safeswap.cli.verbs import Verb, options, say
from safeswap.errors import ConfigError
from safeswap.io.progress import shown_bytes


@click.command(cls=Verb, renamed={"--output": "--out"})
@click.argument("base")
@EXPERTS
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="profile.json", show_default=True
)
@click.option("--dry-run", is_flag=True, help="Only say what would be read.")
@SAMPLING
@JSON
@FORCE
@RUNNING
def profile(
    base: str,
    safety: str | None,
    languages: tuple[str, ...],
    adapters: tuple[str, ...],
    out: Path,
    dry_run: bool,
    as_json: bool,
    force: bool,
    workers: int | None,
    **sampling: Any,
) -> None:
    """Measure once how far each expert moved each unit of BASE."""
    wish = sample_wish(sampling)
    from safeswap.api import make_profile
    from safeswap.io.files import check_writable

    check_writable(out)
    if dry_run:
        from safeswap.checkpoint.family import open_family
        from safeswap.checkpoint.remote.asked import ask_whole
        from safeswap.merge.outlook import reading

        ask_whole(False)  # a look fetches no weights
        found = open_family(base, **_experts(safety, languages, adapters), force=force)
        _print_outlook("profile", reading(found), as_json)
        return
    measured = make_profile(
        base,
        **_experts(safety, languages, adapters),
        sample=wish,
        workers=workers,
        force=force,
    )
    measured.save(out)
    counts = {"tensors": len(measured.tensors), "units": len(measured.units)}
    if as_json:
        print_json({"kind": "profiled", "path": out, **counts, **sampled_record(measured, wish)})
        return
    say("{}: {tensors} tensors in {units} units".format(out, **counts))
    for line in sampled_lines(measured, wish):
        say(line)


def _print_outlook(verb: str, lines: Sequence[str], as_json: bool) -> None:
    record = {"kind": "outlook", "verb": verb, "lines": list(lines)}
    say_outlook(record, lambda record: record["lines"], as_json)


def _experts(
    safety: str | None, languages: tuple[str, ...], adapters: tuple[str, ...]
) -> dict[str, Any]:
    """The experts of a run, for the functions that open them."""
    put = languages_of(adapters, "--adapter")
    if not safety and "safety" not in put:
        raise ConfigError("the safety expert is missing: add --safety CHECKPOINT.")
    return {"safety": safety or None, "languages": languages_of(languages), "adapters": put}


@click.command(cls=Verb, renamed={"--output": "--out", "--language": "--only"})
@click.argument("profile_file", metavar="PROFILE", type=click.Path(path_type=Path))
@click.option("--only", "name", metavar="CODE", help="Which language, if the profile has several.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="plan.yaml", show_default=True
)
@JSON
@FORCE
@PLANNING
def plan(
    profile_file: Path, name: str | None, out: Path, as_json: bool, force: bool, **options: Any
) -> None:
    """Decide every unit, by the paper's rule or another method; reads no weights."""
    from safeswap.api import make_plan
    from safeswap.io.files import check_writable
    from safeswap.profile import Profile
    from safeswap.selectors import describe

    check_writable(out)
    measured = Profile.load(profile_file)
    place = str(profile_file.resolve())
    made = make_plan(measured, name, profile_path=place, force=force, **selection(options))
    made.save(out)
    if as_json:
        print_json({"kind": "plan", "path": str(out), **plan_record(made)})
        return
    counts = "; ".join(
        f"{kind}: " + ", ".join(f"{n} {what}" for what, n in table.items())
        for kind, table in made.counts().items()
    )
    say(f"{out}: {counts}")
    say(f"by {describe(made.selector, list(made.units))}")


@click.command(cls=Verb, renamed={"--dtype": "--save-dtype"})
@click.argument("base", required=False)
@EXPERTS
@click.option(
    "--plan",
    "plans",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Carry this plan out instead. Repeat it for several languages.",
)
@PLANNING
@options(
    click.option(
        "-o",
        "--out",
        required=True,
        type=OutPlace(path_type=Path),
        help="The new folder, or one in a bucket: s3://BUCKET/FOLDER, gs://BUCKET/FOLDER.",
    ),
    click.option(
        "--save-dtype",
        "dtype",
        help="bfloat16, float16 or float32; same: quantized again as the donor's are.  "
        "[default: as stored, quantized weights in bfloat16]",
    ),
    click.option(
        "--as",
        "form",
        type=click.Choice(["checkpoint", "adapter"]),
        help="adapter: a LoRA of BASE, where all experts are adapters of it.  "
        "[default: checkpoint]",
    ),
    click.option(
        "--rank",
        type=int,
        help="Greatest rank of the adapter's modules.  [default: the sum of those joined]",
    ),
    click.option("--shard-size", help="e.g. 5GB.  [default: the base's sharding]"),
    click.option("--no-figure", is_flag=True, help="Do not draw safeswap.png."),
    click.option("--overwrite", is_flag=True, help="Replace an earlier merge in --out."),
    click.option(
        "--scratch",
        type=click.Path(path_type=Path),
        help="Where shards grow that go into a bucket.  [default: the user's cache]",
    ),
    click.option("--dry-run", is_flag=True, help="Only say what would be read and written."),
    heading="Output",
)
@AT_ONCE
@REMOTE
@FORCE
@JSON
@RUNNING
@CONFIG
def merge(
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    adapters: tuple[str, ...],
    plans: tuple[Path, ...],
    out: Path | str,
    **given: Any,
) -> None:
    """Build the merged checkpoint: from BASE and its experts, or from a plan."""
    from safeswap import api

    running: dict[str, Any] = {k: given[k] for k in ("dtype", "shard_size", "workers", "force")}
    running |= {"figure": not given["no_figure"], "overwrite": given["overwrite"]}
    running |= {"as_adapter": given["form"] == "adapter", "rank": given["rank"]}
    running |= {"scratch": given["scratch"]}
    to, public = given["push_to_hub"], given["public"]
    then = check_push(to, out, public, given["yes"], given["dry_run"])
    if given["dry_run"]:
        lines = _outlook(plans, out, base, (safety, languages, adapters), given)
        lines += [then] if then else []
        _print_outlook("merge", lines, given["as_json"])
        return
    if plans:
        running["allow_remote"] = given["allow_remote"]
        named = base or safety or languages or adapters
        merged = _merge_plans(plans, out, bool(named), given, running)
    elif base is None:
        raise ConfigError("give BASE with --safety and --language, or a --plan.")
    else:
        merged = api.merge(
            base,
            **_experts(safety, languages, adapters),
            out=out,
            **selection(given),
            **running,
        )
    if given["as_json"]:
        print_json({"kind": "merges", "merges": list(map(_merged_record, merged))})
    else:
        _say_merged(merged)
    if to:
        assert isinstance(out, Path)
        push_merged(out, to, public, given["as_json"])


def _say_merged(merged: Sequence[Any]) -> None:
    for one in merged:
        counts = one.plan.counts()
        kinds = (*MODULE_KINDS, *PART_KINDS)
        decided = {k: sum(counts.get(u, {}).get(k, 0) for u in kinds) for k in _kinds(one)}
        say(
            f"{one.sent_to or one.folder}: {shown_bytes(one.nbytes)}; modules: "
            + ", ".join(f"{n} {what}" for what, n in decided.items())
            + f"; config and tokenizer from {one.plan.donor}"
        )
        for line in one.said:
            say(line)
        if one.resumed_bytes:
            say(f"{shown_bytes(one.resumed_bytes)} were written before and verified")


def _merged_record(one: Any) -> dict[str, Any]:
    """A merge, for scripts."""
    return {
        "folder": one.sent_to or one.folder,
        "language": one.plan.language,
        "donor": one.plan.donor,
        "bytes": one.nbytes,
        "resumed_bytes": one.resumed_bytes,
        "counts": one.plan.counts(),
    }


def _outlook(
    plans: tuple[Path, ...],
    out: Path | str,
    base: str | None,
    experts: tuple[str | None, tuple[str, ...], tuple[str, ...]],
    given: Mapping[str, Any],
) -> list[str]:
    """What a merge would read and write."""
    from safeswap.checkpoint.dtypes import is_same, output_dtype
    from safeswap.checkpoint.family import open_family
    from safeswap.checkpoint.remote.asked import ask_whole
    from safeswap.checkpoint.shards import parse_size
    from safeswap.merge.outlook import reading, writing, writing_adapters
    from safeswap.merge.run import check_form, family_of
    from safeswap.plan import Plan, check_options

    ask_whole(False)  # a look fetches no weights
    if plans:
        read = [Plan.load(path) for path in plans]
        family = family_of(read, allow_remote=given["allow_remote"], force=given["force"])
        outputs = [(plan.language, plan.donor) for plan in read]
    else:
        if base is None:
            raise ConfigError("give BASE with --safety and --language, or a --plan.")
        chosen = selection(given)
        family = open_family(base, **_experts(*experts), force=given["force"])
        for language in family.languages:
            anatomy = family.anatomy
            check_options(language, units=anatomy.units, parts=anatomy.parts, **chosen)
        outputs = [(language, chosen.get("donor") or language) for language in family.languages]
    size, dtype = given["shard_size"], given["dtype"]
    to = ""
    if isinstance(out, str):
        from safeswap.publish.address import bucket_folder
        from safeswap.publish.shipment import growing

        place = bucket_folder(out)
        to, out = str(place), growing(place, given["scratch"])
    check_form(given["form"] == "adapter", given["rank"], dtype, size)
    if given["form"] == "adapter":
        return [*reading(family), *writing_adapters(family, out, to)]
    lines = writing(
        family,
        outputs,
        out,
        dtype=output_dtype(dtype),
        shard_size=parse_size(size) if size else None,
        same=is_same(dtype),
        to=to,
    )
    return [*reading(family), *lines]


def _kinds(merged: Any) -> list[str]:
    counts = merged.plan.counts()
    return sorted({what for kind in (*MODULE_KINDS, *PART_KINDS) for what in counts.get(kind, {})})


def _merge_plans(
    plans: tuple[Path, ...],
    out: Path | str,
    named: bool,
    given: Mapping[str, Any],
    running: Mapping[str, Any],
) -> list[Any]:
    from safeswap.api import merge_plans
    from safeswap.plan import Plan
    from safeswap.profile import Profile
    from safeswap.selectors import OPTIONS

    planning = ("method", *OPTIONS, "donor")
    changed = [key for key in planning if given[key] is not None]
    changed += ["set"] if given["settings"] else []
    changed += ["operator"] if given["operator"] or given["operator_settings"] else []
    if named or changed:
        which = f"--{changed[0].replace('_', '-')}" if changed else "BASE and the experts"
        raise ConfigError(f"with --plan, {which} come from the plan; edit it, or plan again.")
    read = [Plan.load(path) for path in plans]
    saved = plans[0].parent / read[0].profile if read[0].profile else None  # absolute ones stay so
    profile = Profile.load(saved) if saved and saved.exists() else None
    return merge_plans(read, out, profile=profile, **running)


COMMANDS = (profile, plan, merge)
