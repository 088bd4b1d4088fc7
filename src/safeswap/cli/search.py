"""The verbs that measure many plans: sweep, search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from safeswap.cli.evaluation import backend_options, options_of
from safeswap.cli.options import QUIET, RESULTS, codes_of
from safeswap.cli.registered import BACKENDS, either
from safeswap.cli.tables import print_tables
from safeswap.cli.verbs import Verb, options, quoted, say

_asking = options(
    click.option("--reload", is_flag=True, help="Write and load each table (for vllm)."),
    click.option("--judge-backend", default="hf", show_default=True, help=f"{either(BACKENDS)}."),
    click.option("--judge-url", default="", help="For a judge on a server."),
    click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: cores]"),
    backend_options,
    QUIET,
)


@click.command(cls=Verb, renamed={"--results": "--out"}, resumes=True)
@click.argument("sweep", type=click.Path(path_type=Path))
@RESULTS
@_asking
def sweep(
    sweep: Path,
    results: Path,
    reload: bool,
    judge_backend: str,
    judge_url: str,
    workers: int | None,
    **backend: Any,
) -> None:
    """Measure a grid of methods and settings on dev questions, choose, report on test questions.

    SWEEP is a YAML file (docs/sweep.md). The same command goes on where it was stopped.
    """
    from safeswap import api
    from safeswap.evaluation.backends import refuse_foreign_options

    kind = backend.pop("backend")
    refuse_foreign_options(options_of(backend, "on"), (kind, judge_backend))
    done = api.sweep(
        sweep,
        results,
        backend=kind,
        options=options_of(backend, "on"),
        judge_backend=judge_backend,
        judge_options=options_of({**backend, "base_url": judge_url}, "on"),
        reload=reload,
        workers=workers,
    )
    for one in done:
        if one.plan is not None:
            say(f"next: safeswap merge --plan {quoted(one.plan)} --out OUT")
        say(f"next: safeswap compare {quoted(one.test)} --reference {one.language}")


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
    found = run_search(
        read_search(search, group),
        results,
        backend=kind,
        options=options_of(given, "on"),
        judge_backend=judge_backend,
        judge_options=options_of({**given, "base_url": judge_url}, "on"),
        languages=codes_of(only),
        **settings,
    )
    print_tables([searched_table(one) for one in found], "terminal")
    for one in found:
        if one.pareto is not None:
            say(f"plans: {one.pareto}")
        if one.plan is not None:
            say(f"next: safeswap merge --plan {quoted(one.plan)} --out OUT")
        if one.test is not None:
            say(f"next: safeswap compare {quoted(one.test)} --reference {one.language}")


COMMANDS = (sweep, search)
