"""The verbs that read results: compare, report, label."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from safeswap.cli.options import JSON, print_json
from safeswap.cli.tables import PRINTING, check_format, chosen_tables, print_tables
from safeswap.cli.verbs import Verb, Verbs, quoted, say
from safeswap.errors import ConfigError
from safeswap.io.progress import shown_bytes

if TYPE_CHECKING:
    from safeswap.report.evaluation import Compared

_results = click.argument("results", type=click.Path(path_type=Path))
_many_results = click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
_judge_choice = click.option("--judge", help="Whose verdicts count, if there are several.")
_counting = click.option(
    "--loose", is_flag=True, help="Count “controversial” as safe (default: as unsafe)."
)

_reference = click.option(
    "--reference", help="Compare all with this model (default: each merge with its own)."
)
_primary = click.option(
    "--primary",
    multiple=True,
    metavar="MODEL",
    help="The merge whose comparison is primary, where several are of one language. Repeat it.",
)
_margin = click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    default=2.0,
    show_default=True,
    help="Points of ability that may be lost.",
)
_dev = click.option(
    "--dev", is_flag=True, help="Also where a model was chosen on these very questions; it is said."
)

_sheet_key = click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="The key of a sheet that was renamed.  [default: SHEET.key.json]",
)


@click.command(cls=Verb)
@_many_results
@_judge_choice
@_counting
@_reference
@_primary
@_margin
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    help="A labelled sheet of `safeswap label sample`: corrects the rates for the judge's errors.",
)
@_sheet_key
@_dev
@click.option(
    "--explain",
    "cell",
    metavar="CELL",
    help="BENCHMARK/LANGUAGE/MODEL[:REFERENCE]: the rows of it.",
)
@PRINTING
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="Write report.md, .tex, .html and report-TABLE.csv into this folder.",
)
@JSON
def compare(
    results: tuple[Path, ...],
    judge: str | None,
    loose: bool,
    reference: str | None,
    primary: tuple[str, ...],
    margin: float,
    annotations: Path | None,
    key: Path | None,
    dev: bool,
    cell: str | None,
    form: str,
    wanted: tuple[str, ...],
    out: Path | None,
    as_json: bool,
) -> None:
    """Print the tables of one or more results folders of the same settings."""
    from safeswap import tables as render
    from safeswap.evaluation import pipeline
    from safeswap.report import evaluation as evaluation_report

    check_format(form)
    if as_json and (cell is not None or form != "terminal"):
        raise ConfigError("--json excludes --explain and --format; leave one out.")
    if cell is not None:
        say(pipeline.explain(results, cell, judge=judge, strict=not loose))
        return
    found = evaluation_report.compared(
        results,
        judge=judge,
        strict=not loose,
        reference=reference,
        primary=primary,
        margin=margin / 100,
        annotations=annotations,
        key=key,
        dev=dev,
    )
    tables = found.tables
    facts = evaluation_report.facts(results, judge=judge, strict=not loose)
    printed = chosen_tables(tables, wanted)
    if as_json:
        print_json({"kind": "tables", "tables": render.as_records(printed)})
    else:
        if form == "terminal" and not wanted:
            _tell(found)
        print_tables(printed, form, facts)
    if out is not None:
        for path in render.write_reports(tables, out, facts=facts):
            say(f"{path}: written", err=as_json or form != "terminal")


def _tell(found: Compared) -> None:
    """The story in short, above the tables that it is taken from."""
    from rich.console import Console

    from safeswap.report.comparison import model_title
    from safeswap.report.story import cards_of, outcome_shares
    from safeswap.report.story_terminal import story_view

    titles = {model: model_title(found.evidence, model) for model in found.evidence.models}
    cards = list(cards_of(found.evidence, found.comparisons))
    Console().print(story_view(cards, outcome_shares(found.evidence), titles))


@click.command(cls=Verb)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default="report.html",
    show_default=True,
    help="The page: one HTML file.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Put in N questions with every model's answer; harmful text stands behind a click.",
)
@click.option("--title", default="safeswap report", show_default=True, help="Of the page.")
@click.option(
    "--card",
    "cards",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="Put the results into this merge's model card, too. Repeat it for several.",
)
@click.option(
    "--space",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write a folder with the page that is ready for a static Space of the hub.",
)
@click.option(
    "--figures",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write the page's figures for a paper: SVG, and PNG with 300 dpi.",
)
@click.option("--judge", help="Whose verdicts count.  [default: each judge has its own tables]")
@_counting
@_reference
@_primary
@_margin
@_dev
@JSON
def report(
    runs: tuple[Path, ...],
    out: Path,
    samples: int,
    title: str,
    cards: tuple[Path, ...],
    space: Path | None,
    figures: Path | None,
    judge: str | None,
    loose: bool,
    reference: str | None,
    primary: tuple[str, ...],
    margin: float,
    dev: bool,
    as_json: bool,
) -> None:
    """Write one page on what was merged and measured, with the answers side by side.

    RUN is a merged checkpoint, a results folder, a profile, a plan, a sweep's folder, or a folder
    that holds some of these. The page needs no network and opens from a disk or a mail.
    """
    from safeswap.report.page import write_report

    path = write_report(
        runs,
        out,
        samples=samples,
        title=title,
        judge=judge,
        strict=not loose,
        reference=reference,
        margin=margin / 100,
        dev=dev,
        primary=primary,
        cards=cards,
        space=space,
        figures=figures,
    )
    size = path.stat().st_size
    others = {"cards": list(cards), "space": space, "figures": figures}
    if as_json:
        given = {name: place for name, place in others.items() if place}
        print_json({"kind": "report", "page": path, "bytes": size, **given})
        return
    say(f"{path}: written ({shown_bytes(size)}); open it in a browser")
    for card in cards:
        say(f"{card}: its model card has the results")
    if space is not None:
        say(f"{space}: a static Space; hf upload ORG/NAME {quoted(space)} --repo-type space")
    if figures is not None:
        say(f"{figures}: the figures, as SVG and PNG")
    if samples:
        say(
            "note: it holds answers, harmful ones too: think before you send it",
            err=True,
        )


@click.group(cls=Verbs)
def label() -> None:
    """Label a sample by hand, and see how well judges agree with people."""


@label.command("agreement")
@click.argument("labels", type=click.Path(path_type=Path))
@click.option("--human", help="The column of human labels.")
@click.option("--judge", "judges", multiple=True, help="A judge's column. Repeat it for several.")
@click.option("--positive", multiple=True, help="A label that counts as positive. Repeat it.")
@click.option("--by", help="Also for each value of this column.")
@_sheet_key
@PRINTING
@JSON
def agreement(
    labels: Path,
    human: str | None,
    judges: tuple[str, ...],
    positive: tuple[str, ...],
    by: str | None,
    key: Path | None,
    form: str,
    wanted: tuple[str, ...],
    as_json: bool,
) -> None:
    """Compare judges with human labels: accuracy, κ, sensitivity, specificity, confusion.

    LABELS is a CSV with a column of human labels and one per judge; or a sheet that
    `safeswap label sample` made, labelled, with its key beside it.
    """
    check_format(form)
    from safeswap.evaluation.human import (
        agreements,
        is_blind,
        key_of,
        read_annotations,
        read_labels,
    )
    from safeswap.report import agreement as agreement_report
    from safeswap.report.provenance import made_now

    if key is not None or key_of(labels).exists() or is_blind(labels):
        read = read_annotations(labels, key)
        found = [read.agreement(positive)]
        if read.left_out:
            say(f"of the sheet's rows, {read.left_out}", err=True)
    else:
        sheet = read_labels(labels, human=human, judges=judges)
        found = agreements(sheet, positive, by)
    tables = chosen_tables(agreement_report.agreement_tables(found), wanted)
    if as_json:
        from safeswap import tables as render

        print_json({"kind": "tables", "tables": render.as_records(tables)})
        return
    judges_read = ", ".join(dict.fromkeys(one.judge for one in found))
    facts = [*made_now(), ("labels", str(labels)), ("judges", judges_read)]
    print_tables(tables, form, facts)


@label.command("sample")
@_results
@click.option("--sample", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@_judge_choice
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default="annotate.csv", show_default=True
)
@click.option(
    "--overwrite", is_flag=True, help="Replace an earlier sheet that nobody has written into."
)
@JSON
def sample_to_label(
    results: Path,
    sample: int,
    seed: int,
    judge: str | None,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Draw a stratified, blind sample of responses to label by hand.

    Labels (safe, unsafe, invalid) go into the sheet; `safeswap label agreement SHEET` and
    `safeswap compare RESULTS --annotations SHEET` read it back.
    """
    from safeswap.evaluation import pipeline

    key, count = pipeline.annotate(
        results, out, sample, seed=seed, judge=judge, overwrite=overwrite
    )
    if as_json:
        print_json({"kind": "sample", "sheet": out, "key": key, "responses": count})
        return
    say(f"{out}: {count} responses to label with safe, unsafe or invalid")
    say(f"{key}: which is which; keep it from whoever labels")


COMMANDS = (compare, report, label)
