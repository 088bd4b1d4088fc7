"""The verb that chooses a plan by hand and eye: explore."""

from __future__ import annotations

from pathlib import Path

import click

from safeswap.cli.options import FORCE, JSON, print_json
from safeswap.cli.verbs import Verb, say
from safeswap.io.progress import shown_bytes


@click.command(cls=Verb, renamed={"--output": "--out"})
@click.argument("profile_file", metavar="PROFILE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write the page as one HTML file.  [default: serve it on this machine until Ctrl-C]",
)
@click.option(
    "--sweep",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="The folder of a sweep or search: its points are shown, and the nearest is marked.",
)
@click.option("--judge", help="Whose verdicts on the sweep's answers count, if there are several.")
@click.option("--loose", is_flag=True, help="Count “controversial” as safe (default: as unsafe).")
@click.option("--title", default="safeswap explore", show_default=True, help="Of the page.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Where to serve.  [default: a port that is free]",
)
@FORCE
@JSON
def explore(
    profile_file: Path,
    out: Path | None,
    sweep: Path | None,
    judge: str | None,
    loose: bool,
    title: str,
    port: int | None,
    force: bool,
    as_json: bool,
) -> None:
    """Choose τ, α and single units on a page, and download the plan that merge reads.

    PROFILE is what `safeswap profile` wrote. The page needs no network; what is chosen on it stays
    in the browser.
    """
    from safeswap import api
    from safeswap.errors import ConfigError

    if port is not None and out is not None:
        raise ConfigError("--port and --out exclude each other: a file is not served.")

    def ready(address: str) -> None:
        if as_json:
            print_json({"kind": "explorer", "address": address})
        else:
            say(f"{address}: open it in a browser on this machine; Ctrl-C ends it")

    written = api.explore(
        profile_file,
        out,
        sweep=sweep,
        judge=judge,
        strict=not loose,
        title=title,
        force=force,
        port=port or 0,
        ready=ready,
    )
    if written is None:
        return
    size = written.stat().st_size
    if as_json:
        print_json({"kind": "explorer", "page": written, "bytes": size})
        return
    say(f"{written}: written ({shown_bytes(size)}); open it in a browser")


COMMANDS = (explore,)
