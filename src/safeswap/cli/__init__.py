"""The command line: one command per verb. It parses, calls the API and prints; no logic."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from safeswap.cli import calibration, evaluation, interchange, methods
from safeswap.cli.pairs import language_pairs
from safeswap.errors import PlanError, SafeswapError
from safeswap.version import __version__

Command = TypeVar("Command", bound=Callable[..., Any])


class _Group(click.Group):
    """Errors become one readable message and an exit status: 1 refused, 130 interrupted."""

    def invoke(self, ctx: click.Context) -> Any:
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            return super().invoke(ctx)
        except SafeswapError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted. The same command goes on where this one stopped.", err=True)
            ctx.exit(130)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def apply(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


_EXPERTS = _options(
    click.option("--safety", metavar="CHECKPOINT", help="The English safety expert."),
    click.option(
        "--language",
        "languages",
        multiple=True,
        metavar="NAME=CHECKPOINT",
        help="A language expert, e.g. sw=me/my-swahili. Repeat it for several languages.",
    ),
)
_PLANNING = _options(
    click.option(
        "--method", help="How units are decided; see methods. [default: share-difference]"
    ),
    click.option("--by", help="module or layer.  [default: module]"),
    click.option(
        "--tau", type=float, help="Threshold on the difference of shares.  [default: 0.001]"
    ),
    click.option(
        "--tau-relative", type=float, help="The same as a fraction of the mean share, e.g. 0.05."
    ),
    click.option("--alpha", type=float, help="Safety's part in a blend.  [default: 0.5]"),
    click.option(
        "--norms",
        help="language, safety, blend or follow.  [default: follow by layer, language by module]",
    ),
    click.option(
        "--outside",
        help="Embeddings, final norm, lm_head: blend, language, safety or base.  [default: blend]",
    ),
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="Any other parameter of the method, e.g. bottom=5. Repeat it for several.",
    ),
    click.option("--operator", help="How a unit's task vectors are joined.  [default: linear]"),
    click.option(
        "--operator-set",
        "operator_settings",
        multiple=True,
        metavar="NAME=VALUE",
        help="A parameter of the operator, e.g. density=0.2. Repeat it for several.",
    ),
    click.option("--donor", help="Whose config and tokenizer go along.  [default: the language]"),
)
_RUNNING = _options(
    click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: the cores]"),
    click.option("--quiet", is_flag=True, help="No progress bar."),
)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Give a fine-tuned language model its safety back, without training.

    Checkpoints are local folders, hub ids (org/name@revision) or their URLs.
    """


def _selection(options: Mapping[str, Any]) -> dict[str, Any]:
    """The method with its parameters and the donor, those that were given."""
    from safeswap.selectors import OPTIONS, find

    chosen = {key: options[key] for key in (*OPTIONS, "donor") if options[key] is not None}
    if "tau_relative" in chosen:
        if "tau" in chosen:
            raise PlanError("--tau and --tau-relative exclude each other; give one of them.")
        chosen |= {"tau": chosen["tau_relative"], "tau_relative": True}
    method = find(options["method"] or "share-difference")
    known = {parameter.name: parameter for parameter in method.parameters}
    for name, text in _pairs("--set", options["settings"]).items():
        if name in chosen:
            raise PlanError(f"{name} is given twice; leave one out.")
        # an unknown one is refused with the others, by the method
        chosen[name] = known[name].parse(text) if name in known else text
    settings = _pairs("--operator-set", options["operator_settings"])
    if settings and not options["operator"]:
        raise PlanError("--operator-set needs --operator NAME; see safeswap methods.")
    if options["operator"]:
        values = {name: _value(text) for name, text in settings.items()}
        chosen["operator"] = {"name": options["operator"], **values}
    return {"method": method.name, **chosen}


def _value(text: str) -> float | int | bool | str:
    """What a text says; whether it is what the parameter takes is for the operator to check."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for pair in given:
        name, separator, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not separator:
            raise PlanError(f"{option} {pair!r} must be NAME=VALUE; see safeswap methods NAME.")
        if name in pairs:
            raise PlanError(f"{name} is given twice; leave one out.")
        pairs[name] = text.strip()
    return pairs


@main.command()
@click.argument("base")
@_EXPERTS
@click.option("-o", "--output", type=click.Path(path_type=Path), default="profile.json")
@_RUNNING
def profile(
    base: str,
    safety: str | None,
    languages: tuple[str, ...],
    output: Path,
    workers: int | None,
    quiet: bool,
) -> None:
    """Measure once how far each expert moved each unit of BASE."""
    from safeswap.api import make_profile

    _writable(output)
    measured = make_profile(
        base,
        safety=_required(safety),
        languages=language_pairs(languages),
        workers=workers,
        quiet=quiet,
    )
    measured.save(output)
    _notes(measured.notes)
    click.echo(f"{output}: {len(measured.tensors)} tensors in {len(measured.units)} units")


def _required(safety: str | None) -> str:
    if not safety:
        raise PlanError("the safety expert is missing: add --safety CHECKPOINT.")
    return safety


def _writable(path: Path) -> None:
    if path.is_dir() or not path.parent.is_dir():
        raise PlanError(f"{path}: is not a file that can be written; its folder must exist.")


def _notes(notes: tuple[str, ...]) -> None:
    for note in notes:
        click.echo(f"note: {note}", err=True)


@main.command()
@click.argument("profile_file", metavar="PROFILE", type=click.Path(path_type=Path))
@click.option("--language", "name", help="Which language, where the profile has several.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="plan.yaml")
@_PLANNING
def plan(profile_file: Path, name: str | None, output: Path, **options: Any) -> None:
    """Decide every unit, by the paper's rule or another method; reads no weights."""
    from safeswap.api import make_plan
    from safeswap.profile import Profile

    _writable(output)
    measured = Profile.load(profile_file)
    place = str(profile_file.resolve())
    made = make_plan(measured, name, profile_path=place, **_selection(options))
    made.save(output)
    counts = "; ".join(
        f"{kind}: " + ", ".join(f"{n} {what}" for what, n in table.items())
        for kind, table in made.counts().items()
    )
    click.echo(f"{output}: {counts}")


