"""The verb that publishes what was merged, and the options of ``merge`` that do so at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from safeswap.cli.options import JSON, QUIET, print_json
from safeswap.cli.verbs import Verb, options, quoted, say
from safeswap.errors import ConfigError, Interrupted, SafeswapError
from safeswap.io.progress import shown_bytes

YES = click.option("-y", "--yes", is_flag=True, help="Do not ask on the terminal before sending.")
AT_ONCE = options(
    click.option(
        "--push-to-hub",
        metavar="ORG/NAME",
        help="Publish the merge there once it is whole, privately; as push does.",
    ),
    click.option("--public", is_flag=True, help="Make a new repository public."),
    YES,
    heading="Publishing",
)


@click.command(cls=Verb, resumes=True)
@click.argument("out", type=click.Path(path_type=Path))
@options(
    click.option(
        "--to",
        required=True,
        metavar="PLACE",
        help="ORG/NAME on the hub, s3://BUCKET/FOLDER or gs://BUCKET/FOLDER.",
    ),
    click.option("--public", is_flag=True, help="Make a new repository public; else private."),
    click.option(
        "--revision", metavar="BRANCH", help="A branch, made if missing.  [default: main]"
    ),
    click.option("--message", help="Of the commit.  [default: Merged with safeswap]"),
    click.option("--license", metavar="ID", help="For the card.  [default: the inputs', if one]"),
    click.option("--overwrite", is_flag=True, help="Replace an earlier merge there."),
    click.option("--keep-paths", is_flag=True, help="Leave this machine's paths in the files."),
    click.option(
        "--scratch",
        type=click.Path(path_type=Path),
        help="Where uploads to a bucket are noted.  [default: the user's cache]",
    ),
    click.option("--dry-run", is_flag=True, help="Only say what would be sent; asks no network."),
    YES,
    heading="Publishing",
)
@JSON
@QUIET
def push(out: Path, to: str, dry_run: bool, yes: bool, as_json: bool, **given: Any) -> None:
    """Publish what a merge wrote: on the hub (private by default), or in a bucket."""
    from safeswap import api

    scratch = given.pop("scratch")
    shown = api.push_outlook(out, to, **given)
    if dry_run:
        _print(shown, "outlook", as_json)
        return
    _confirm(shown, yes, as_json)
    _print(api.push(out, to, scratch=scratch, **given), "pushed", as_json)


def _confirm(shown: Sequence[Any], yes: bool, as_json: bool) -> None:
    """Say what goes where; on a terminal, ask."""
    if not as_json:
        for one in shown:
            for line in _lines(one):
                say(line)
    if not yes and _is_terminal():
        click.confirm("Send it?", abort=True)


def _is_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def _lines(one: Any) -> list[str]:
    private = "private" if one.private else "PUBLIC"
    kind = "" if "://" in one.to else f", {private}"
    head = f"{one.folder} → {one.to}{kind}: {shown_bytes(one.nbytes)} in {len(one.files)} files"
    rows = [f"  {name}  {shown_bytes(size)}" for name, size in one.files.items()]
    return [head, *rows, *(f"  note: {line}" for line in one.said)]


def _print(pushed: Sequence[Any], kind: str, as_json: bool) -> None:
    if as_json:
        record = [
            {
                "folder": one.folder,
                "to": one.to,
                "private": one.private,
                "bytes": one.nbytes,
                "files": dict(one.files),
                "said": list(one.said),
                "url": one.url,
                "commit": one.commit,
            }
            for one in pushed
        ]
        more = {"verb": "push"} if kind == "outlook" else {}
        print_json({"kind": kind, **more, "pushed": record})
        return
    for one in pushed:
        if kind == "outlook":
            for line in _lines(one):
                say(line)
        else:
            where = f" ({one.url}, commit {one.commit[:12]})" if one.url else ""
            say(f"{one.to}: {shown_bytes(one.nbytes)} in {len(one.files)} files{where}")
            for line in one.said:
                say(f"note: {line}")
    if kind == "outlook":
        say("nothing was sent, and nothing asked of the network")


def check_push(to: str | None, out: Path | str, public: bool, yes: bool, dry_run: bool) -> str:
    """What is asked of publishing before a merge; its line for a dry run, "" without one.

    Raises:
        SafeswapError: no such repository, offline, no token, OUT is no folder of this machine.
    """
    if to is None:
        if public:
            raise ConfigError("--public is of --push-to-hub ORG/NAME. Leave it out, or add that.")
        return ""
    from safeswap.publish.address import hub_repo
    from safeswap.publish.hub import refuse_offline

    repo = hub_repo(to)
    if isinstance(out, str):
        raise ConfigError(
            "--push-to-hub publishes a folder of this machine: give a local --out, or leave it out."
        )
    line = f"then push: {out} → {repo}, {'PUBLIC' if public else 'private'}"
    if not dry_run:
        refuse_offline(repo)
        if not yes and _is_terminal():
            click.confirm(f"{line}. Go on?", abort=True)
    return line


def push_merged(out: Path, to: str, public: bool, as_json: bool) -> None:
    """Publish a merge that was just made.

    Raises:
        SafeswapError: what was refused, and how to go on: the merge itself is whole.
    """
    from safeswap import api

    again = f"safeswap push {quoted(out)} --to {to}" + (" --public" if public else "")
    try:
        pushed = api.push(out, to, verified=True, public=public)
    except SafeswapError as error:
        raise type(error)(f"{error}\nThe merge itself is whole; go on with: {again}") from None
    except KeyboardInterrupt:
        say(f"The merge itself is whole; go on with: {again}", err=True)
        raise Interrupted from None
    if not as_json:
        _print(pushed, "pushed", False)


COMMANDS = (push,)
