"""What a report says, counted once: for the page, its figures, and the cards of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safeswap.evaluation.results.store import open_results
from safeswap.profile import Profile
from safeswap.report.page.measured import Counting, Measured, measured, swept
from safeswap.report.page.places import Public, named
from safeswap.report.page.runs import MergeRun, Runs


@dataclass(frozen=True)
class Prepared:
    """All that a report is made of.

    Attributes:
        runs: what it is on.
        names: of every run; no path of this machine is in them.
        public: takes this machine's paths out of a text.
        counting: how outcomes are counted and compared.
        groups: what was measured, by results folders that stand together, and judge.
        profiles: what was measured of weights, each once.
    """

    runs: Runs
    names: Mapping[Path, str]
    public: Public
    counting: Counting
    groups: Sequence[Measured]
    profiles: Sequence[Profile]


def prepare(runs: Runs, counting: Counting, digests: Sequence[str] = ()) -> Prepared:
    """Count and compare.

    Args:
        digests: of models whose results a card is to have.

    Raises:
        EvaluationError: as ``compare``.
    """
    paths = [one.path for one in runs.merges] + [one.path for one in runs.sweeps]
    paths += [path for group in runs.results for path in group]
    names = named(paths, runs.given)
    groups: list[Measured] = []
    for folders in runs.results:
        title = ", ".join(names[folder] for folder in folders)
        groups += measured(folders, title, counting, digests)
    for sweep in runs.sweeps:
        groups += swept(sweep, names[sweep.path], counting)
    public, profiles = Public(_places(runs, names)), [profile for _, profile in runs.profiles]
    return Prepared(runs, names, public, counting, groups, _different(runs.merges, profiles))


def _different(merges: Sequence[MergeRun], profiles: Sequence[Profile]) -> list[Profile]:
    """What was measured, each once: a merge's manifest holds a part of the run's profile."""
    kept: list[Profile] = []
    own = [one.profile for one in merges if one.profile is not None]
    for profile in (*profiles, *own):
        digests = {(role, one.digest or one.given) for role, one in profile.inputs.items()}
        if not any(
            digests <= {(role, one.digest or one.given) for role, one in other.inputs.items()}
            for other in kept
        ):
            kept.append(profile)
    return kept


def _places(runs: Runs, names: Mapping[Path, str]) -> dict[str, str]:
    """Every path that a record may hold → what it is called here."""
    found: dict[str, str] = {}
    for group in runs.results:
        for results in map(open_results, group):
            for model in map(results.model, results.models):
                for place in (str(model["source"]), str(model.get("location", ""))):
                    if Path(place).is_absolute():
                        found[place] = Path(place).name
    for path, name in names.items():
        found |= {str(path): name, str(path.resolve()): name}
    return found
