"""The verbs ``profile``, ``plan``, ``merge``, ``show`` and ``verify``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from safeswap.anatomy.units import MODULE_KINDS
from safeswap.cli.config_file import CONFIG
from safeswap.cli.options import (
    EXPERTS,
    FORCE,
    JSON,
    PLANNING,
    REMOTE,
    RUNNING,
    languages_of,
    print_json,
    selection,
)
from safeswap.cli.verbs import Verb, options, say
from safeswap.errors import ConfigError, listed
from safeswap.io.progress import shown_bytes


@click.command(cls=Verb, renamed={"--output": "--out"})
@click.argument("base")
@EXPERTS
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="profile.json", show_default=True
)
@click.option("--dry-run", is_flag=True, help="Only say what would be read.")
@FORCE
@RUNNING
def profile(
    base: str,
    safety: str | None,
    languages: tuple[str, ...],
    out: Path,
    dry_run: bool,
    force: bool,
    workers: int | None,
) -> None:
    """Measure once how far each expert moved each unit of BASE."""
    from safeswap.api import make_profile
    from safeswap.io.files import check_writable

    check_writable(out)
    if dry_run:
        from safeswap.checkpoint.family import open_family
        from safeswap.merge.outlook import reading

        for line in reading(open_family(base, _required(safety), languages_of(languages))):
            click.echo(line)
        return
    measured = make_profile(
        base,
        safety=_required(safety),
        languages=languages_of(languages),
        workers=workers,
        force=force,
    )
    measured.save(out)
    say(f"{out}: {len(measured.tensors)} tensors in {len(measured.units)} units")


def _required(safety: str | None) -> str:
    if not safety:
        raise ConfigError("the safety expert is missing: add --safety CHECKPOINT.")
    return safety


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

    check_writable(out)
    measured = Profile.load(profile_file)
    place = str(profile_file.resolve())
    made = make_plan(measured, name, profile_path=place, force=force, **selection(options))
    made.save(out)
    if as_json:
        print_json({"kind": "plan", "path": str(out), **_plan_record(made)})
        return
    counts = "; ".join(
        f"{kind}: " + ", ".join(f"{n} {what}" for what, n in table.items())
        for kind, table in made.counts().items()
    )
    say(f"{out}: {counts}")


def _plan_record(plan: Any) -> dict[str, Any]:
    """A plan for scripts: as in its file, with the decision of every unit, and how many of each."""
    content = plan.as_dict()
    units = {u: {**r, "decision": plan.units[u].decision} for u, r in content["units"].items()}
    return {"plan": content | {"units": units}, "counts": plan.counts()}


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
        type=click.Path(path_type=Path),
        help="The new folder.",
    ),
    click.option(
        "--save-dtype",
        "dtype",
        help="bfloat16, float16 or float32.  [default: as stored]",
    ),
    click.option("--shard-size", help="e.g. 5GB.  [default: the base's sharding]"),
    click.option("--no-figure", is_flag=True, help="Do not draw safeswap.png."),
    click.option("--overwrite", is_flag=True, help="Replace an earlier merge in --out."),
    click.option("--dry-run", is_flag=True, help="Only say what would be read and written."),
    heading="Output",
)
@REMOTE
@FORCE
@RUNNING
@CONFIG
def merge(
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    plans: tuple[Path, ...],
    out: Path,
    **given: Any,
) -> None:
    """Build the merged checkpoint: from BASE and its experts, or from a plan."""
    from safeswap import api

    running: dict[str, Any] = {k: given[k] for k in ("dtype", "shard_size", "workers", "force")}
    running |= {"figure": not given["no_figure"], "overwrite": given["overwrite"]}
    if given["dry_run"]:
        _say_outlook(plans, out, base, safety, languages, given)
        return
    if plans:
        running["allow_remote"] = given["allow_remote"]
        merged = _merge_plans(plans, out, base, safety, languages, given, running)
    elif base is None:
        raise ConfigError("give BASE with --safety and --language, or a --plan.")
    else:
        merged = api.merge(
            base,
            safety=_required(safety),
            languages=languages_of(languages),
            out=out,
            **selection(given),
            **running,
        )
    for one in merged:
        counts = one.plan.counts()
        decided = {k: sum(counts.get(u, {}).get(k, 0) for u in MODULE_KINDS) for k in _kinds(one)}
        say(
            f"{one.folder}: {shown_bytes(one.nbytes)}; modules: "
            + ", ".join(f"{n} {what}" for what, n in decided.items())
            + f"; config and tokenizer from {one.plan.donor}"
        )
        if one.resumed_bytes:
            say(f"{shown_bytes(one.resumed_bytes)} were written before and verified")


def _say_outlook(
    plans: tuple[Path, ...],
    out: Path,
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    given: Mapping[str, Any],
) -> None:
    """What a merge would read and write."""
    from safeswap.checkpoint.dtypes import output_dtype
    from safeswap.checkpoint.family import open_family
    from safeswap.checkpoint.shards import parse_size
    from safeswap.merge.outlook import reading, writing
    from safeswap.merge.run import family_of
    from safeswap.plan import Plan, check_options

    if plans:
        read = [Plan.load(path) for path in plans]
        family, donors = family_of(read), [plan.donor for plan in read]
    else:
        if base is None:
            raise ConfigError("give BASE with --safety and --language, or a --plan.")
        experts, chosen = languages_of(languages), selection(given)
        family = open_family(base, _required(safety), experts)
        for language in experts:
            check_options(language, units=family.anatomy.units, **chosen)
        donors = [chosen.get("donor") or language for language in experts]
    size, dtype = given["shard_size"], given["dtype"]
    lines = writing(
        family,
        donors,
        out,
        dtype=output_dtype(dtype) if dtype else None,
        shard_size=parse_size(size) if size else None,
    )
    for line in [*reading(family), *lines]:
        click.echo(line)


def _kinds(merged: Any) -> list[str]:
    counts = merged.plan.counts()
    return sorted({what for kind in MODULE_KINDS for what in counts.get(kind, {})})


def _merge_plans(
    plans: tuple[Path, ...],
    out: Path,
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    given: Mapping[str, Any],
    running: Mapping[str, Any],
) -> list[Any]:
    from safeswap.api import merge_plans
    from safeswap.plan import Plan
    from safeswap.profile import Profile

    planning = ("method", "by", "tau", "tau_relative", "alpha", "norms", "outside", "donor")
    changed = [key for key in planning if given[key] is not None]
    changed += ["set"] if given["settings"] else []
    changed += ["operator"] if given["operator"] or given["operator_settings"] else []
    if base or safety or languages or changed:
        named = f"--{changed[0].replace('_', '-')}" if changed else "BASE and the experts"
        raise ConfigError(f"with --plan, {named} come from the plan; edit it, or plan again.")
    read = [Plan.load(path) for path in plans]
    saved = plans[0].parent / read[0].profile if read[0].profile else None  # absolute ones stay so
    profile = Profile.load(saved) if saved and saved.exists() else None
    return merge_plans(read, out, profile=profile, **running)


@click.command(cls=Verb)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--png", type=click.Path(path_type=Path), help="Draw the figure into this file.")
@JSON
def show(path: Path, png: Path | None, as_json: bool) -> None:
    """Print a profile, a plan or a merged checkpoint as a table and a map."""
    from safeswap.merge.companions import MANIFEST
    from safeswap.merge.manifest import read_manifest
    from safeswap.plan import Plan
    from safeswap.profile import Profile
    from safeswap.report import plan_terminal

    if png is not None:
        from safeswap.io.files import check_writable

        check_writable(png)
    shown: Plan | Profile
    folder: Path | None = None
    if path.suffix == ".json" and path.name != MANIFEST:
        shown = Profile.load(path)
    elif path.is_dir() or path.name == MANIFEST:
        folder = path if path.is_dir() else path.parent
        shown = Plan.from_dict(read_manifest(folder)["plan"], str(folder / MANIFEST))
    else:
        shown = Plan.load(path)
    if as_json:
        print_json({"path": str(path), **_record(shown, folder)})
    elif isinstance(shown, Profile):
        plan_terminal.print_view(plan_terminal.profile_view(shown))
    else:
        plan_terminal.print_view(plan_terminal.plan_view(shown))
    if png is not None:
        from safeswap.report import plan_figure

        if isinstance(shown, Profile):
            plan_figure.draw_profile(shown, png)
        else:
            plan_figure.draw(shown, png)
        say(f"{png}: drawn", err=as_json)


def _record(shown: Any, folder: Path | None) -> dict[str, Any]:
    """What is shown, for scripts."""
    from safeswap.profile import Profile

    if isinstance(shown, Profile):
        return {"kind": "profile", "profile": shown.as_dict()}
    return {"kind": "merged" if folder else "plan", **_plan_record(shown)}


@click.command(cls=Verb)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--base", help="Where the base lies now, if it moved.")
@EXPERTS
@click.option("--grams", type=click.Path(path_type=Path), help="Where those of regmean lie now.")
@click.option("--without-inputs", is_flag=True, help="Compare the recorded digests only.")
@REMOTE
@RUNNING
def verify(
    out: Path,
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    grams: Path | None,
    without_inputs: bool,
    allow_remote: bool,
    workers: int | None,
) -> None:
    """Check that OUT is what its plan says, bit for bit; a run's OUT: in all its languages."""
    from safeswap.api import verify_merge
    from safeswap.merge.manifest import merged_folders, read_manifest

    moved: dict[str, str | Path] = {
        role: source for role, source in (("base", base), ("safety", safety)) if source
    }
    moved |= languages_of(languages)
    folders = merged_folders(out)
    roles = {folder: set(read_manifest(folder)["plan"].get("inputs", ())) for folder in folders}
    for folder in folders:
        others = {role for other in folders for role in roles[other]} - roles[folder]
        checked = verify_merge(
            folder,
            inputs={role: source for role, source in moved.items() if role not in others},
            grams=grams,
            without_inputs=without_inputs,
            allow_remote=allow_remote,
            workers=workers,
        )
        _say_verified(folder, checked)


def _say_verified(out: Path, checked: Any) -> None:
    how = "computed again from the inputs" if checked.from_inputs else "compared by digest only"
    say(f"{out}: {checked.tensors} tensors, {shown_bytes(checked.nbytes)} {how}: all equal")
    if checked.edited:
        count = len(checked.edited)
        units = f"{count} unit{'s' if count > 1 else ''}"
        say(f"weights edited by hand in {units}: {listed(checked.edited)}")
    for name in checked.rewritten:
        say(f"note: {name} is not as the merge wrote it")
    for note in checked.notes:
        say(f"note: {note}")


COMMANDS = (profile, plan, merge, show, verify)
