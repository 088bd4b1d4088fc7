"""The verbs that look at what was made: ``show`` and ``verify``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from safeswap.cli.options import (
    EXPERTS,
    JSON,
    REMOTE,
    RUNNING,
    OutPlace,
    languages_of,
    plan_record,
    print_json,
)
from safeswap.cli.verbs import Verb, say
from safeswap.errors import ConfigError, listed
from safeswap.io.progress import shown_bytes


@click.command(cls=Verb)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--units", is_flag=True, help="Print every unit's numbers, also where the screen is smaller."
)
@click.option("--png", type=click.Path(path_type=Path), help="Draw the figure into this file.")
@JSON
def show(path: Path, units: bool, png: Path | None, as_json: bool) -> None:
    """Print a profile, a plan or a merged checkpoint as a table and a map; or an attribution.

    Of a run in several languages: each of them.
    """
    from safeswap.report import plan_terminal

    if _is_attribution(path):
        _show_attribution(path, units, png, as_json)
        return
    if png is not None:
        from safeswap.io.files import check_writable

        check_writable(png)
    asked = True if units else None
    several = _languages_in(path) if png is None and not as_json else []
    for folder in several:
        say(f"{folder}")
        plan, profile, _ = _opened(folder)
        plan_terminal.print_view(plan_terminal.plan_view(plan, profile, asked))
        say("")
    if several:
        return
    shown, measured, merged = _opened(path)
    if as_json:
        print_json({"path": str(path), **_record(shown, merged)})
    elif measured is shown:
        plan_terminal.print_view(plan_terminal.profile_view(shown, asked))
    else:
        plan_terminal.print_view(plan_terminal.plan_view(shown, measured, asked))
    if png is not None:
        from safeswap.report import plan_figure

        if measured is shown:
            plan_figure.draw_profile(shown, png)
        else:
            plan_figure.draw(shown, png, measured)
        say(f"{png}: drawn", err=as_json)


def _is_attribution(path: Path) -> bool:
    """Whether it is a file that ``safeswap attribute`` wrote, by its first bytes."""
    from safeswap.io.regular import is_file
    from safeswap.profile.attribution import FORMAT

    if path.suffix != ".json" or not is_file(path):
        return False
    with path.open("rb") as stream:
        return FORMAT.encode() in stream.read(200)


def _show_attribution(path: Path, units: bool, png: Path | None, as_json: bool) -> None:
    from safeswap.cli.fitting import show_attribution
    from safeswap.profile.attribution import Attribution

    if png is not None:
        raise ConfigError(f"--png: {path} is an attribution, of which there is no figure.")
    show_attribution(Attribution.load(path), path, units=units, as_json=as_json)


def _languages_in(path: Path) -> list[Path]:
    """The merged folders of a run in several languages; none where the path is something else."""
    from safeswap.merge.companions import MANIFEST
    from safeswap.merge.manifest import merged_folders

    if not path.is_dir() or (path / MANIFEST).is_file():
        return []
    found = merged_folders(path)
    return [] if found == [path] else found


def _opened(path: Path) -> tuple[Any, Any, bool]:
    """What a path holds: a plan and what was measured for it, or a profile twice; and whether it
    is a merged folder's.
    """
    from safeswap.merge.companions import MANIFEST
    from safeswap.merge.manifest import read_manifest
    from safeswap.plan import Plan
    from safeswap.profile import Profile

    if path.suffix == ".json" and path.name != MANIFEST:
        profile = Profile.load(path)
        return profile, profile, False
    if path.is_dir() or path.name == MANIFEST:
        folder = path if path.is_dir() else path.parent
        content, where = read_manifest(folder), str(folder / MANIFEST)
        plan = Plan.from_dict(content["plan"], where)
        return plan, Profile.from_dict(content["profile"], where), True
    plan = Plan.load(path)
    return plan, _profile_of(plan, path), False


def _profile_of(plan: Any, path: Path) -> Any:
    """The profile that a plan names, for the norms in its view; None where it is not there, is no
    profile, or is one of other checkpoints.
    """
    from safeswap.errors import SafeswapError
    from safeswap.profile import Profile

    if not plan.profile:
        return None
    try:
        found = Profile.load(path.parent / plan.profile)
    except SafeswapError:
        return None
    same = all(
        role in found.inputs and given.digest in (None, found.inputs[role].digest)
        for role, given in plan.inputs.items()
    )
    return found if same else None


def _record(shown: Any, merged: bool) -> dict[str, Any]:
    """What is shown, for scripts."""
    from safeswap.profile import Profile

    if isinstance(shown, Profile):
        return {"kind": "profile", "profile": shown.as_dict()}
    return {"kind": "merged" if merged else "plan", **plan_record(shown)}


@click.command(cls=Verb)
@click.argument("out", type=OutPlace(path_type=Path))
@click.option("--base", help="Where the base lies now, if it moved.")
@EXPERTS
@click.option("--grams", type=click.Path(path_type=Path), help="Where those of regmean lie now.")
@click.option("--without-inputs", is_flag=True, help="Compare the recorded digests only.")
@REMOTE
@JSON
@RUNNING
def verify(
    out: Path | str,
    base: str | None,
    safety: str | None,
    languages: tuple[str, ...],
    adapters: tuple[str, ...],
    grams: Path | None,
    without_inputs: bool,
    allow_remote: bool,
    as_json: bool,
    workers: int | None,
) -> None:
    """Check that OUT is what its plan says, bit for bit; a run's OUT: in all its languages."""
    if isinstance(out, str):
        raise ConfigError(
            f"verify {out}: reads a folder of this machine. Fetch it first (aws s3 cp --recursive "
            "…, gcloud storage cp -r …, hf download …), and give that folder. merge and push have "
            "compared every part's digest with the store's when they sent it."
        )
    from safeswap.api import verify_merge
    from safeswap.merge.manifest import merged_folders, read_manifest

    moved: dict[str, str | Path] = {
        role: source for role, source in (("base", base), ("safety", safety)) if source
    }
    moved |= languages_of(languages)
    put = languages_of(adapters, "--adapter")
    folders = merged_folders(out)
    roles = {folder: set(read_manifest(folder)["plan"].get("inputs", ())) for folder in folders}
    records = []
    for folder in folders:
        others = {role for other in folders for role in roles[other]} - roles[folder]
        checked = verify_merge(
            folder,
            inputs={role: source for role, source in moved.items() if role not in others},
            adapters={role: source for role, source in put.items() if role not in others},
            grams=grams,
            without_inputs=without_inputs,
            allow_remote=allow_remote,
            workers=workers,
        )
        if not as_json:
            _say_verified(folder, checked)
        records.append({"folder": folder, **asdict(checked)})
    if as_json:
        print_json({"kind": "verified", "folders": records})


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


COMMANDS = (show, verify)
