"""The verbs that measure many plans: sweep, search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from safeswap.cli.backend_options import backend_options, cluster_options, options_of
from safeswap.cli.options import (
    DRY_RUN,
    FORCE,
    JSON,
    OUTSIDE,
    OVERWRITE,
    QUIET,
    RESULTS,
    codes_of,
    print_json,
    say_outlook,
    use_threads,
)
from safeswap.cli.registered import BACKENDS, either
from safeswap.cli.tables import print_tables
from safeswap.cli.verbs import Verb, options, quoted, say_step

_asking = options(
    click.option("--reload", is_flag=True, help="Write and load each table (for vllm)."),
    click.option("--judge-backend", default="hf", show_default=True, help=f"{either(BACKENDS)}."),
    click.option("--judge-url", default="", help="For a judge on a server."),
    click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: cores]"),
    FORCE,
    OUTSIDE,
    backend_options,
    OVERWRITE,
    DRY_RUN,
    JSON,
    QUIET,
)


@click.command(cls=Verb, renamed={"--results": "--out"}, resumes=True)
@click.argument("sweep", type=click.Path(path_type=Path))
@RESULTS
@_asking
@cluster_options
def sweep(
    sweep: Path,
    results: Path,
    reload: bool,
    judge_backend: str,
    judge_url: str,
    workers: int | None,
    force: bool,
    allow_outside: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **backend: Any,
) -> None:
    """Measure a grid of methods and settings on dev questions, choose, report on test questions.

    SWEEP is a YAML file (docs/sweep.md). The same command goes on where it was stopped.
    """
    from safeswap import api
    from safeswap.evaluation.backends import refuse_foreign_options

    kind = backend.pop("backend")
    refuse_foreign_options(options_of(backend, "on"), (kind, judge_backend))
    if dry_run:
        from safeswap.search.outlook import lines_of, sweep_outlook
        from safeswap.search.sweep_config import read_sweep

        asked = read_sweep(sweep, allow_outside=allow_outside, fetch=False)
        say_outlook(sweep_outlook(asked, results, force=force), lines_of, as_json)
        return
    use_threads(backend["threads"])
    done = api.sweep(
        sweep,
        results,
        backend=kind,
        options=options_of(backend, "on"),
        judge_backend=judge_backend,
        judge_options=options_of({**backend, "base_url": judge_url}, "on"),
        reload=reload,
        workers=workers,
        allow_outside=allow_outside,
        force=force,
        overwrite=overwrite,
    )
    for one in done:
        if one.plan is not None:
            say_step(f"next: safeswap merge --plan {quoted(one.plan)} --out OUT")
        say_step(f"next: safeswap compare {quoted(one.test)} --reference {one.language}")
    if as_json:
        swept = [
            {"language": one.language, **_choice(one), "dev": one.dev, "test": one.test}
            for one in done
        ]
        print_json({"kind": "swept", "out": results, "languages": swept})


def _choice(one: Any) -> dict[str, Any]:
    """What was chosen in a language, why, and where its plan is."""
    choice = one.choice
    return {
        "chosen": None if choice is None else choice.name or None,
        "why": None if choice is None else choice.why,
        "plan": one.plan,
    }


@click.command(cls=Verb, renamed={"--results": "--out", "--language": "--only"}, resumes=True)
@click.argument("search", type=click.Path(path_type=Path))
@RESULTS
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="In total, by all workers, those of earlier runs included.",
)
@click.option("--storage", help="A database's URL.  [default: SQLite in the results folder]")
@click.option(
    "--group",
    default="layer",
    show_default=True,
    help="What shares its weights: unit, layer, kind or band.",
)
@click.option(
    "--only",
    "only",
    multiple=True,
    metavar="CODE",
    help="Only this language. Repeat it, or join by commas.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--sampler", default="tpe", show_default=True, help="tpe or nsga2.")
@_asking
def search(
    search: Path,
    results: Path,
    group: str,
    only: tuple[str, ...],
    judge_backend: str,
    judge_url: str,
    force: bool,
    allow_outside: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Let Optuna propose tables of weights; the Pareto set comes back as plans.

    SEARCH is a YAML file (docs/search.md). The same command goes on where it was stopped; given
    twice at once, the two share the work.
    """
    from safeswap.evaluation.backends import refuse_foreign_options
    from safeswap.report.pareto_set import searched_table
    from safeswap.search.search import read_search, run_search

    names = ("trials", "storage", "seed", "sampler", "reload", "workers")
    settings = {name: given.pop(name) for name in names}
    kind = given.pop("backend")
    refuse_foreign_options(options_of(given, "on"), (kind, judge_backend))
    asked = read_search(search, group, allow_outside=allow_outside, fetch=not dry_run)
    if dry_run:
        from safeswap.search.outlook import lines_of, search_outlook

        record = search_outlook(asked, results, settings["trials"], force=force)
        say_outlook(record, lines_of, as_json)
        return
    use_threads(given["threads"])
    found = run_search(
        asked,
        results,
        backend=kind,
        options=options_of(given, "on"),
        judge_backend=judge_backend,
        judge_options=options_of({**given, "base_url": judge_url}, "on"),
        languages=codes_of(only),
        force=force,
        overwrite=overwrite,
        **settings,
    )
    if not as_json:
        print_tables([searched_table(one) for one in found], "terminal")
    for one in found:
        if one.pareto is not None:
            say_step(f"plans: {one.pareto}")
        if one.plan is not None:
            say_step(f"next: safeswap merge --plan {quoted(one.plan)} --out OUT")
        if one.test is not None:
            say_step(f"next: safeswap compare {quoted(one.test)} --reference {one.language}")
    if as_json:
        print_json({"kind": "searched", "out": results, "languages": list(map(_searched, found))})


def _searched(one: Any) -> dict[str, Any]:
    """What a search found in a language, for scripts."""
    return {
        "language": one.language,
        "trials": one.trials,
        "tables": one.tables,
        "objectives": list(one.objectives),
        "front": [each.name for each in one.front],
        **_choice(one),
        "pareto": one.pareto,
        "dev": one.dev,
        "test": one.test,
    }


COMMANDS = (sweep, search)
