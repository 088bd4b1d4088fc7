"""The verbs ``profile``, ``plan``, ``merge``, ``show`` and ``verify``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from safeswap.cli.options import EXPERTS, PLANNING, RUNNING, languages_of, selection
from safeswap.errors import PlanError, listed
from safeswap.io.progress import shown_bytes


@click.command()
@click.argument("base")
@EXPERTS
@click.option("-o", "--output", type=click.Path(path_type=Path), default="profile.json")
@RUNNING
def profile(
    base: str,
    safety: str | None,
    languages: tuple[str, ...],
    output: Path,
    workers: int | None,
) -> None:
    """Measure once how far each expert moved each unit of BASE."""
    from safeswap.api import make_profile
    from safeswap.io.files import check_writable

    check_writable(output)
    measured = make_profile(
        base,
        safety=_required(safety),
        languages=languages_of(languages),
        workers=workers,
    )
    measured.save(output)
    click.echo(f"{output}: {len(measured.tensors)} tensors in {len(measured.units)} units")


def _required(safety: str | None) -> str:
    if not safety:
        raise PlanError("the safety expert is missing: add --safety CHECKPOINT.")
    return safety


@click.command()
@click.argument("profile_file", metavar="PROFILE", type=click.Path(path_type=Path))
@click.option("--language", "name", help="Which language, where the profile has several.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="plan.yaml")
@PLANNING
def plan(profile_file: Path, name: str | None, output: Path, **options: Any) -> None:
    """Decide every unit, by the paper's rule or another method; reads no weights."""
    from safeswap.api import make_plan
    from safeswap.io.files import check_writable
    from safeswap.profile import Profile

    check_writable(output)
    measured = Profile.load(profile_file)
    place = str(profile_file.resolve())
    made = make_plan(measured, name, profile_path=place, **selection(options))
    made.save(output)
    counts = "; ".join(
        f"{kind}: " + ", ".join(f"{n} {what}" for what, n in table.items())
        for kind, table in made.counts().items()
    )
    click.echo(f"{output}: {counts}")


@click.command()
@click.argument("base", required=False)
@EXPERTS
@click.option(
    "--plan",
    "plans",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Carry this plan out instead. Repeat it for several languages.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@PLANNING
@click.option("--dtype", help="bfloat16, float16 or float32.  [default: as stored]")
@click.option("--shard-size", help="e.g. 5GB.  [default: the base's sharding]")
@click.option("--no-figure", is_flag=True, help="Do not draw safeswap.png.")
@RUNNING
def merge(
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    plans: tuple[Path, ...],
    out: Path,
    **options: Any,
) -> None:
    """Build the merged checkpoint: from BASE and its experts, or from a plan."""
    from safeswap import api

    running: dict[str, Any] = {k: options[k] for k in ("dtype", "shard_size", "workers")}
    running["figure"] = not options["no_figure"]
    if plans:
        merged = _merge_plans(plans, out, base, safety, languages, options, running)
    elif base is None:
        raise PlanError("give BASE with --safety and --language, or a --plan.")
    else:
        merged = api.swap(
            base,
            safety=_required(safety),
            languages=languages_of(languages),
            out=out,
            **selection(options),
            **running,
        )
    for one in merged:
        counts = one.plan.counts()
        decided = {k: sum(counts[u].get(k, 0) for u in ("attention", "mlp")) for k in _kinds(one)}
        click.echo(
            f"{one.folder}: {shown_bytes(one.nbytes)}; modules: "
            + ", ".join(f"{n} {what}" for what, n in decided.items())
            + f"; config and tokenizer from {one.plan.donor}"
        )
        if one.resumed_bytes:
            click.echo(f"{shown_bytes(one.resumed_bytes)} were written before and verified")


def _kinds(merged: Any) -> list[str]:
    counts = merged.plan.counts()
    return sorted({what for kind in ("attention", "mlp") for what in counts.get(kind, {})})


def _merge_plans(
    plans: tuple[Path, ...],
    out: Path,
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    options: Mapping[str, Any],
    running: Mapping[str, Any],
) -> list[Any]:
    from safeswap.api import merge_plans
    from safeswap.plan import Plan
    from safeswap.profile import Profile

    planning = ("method", "by", "tau", "tau_relative", "alpha", "norms", "outside", "donor")
    changed = [key for key in planning if options[key] is not None]
    changed += ["set"] if options["settings"] else []
    changed += ["operator"] if options["operator"] or options["operator_settings"] else []
    if base or safety or languages or changed:
        named = f"--{changed[0].replace('_', '-')}" if changed else "BASE and the experts"
        raise PlanError(f"with --plan, {named} come from the plan; edit it, or plan again.")
    read = [Plan.load(path) for path in plans]
    saved = plans[0].parent / read[0].profile if read[0].profile else None  # absolute ones stay so
    profile = Profile.load(saved) if saved and saved.exists() else None
    return merge_plans(read, out, profile=profile, **running)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--png", type=click.Path(path_type=Path), help="Draw the figure into this file.")
def show(path: Path, png: Path | None) -> None:
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
    if path.suffix == ".json" and path.name != MANIFEST:
        shown = Profile.load(path)
        plan_terminal.print_view(plan_terminal.profile_view(shown))
    else:
        if path.is_dir() or path.name == MANIFEST:
            folder = path if path.is_dir() else path.parent
            shown = Plan.from_dict(read_manifest(folder)["plan"], str(folder / MANIFEST))
        else:
            shown = Plan.load(path)
        plan_terminal.print_view(plan_terminal.plan_view(shown))
    if png is not None:
        from safeswap.report import plan_figure

        if isinstance(shown, Profile):
            plan_figure.draw_profile(shown, png)
        else:
            plan_figure.draw(shown, png)
        click.echo(f"{png}: drawn")


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--base", help="Where the base lies now, if it moved.")
@EXPERTS
@click.option("--grams", type=click.Path(path_type=Path), help="Where those of regmean lie now.")
@click.option("--without-inputs", is_flag=True, help="Compare the recorded digests only.")
@RUNNING
def verify(
    out: Path,
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    grams: Path | None,
    without_inputs: bool,
    workers: int | None,
) -> None:
    """Check that OUT is what its plan says, bit for bit."""
    from safeswap.api import verify_merge

    moved: dict[str, str | Path] = {
        role: source for role, source in (("base", base), ("safety", safety)) if source
    }
    checked = verify_merge(
        out,
        inputs=moved | languages_of(languages),
        grams=grams,
        without_inputs=without_inputs,
        workers=workers,
    )
    how = "computed again from the inputs" if checked.from_inputs else "compared by digest only"
    click.echo(f"{out}: {checked.tensors} tensors, {shown_bytes(checked.nbytes)} {how}: all equal")
    if checked.edited:
        count = len(checked.edited)
        units = f"{count} unit{'s' if count > 1 else ''}"
        click.echo(f"weights edited by hand in {units}: {listed(checked.edited)}")
    for name in checked.rewritten:
        click.echo(f"note: {name} is not as the merge wrote it")
    for note in checked.notes:
        click.echo(f"note: {note}")


COMMANDS = (profile, plan, merge, show, verify)
