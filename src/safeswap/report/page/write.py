"""The page: everything of some runs in one file that opens from a disk and asks nobody."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safeswap.anatomy import layer_labels
from safeswap.evaluation.stats import MARGIN
from safeswap.io.files import check_writable, save_text
from safeswap.plan import Plan
from safeswap.report.model_card import digests_of, write_cards
from safeswap.report.page.about import described, inputs_table, merges_table
from safeswap.report.page.again import steps, versions
from safeswap.report.page.depth import depth_of
from safeswap.report.page.figures import write_figures
from safeswap.report.page.measured import Counting
from safeswap.report.page.paper import check_matplotlib
from safeswap.report.page.prepared import Prepared, prepare
from safeswap.report.page.runs import MergeRun, Runs, open_runs
from safeswap.report.page.samples import sample
from safeswap.report.page.space import check_space, write_space
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
    cards: Sequence[str | Path] = (),
    space: str | Path | None = None,
    figures: str | Path | None = None,
) -> Path:
    """Write one HTML file on merges, results, profiles, plans and sweeps: no network, no others.

    Args:
        runs: what it is on, as `safeswap.report.page.runs.open_runs` takes it.
        out: the file; one that is there is replaced.
        samples: questions with all answers that the page holds, harmful ones behind a click.
        title: of the page.
        judge: whose verdicts count; by default each judge has tables of its own.
        strict, reference, margin, dev, primary: as of `safeswap.report.evaluation.compare`.
        cards: merged folders whose model cards are to have the results, too.
        space: a folder for a Space of the hub, with the same page.
        figures: a folder for the page's figures as SVG and PNG.

    Returns:
        ``out``.

    Raises:
        ConfigError: something given is no run; nothing was measured of a card's model.
        SafeswapError: jinja2 is missing, a run is damaged, or cannot be compared.
        OutputError: a file cannot be written.
    """
    path = Path(out)
    check_writable(path)
    environment()  # before what takes long
    if space is not None:
        check_space(Path(space))
    if figures is not None:
        check_matplotlib()
    digests = digests_of(cards)
    counting = Counting(judge, strict, reference, tuple(primary), margin, dev)
    prepared = prepare(open_runs(runs), counting, list(digests.values()))
    text = page(prepared, path.name, samples, title)
    save_text(path, text)
    if digests:
        write_cards(digests, [one for group in prepared.groups for one in group.models])
    if space is not None:
        write_space(Path(space), text, title, prepared.runs.merges)
    if figures is not None:
        write_figures(prepared, Path(figures))
    return path


def page(prepared: Prepared, name: str, samples: int, title: str) -> str:
    """The page's text.

    Args:
        name: of its file, for the command that makes it again.
        samples, title: as of `write_report`.
    """
    runs, names, public = prepared.runs, prepared.names, prepared.public
    counting, groups = prepared.counting, prepared.groups
    command = _command(runs, name, samples, title, counting)
    tables = [
        inputs_table(runs.merges, [profile for _, profile in runs.profiles]),
        merges_table(runs.merges, names),
    ]
    numbering = _Numbers()
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
            for found in map(depth_of, prepared.profiles)
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
    name = (path.name or "FOLDER") if path.is_absolute() else str(path)
    return f"./{name}" if name.startswith("-") else name


def _samples(found: Mapping[str, Any]) -> dict[str, Any]:
    index = {key: value for key, value in found.items() if key != "chunks"}
    return {
        "count": len(found["rows"]),
        "of": found["of"],
        "index": as_data(index),
        "chunks": [as_data(chunk) for chunk in found["chunks"]],
    }
