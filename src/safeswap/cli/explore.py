"""The verbs that measure many plans: sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from safeswap.cli.evaluation import backend_options, options_of


@click.command()
@click.argument("sweep", type=click.Path(path_type=Path))
@click.option("--results", type=click.Path(path_type=Path), required=True, help="Where rows go.")
@click.option("--reload", is_flag=True, help="Write and load each candidate (needed for vllm).")
@click.option("--judge-backend", default="hf", show_default=True, help="hf, vllm or api.")
@click.option("--judge-url", default="", help="For a judge on a server.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads.  [default: the cores]")
@backend_options
@click.option("--quiet", is_flag=True, help="No progress bar.")
def sweep(
    sweep: Path,
    results: Path,
    reload: bool,
    judge_backend: str,
    judge_url: str,
    workers: int | None,
    quiet: bool,
    **backend: Any,
) -> None:
    """Measure a grid of methods and settings on dev questions, choose, report on test questions.

    SWEEP is a YAML file (docs/sweep.md). The same command goes on where it was stopped.
    """
    from safeswap.explore.sweep import run_sweep
    from safeswap.explore.sweepfile import read_sweep

    kind = backend.pop("backend")
    done = run_sweep(
        read_sweep(sweep),
        results,
        backend=kind,
        options=options_of(backend, "on"),
        judge_backend=judge_backend,
        judge_options=options_of({**backend, "base_url": judge_url}, "on"),
        reload=reload,
        workers=workers,
        quiet=quiet,
        say=click.echo,
    )
    for one in done:
        if one.plan is not None:
            click.echo(f"next: safeswap merge --plan {one.plan} --out OUT")
        click.echo(f"next: safeswap compare {one.test} --reference {one.language}")


COMMANDS = (sweep,)
