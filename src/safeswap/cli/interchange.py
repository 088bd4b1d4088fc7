"""The verb ``convert``: plans to and from other tools' configurations."""

from __future__ import annotations

from pathlib import Path

import click

from safeswap.cli.verbs import Verb, options, quoted, say
from safeswap.errors import ConfigError, nearest


@click.command(cls=Verb, renamed={"--output": "--out", "--dtype": "--save-dtype"})
@click.argument("source", metavar="PLAN|CONFIG", type=click.Path(path_type=Path))
@click.option("--to", "to_tool", metavar="TOOL", help="Write PLAN for this tool: mergekit.")
@click.option("--from", "from_tool", metavar="TOOL", help="Read CONFIG of this tool: mergekit.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="[default: to the terminal with --to, plan.yaml with --from]",
)
@options(
    click.option(
        "--save-dtype", "dtype", help="bfloat16, float16 or float32.  [default: as stored]"
    ),
    heading="With --to",
)
@options(
    click.option("--safety", metavar="MODEL", help="Which model is the safety expert."),
    click.option("--language", metavar="NAME=MODEL", help="Which is the language expert."),
    click.option("--base", metavar="MODEL", help="Which is the base.  [default: the one left]"),
    click.option("--donor", help="Whose config and tokenizer go along.  [default: as in CONFIG]"),
    heading="With --from",
)
def convert(
    source: Path,
    to_tool: str | None,
    from_tool: str | None,
    out: Path | None,
    dtype: str | None,
    safety: str | None,
    language: str | None,
    base: str | None,
    donor: str | None,
) -> None:
    """Write a plan as a mergekit configuration that gives the same model, or read one as a plan.

    Read are linear, task_arithmetic, ties, breadcrumbs and slerp.
    """
    reading = {"--safety": safety, "--language": language, "--base": base, "--donor": donor}
    if (to_tool is None) == (from_tool is None):
        raise ConfigError("give --to TOOL with a plan, or --from TOOL with a configuration.")
    if to_tool is not None:
        _check_tool("--to", to_tool)
        _exclude("--to", reading)
        _write(source, out, dtype)
    elif from_tool is not None:
        _check_tool("--from", from_tool)
        _exclude("--from", {"--save-dtype": dtype})
        if not safety or not language:
            missing = "--language NAME=MODEL" if safety else "--safety MODEL"
            raise click.UsageError(f"--from needs {missing}.")
        _read(source, out or Path("plan.yaml"), safety, language, base, donor)


def _check_tool(option: str, tool: str) -> None:
    from safeswap.interchange import TOOLS

    if tool not in TOOLS:
        raise ConfigError(f"{option} {tool!r} is unknown{nearest(tool, TOOLS)}")


def _exclude(option: str, others: dict[str, str | None]) -> None:
    for name, given in others.items():
        if given is not None:
            raise ConfigError(f"{name} does not go with {option}; leave it out.")


def _write(plan_file: Path, out: Path | None, dtype: str | None) -> None:
    from safeswap.interchange import to_mergekit
    from safeswap.io.files import check_writable, save_text
    from safeswap.plan import Plan

    if out is not None:
        check_writable(out)
    text = to_mergekit(Plan.load(plan_file), dtype=dtype)
    if out is None:
        say(text, nl=False)
        return
    save_text(out, text)
    say(f"{out}: run mergekit-yaml {quoted(out)} OUT")


def _read(
    config: Path, out: Path, safety: str, language: str, base: str | None, donor: str | None
) -> None:
    from safeswap.interchange import from_mergekit
    from safeswap.io.files import check_writable

    name, separator, model = language.partition("=")
    if not separator or not model:
        raise ConfigError(f"--language {language!r} must be NAME=MODEL, e.g. sw={language}.")
    check_writable(out)
    made = from_mergekit(config, safety=safety, languages={name: model}, base=base, donor=donor)
    made.plan.save(out)
    for note in made.notes:
        say(f"note: {note}", err=True)
    counts = {what for table in made.plan.counts().values() for what in table}
    say(f"{out}: {len(made.plan.units)} units ({', '.join(sorted(counts))})")


COMMANDS = (convert,)
