"""The page: everything of some runs in one file that opens from a disk and asks nobody."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.anatomy import layer_labels
from safeswap.evaluation.results.store import open_results
from safeswap.evaluation.stats import MARGIN
from safeswap.io.files import check_writable, save_text
from safeswap.plan import Plan
from safeswap.profile import Profile
from safeswap.report.page.about import described, inputs_table, merges_table
from safeswap.report.page.again import steps, versions
from safeswap.report.page.depth import depth_of
from safeswap.report.page.measured import Counting, Measured, measured, swept
from safeswap.report.page.places import Public, named
from safeswap.report.page.runs import MergeRun, Runs, open_runs
from safeswap.report.page.samples import sample
from safeswap.report.page.strip import counts_line, legend, outside, strip, units_table
from safeswap.report.provenance import made_now
from safeswap.report.web.html_file import as_data, environment, joined, part, render
from safeswap.tables import Table, html_table, plain
from safeswap.version import __version__

TITLE = "safeswap report"
_FEW = 8
"""Layers up to which maps stand side by side."""


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    samples: int = 0,
    title: str = TITLE,
    judge: str | None = None,
    strict: bool = True,
    reference: str | None = None,
    margin: float = MARGIN,
    dev: bool = False,
    primary: Sequence[str] = (),
) -> Path:
    """Write one HTML file on merges, results, profiles, plans and sweeps: no network, no others.

    Args:
        runs: what it is on, as `safeswap.report.page.runs.open_runs` takes it.
        out: the file; one that is there is replaced.
        samples: questions with all answers that the page holds, harmful ones behind a click.
        title: of the page.
        judge: whose verdicts count; by default each judge has tables of its own.
        strict, reference, margin, dev, primary: as of `safeswap.report.evaluation.compare`.

    Returns:
        ``out``.

    Raises:
        ConfigError: something given is no run.
        SafeswapError: jinja2 is missing, a run is damaged, or cannot be compared.
        OutputError: the file cannot be written.
    """
    path = Path(out)
    check_writable(path)
    environment()  # before what takes long
    counting = Counting(judge, strict, reference, tuple(primary), margin, dev)
    save_text(path, page(open_runs(runs), path.name, samples, title, counting))
    return path


def page(runs: Runs, name: str, samples: int, title: str, counting: Counting) -> str:
    """The page's text.

    Args:
        name: of its file, for the command that makes it again.
        samples, title: as of `write_report`.
        counting: how outcomes are counted and compared.
    """
    paths = [one.path for one in runs.merges] + [one.path for one in runs.sweeps]
    paths += [path for group in runs.results for path in group]
    names = named(paths, runs.given)
    public = Public(_places(runs, names))
    profiles = [profile for _, profile in runs.profiles]
    command = _command(runs, name, samples, title, counting)
    tables = [inputs_table(runs.merges, profiles), merges_table(runs.merges, names)]
    numbering = _Numbers()
    groups = _measured(runs, names, counting)
    found = sample(runs.results, samples, counting.strict) if runs.results and samples else None
    return render(
        __package__,
        "page.html.j2",
        style=part(__package__, "page.css"),
        script=joined([("safeswap.report.web", "map.js"), (__package__, "page.js")]),
        title=plain(title) or TITLE,
        head=made_now(),
        about=[numbering.html(table) for table in tables if table],
        strips=[_strip(one, names, numbering) for one in runs.merges],
        depths=[
            {**found, "table": numbering.html(found["table"]), "charts": _drawn(found["charts"])}
            for found in map(depth_of, _different(runs.merges, profiles))
        ],
        groups=[
            {
                "title": one.title,
                "about": public.facts(one.about),
                "tables": [numbering.html(table) for table in one.tables],
                "cards": one.cards,
                "outcomes": _drawn(one.outcomes),
                "trades": _drawn(one.trades),
            }
            for one in groups
        ],
        steps=steps(runs, names, public, command),
        versions=versions(runs),
        samples=None if found is None else _samples(found),
        asked=bool(runs.results),
        command=command,
        made_by=f"safeswap {__version__}",
    )


class _Numbers:
    """Tables as markup, each with an id of its own."""

    def __init__(self) -> None:
        self._last = 0

    def html(self, table: Table) -> Any:
        from markupsafe import Markup

        self._last += 1
        return Markup(html_table(table, f"table{self._last}"))


def _strip(run: MergeRun, names: Mapping[Path, str], numbering: _Numbers) -> dict[str, Any]:
    from markupsafe import Markup

    plan: Plan = run.plan
    return {
        "title": names[run.path],
        "language": plan.language,
        "method": described(plan),
        "counts": counts_line(plan),
        "outside": outside(plan),
        "legend": legend(plan),
        "drawing": Markup(strip(plan)),
        "wide": len(layer_labels(plan.units)) > _FEW,
        "table": numbering.html(units_table(plan)),
    }


def _drawn(charts: Sequence[tuple[str, str]]) -> list[tuple[str, Any]]:
    from markupsafe import Markup

    return [(title, Markup(chart)) for title, chart in charts]


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


def _measured(runs: Runs, names: Mapping[Path, str], counting: Counting) -> list[Measured]:
    found = []
    for group in runs.results:
        found += measured(group, ", ".join(names[folder] for folder in group), counting)
    for sweep in runs.sweeps:
        found += swept(sweep, names[sweep.path], counting)
    return found


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


def _command(runs: Runs, name: str, samples: int, title: str, counting: Counting) -> str:
    words = ["safeswap", "report", *(_shown(path) for path in runs.given)]
    for model in counting.primary:
        words += ["--primary", model]
    for option, value in (("--judge", counting.judge), ("--reference", counting.reference)):
        words += [option, value] if value else []
    words += [] if counting.strict else ["--loose"]
    words += ["--dev"] if counting.dev else []
    if counting.margin != Counting().margin:
        words += ["--margin", f"{100 * counting.margin:g}"]
    words += ["--samples", str(samples)] if samples else []
    words += ["--title", title] if title != TITLE else []
    return shlex.join([*words, "-o", name])


def _shown(path: Path) -> str:
    return (path.name or "FOLDER") if path.is_absolute() else str(path)


def _samples(found: Mapping[str, Any]) -> dict[str, Any]:
    index = {key: value for key, value in found.items() if key != "chunks"}
    return {
        "count": len(found["rows"]),
        "of": found["of"],
        "index": as_data(index),
        "chunks": [as_data(chunk) for chunk in found["chunks"]],
    }
