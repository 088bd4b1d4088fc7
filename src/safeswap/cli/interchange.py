"""The verbs ``export`` and ``import``: plans to and from other tools' configurations."""

from __future__ import annotations

from pathlib import Path

import click

from safeswap.errors import PlanError, nearest


@click.command("export")
@click.argument("plan_file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option("--to", "tool", default="mergekit", show_default=True, help="Which tool.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="[default: to the terminal]")
@click.option("--dtype", help="bfloat16, float16 or float32.  [default: as stored]")
def export_plan(plan_file: Path, tool: str, output: Path | None, dtype: str | None) -> None:
    """Write PLAN as a configuration of another tool that gives the same model."""
    from safeswap.interchange import TOOLS, to_mergekit
    from safeswap.io.files import check_writable, save_text
    from safeswap.plan import Plan

    if tool not in TOOLS:
        raise PlanError(f"--to {tool!r} is unknown{nearest(tool, TOOLS)}")
    if output is not None:
        check_writable(output)
    text = to_mergekit(Plan.load(plan_file), dtype=dtype)
    if output is None:
        click.echo(text, nl=False)
        return
    save_text(output, text)
    click.echo(f"{output}: run mergekit-yaml {output} OUT")


@click.command("import")
@click.argument("config", metavar="CONFIG", type=click.Path(path_type=Path))
@click.option("--safety", required=True, metavar="MODEL", help="Which model is the safety expert.")
@click.option(
    "--language", required=True, metavar="NAME=MODEL", help="Which is the language expert."
)
@click.option("--base", metavar="MODEL", help="Which is the base.  [default: the one left]")
@click.option("--donor", help="Whose config and tokenizer go along.  [default: as in CONFIG]")
@click.option("-o", "--output", type=click.Path(path_type=Path), default="plan.yaml")
def import_config(
    config: Path, safety: str, language: str, base: str | None, donor: str | None, output: Path
) -> None:
    """Read a mergekit CONFIG as a plan: linear, task_arithmetic, ties, breadcrumbs, slerp."""
    from safeswap.interchange import from_mergekit
    from safeswap.io.files import check_writable

    name, separator, model = language.partition("=")
    if not separator or not model:
        raise PlanError(f"--language {language!r} must be NAME=MODEL, e.g. sw={language}.")
    check_writable(output)
    made = from_mergekit(config, safety=safety, languages={name: model}, base=base, donor=donor)
    made.plan.save(output)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    counts = {what for table in made.plan.counts().values() for what in table}
    click.echo(f"{output}: {len(made.plan.units)} units ({', '.join(sorted(counts))})")


COMMANDS = (export_plan, import_config)