@main.command()
@click.argument("base", required=False)
@_EXPERTS
@click.option(
    "--plan",
    "plans",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Carry this plan out instead. Repeat it for several languages.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The new folder.")
@_PLANNING
@click.option("--dtype", help="bfloat16, float16 or float32.  [default: as stored]")
@click.option("--shard-size", help="e.g. 5GB.  [default: the base's sharding]")
@click.option("--no-figure", is_flag=True, help="Do not draw safeswap.png.")
@_RUNNING
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

    running: dict[str, Any] = {k: options[k] for k in ("dtype", "shard_size", "workers", "quiet")}
    running["figure"] = not options["no_figure"]
    if plans:
        merged = _merge_plans(plans, out, base, safety, languages, options, running)
    elif base is None:
        raise PlanError("give BASE with --safety and --language, or a --plan.")
    else:
        merged = api.swap(
            base,
            safety=_required(safety),
            languages=language_pairs(languages),
            out=out,
            **_selection(options),
            **running,
        )
    _notes(merged[0].profile.notes)
    for one in merged:
        counts = one.plan.counts()
        decided = {k: sum(counts[u].get(k, 0) for u in ("attention", "mlp")) for k in _kinds(one)}
        click.echo(
            f"{one.folder}: {one.nbytes / 1e9:.3f} GB; modules: "
            + ", ".join(f"{n} {what}" for what, n in decided.items())
            + f"; config and tokenizer from {one.plan.donor}"
        )
        if one.resumed_bytes:
            click.echo(f"{one.resumed_bytes / 1e9:.3f} GB were written before and verified")


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


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--png", type=click.Path(path_type=Path), help="Draw the figure into this file.")
def show(path: Path, png: Path | None) -> None:
    """Print a profile, a plan or a merged checkpoint as a table and a map."""
    from safeswap.plan import Plan
    from safeswap.profile import Profile
    from safeswap.provenance import MANIFEST, read_manifest
    from safeswap.report import terminal

    if path.suffix == ".json" and path.name != MANIFEST:
        measured = Profile.load(path)
        terminal.print_view(terminal.profile_view(measured))
        drawn = None if png is None else _first_plan(measured)
    elif path.is_dir() or path.name == MANIFEST:
        folder = path if path.is_dir() else path.parent
        drawn = Plan.from_dict(read_manifest(folder)["plan"], str(folder / MANIFEST))
        terminal.print_view(terminal.plan_view(drawn))
    else:
        drawn = Plan.load(path)
        terminal.print_view(terminal.plan_view(drawn))
    if png is not None and drawn is not None:
        from safeswap.report.figure import draw

        _writable(png)
        draw(drawn, png)
        click.echo(f"{png}: drawn")


def _first_plan(measured: Any) -> Any:
    from safeswap.api import make_plan

    return make_plan(measured, measured.languages[0])


@main.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--base", help="Where the base lies now, if it moved.")
@_EXPERTS
@click.option("--grams", type=click.Path(path_type=Path), help="Where those of regmean lie now.")
@click.option("--without-inputs", is_flag=True, help="Compare the recorded digests only.")
@_RUNNING
def verify(
    out: Path,
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    grams: Path | None,
    without_inputs: bool,
    workers: int | None,
    quiet: bool,
) -> None:
    """Check that OUT is what its plan says, bit for bit."""
    from safeswap.api import verify_merge

    moved: dict[str, str | Path] = {
        role: source for role, source in (("base", base), ("safety", safety)) if source
    }
    checked = verify_merge(
        out,
        inputs=moved | language_pairs(languages),
        grams=grams,
        without_inputs=without_inputs,
        workers=workers,
        quiet=quiet,
    )
    how = "computed again from the inputs" if checked.from_inputs else "compared by digest only"
    click.echo(f"{out}: {checked.tensors} tensors, {checked.nbytes / 1e9:.3f} GB {how}: all equal")
    if checked.edited:
        click.echo(f"weights edited by hand in {len(checked.edited)} units: {checked.edited[0]} …")
    for name in checked.rewritten:
        click.echo(f"note: {name} is not as the merge wrote it")


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="safeswap-demo",
    show_default=True,
    help="The new folder.",
)
def demo(out: Path) -> None:
    """Run the whole job on the small models that come with safeswap."""
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError:
        raise SafeswapError(
            "the demo measures models with transformers: install safeswap[demo]."
        ) from None
    from safeswap.testbed.demo import run_demo

    transformers.utils.logging.disable_progress_bar()
    click.echo("The small world shows the mechanism; it is no evidence about large models.")
    run_demo(out, click.echo)


_GROUPS = (methods, interchange, calibration, evaluation)
for _command in (command for group in _GROUPS for command in group.COMMANDS):
    main.add_command(_command)


def run() -> None:
    """The entry point of the ``safeswap`` command."""
    sys.exit(main(standalone_mode=True))
