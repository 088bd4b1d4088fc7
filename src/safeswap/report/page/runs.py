"""What a report is given: folders and files, told apart by what lies in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safeswap.errors import ConfigError, EvaluationError
from safeswap.evaluation.benchmarks.splits import PARTS
from safeswap.evaluation.results.store import SETTINGS, Results, join_settings, open_results
from safeswap.merge.companions import MANIFEST
from safeswap.merge.manifest import read_manifest
from safeswap.plan import Plan
from safeswap.profile import Profile

_DEEPEST = 2
"""Folders inside one that is no run itself: OUT, and its languages."""
_FILES = (".json", ".yaml", ".yml")
_KINDS = (
    "A run is a merged checkpoint (safeswap.json), a results folder (settings.json), a profile "
    "(.json), a plan (.yaml), a sweep's folder (dev/, test/), or a folder that holds some of these."
)


@dataclass(frozen=True)
class MergeRun:
    """A plan, and what was made from it.

    Attributes:
        path: the merged folder, or the plan's file.
        manifest: what ``safeswap.json`` says; empty for a plan alone.
        profile: what was measured; None for a plan alone.
    """

    path: Path
    plan: Plan
    manifest: Mapping[str, Any] = field(default_factory=dict)
    profile: Profile | None = None


@dataclass(frozen=True)
class SweepRun:
    """A sweep's or search's folder: side of the split → language → its results folder."""

    path: Path
    sides: Mapping[str, Mapping[str, Path]]


@dataclass
class Runs:
    """All that a report is of, in the order given.

    ``results`` are the folders that stand in one table each.
    """

    given: tuple[Path, ...] = ()
    merges: list[MergeRun] = field(default_factory=list)
    profiles: list[tuple[Path, Profile]] = field(default_factory=list)
    results: list[list[Path]] = field(default_factory=list)
    sweeps: list[SweepRun] = field(default_factory=list)


def open_runs(paths: Sequence[str | Path]) -> Runs:
    """Read what is given.

    Args:
        paths: merged checkpoints, results folders, profiles, plans, sweeps' folders, and folders
            that hold some of these; what is met twice counts once.

    Raises:
        ConfigError: one is nothing of these; it says what a run is.
        SafeswapError: one of these is damaged.
    """
    runs = Runs(tuple(Path(path) for path in paths))
    seen: set[Path] = set()
    folders: list[Path] = []
    for path in runs.given:
        found = list(_inside(path, _DEEPEST))
        if not found:
            raise ConfigError(f"{path}: {_why_none(path)} {_KINDS}")
        for one in found:
            if one.resolve() in seen:
                continue
            seen.add(one.resolve())
            _take(one, runs, folders)
    runs.results = _together(folders)
    return runs


def _why_none(path: Path) -> str:
    if not path.exists():
        return "there is no such file or folder."
    return "holds no run." if path.is_dir() else "is no run."


def _inside(path: Path, depth: int) -> Iterator[Path]:
    """The runs that a path is or holds; links are followed only where they were given."""
    if path.is_file():
        if path.name in (MANIFEST, SETTINGS):
            yield path.parent
        elif path.suffix in _FILES:
            yield path
    elif _is_run(path):
        yield path
    elif path.is_dir() and depth:
        for child in sorted(path.iterdir()):
            if child.is_dir() and not child.is_symlink():
                yield from _inside(child, depth - 1)
            elif depth == _DEEPEST and child.name == "profile.json" and child.is_file():
                yield child


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in (MANIFEST, SETTINGS)) or bool(_sides(path))


def _sides(path: Path) -> dict[str, dict[str, Path]]:
    """Side → language → results folder, where a folder is a sweep's."""
    found = {
        part: {one.parent.name: one.parent for one in sorted(path.glob(f"{part}/*/{SETTINGS}"))}
        for part in PARTS
    }
    return {part: folders for part, folders in found.items() if folders}


def _take(path: Path, runs: Runs, folders: list[Path]) -> None:
    if path.is_file():
        if path.suffix == ".json":
            runs.profiles.append((path, Profile.load(path)))
        else:
            runs.merges.append(MergeRun(path, Plan.load(path)))
    elif (path / MANIFEST).is_file():
        content = read_manifest(path)
        where = str(path / MANIFEST)
        plan = Plan.from_dict(content["plan"], where)
        profile = Profile.from_dict(content["profile"], where)
        runs.merges.append(MergeRun(path, plan, content, profile))
    elif (path / SETTINGS).is_file():
        open_results(path)
        folders.append(path)
    else:
        runs.sweeps.append(SweepRun(path, _sides(path)))
        if (path / "profile.json").is_file():
            runs.profiles.append((path / "profile.json", Profile.load(path / "profile.json")))


def _together(folders: Iterable[Path]) -> list[list[Path]]:
    """Folders whose models may stand in one table, side by side; each of the rest by itself."""
    groups: list[list[Results]] = []
    for results in map(open_results, folders):
        for group in groups:
            if _fit(group, results):
                group.append(results)
                break
        else:
            groups.append([results])
    return [[one.folder for one in group] for group in groups]


def _fit(group: Sequence[Results], results: Results) -> bool:
    if {name for one in group for name in one.models} & {*results.models}:
        return False
    settings = group[0].settings
    try:
        for other in (*group[1:], results):
            settings = join_settings(settings, other.settings, "one", "other")
    except EvaluationError:
        return False
    return True
