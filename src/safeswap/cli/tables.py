"""Tables on standard output: in which form, and which of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from safeswap.cli.verbs import options, say
from safeswap.errors import ConfigError, nearest

if TYPE_CHECKING:
    from safeswap.tables import Facts, Table

FORMATS = ("terminal", "md", "csv", "latex", "html")
_TITLE = "safeswap: evaluation"

PRINTING = options(
    click.option("--format", "form", default="terminal", help="terminal, md, csv, latex or html."),
    click.option(
        "--table",
        "wanted",
        multiple=True,
        metavar="NAME",
        help="Only this one, e.g. rates. A CSV on stdout holds one. Repeat it for several.",
    ),
)


def check_format(form: str) -> None:
    """Refuse a form that there is not.

    Raises:
        ConfigError: names the nearest.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format {form}: there is no such format{nearest(form, FORMATS)}")


def chosen_tables(tables: Sequence[Table], wanted: Sequence[str]) -> list[Table]:
    """The tables of these names; all where none is named.

    Raises:
        ConfigError: no table of that name; names the nearest and all.
    """
    from safeswap.tables import names_of

    named = names_of(tables)
    for name in wanted:
        if name not in named:
            raise ConfigError(
                f"--table {name}: there is no such table here{nearest(name, named)} "
                f"The tables are: {', '.join(named)}."
            )
    return [named[name] for name in dict.fromkeys(wanted)] if wanted else list(tables)


def print_tables(tables: Sequence[Table], form: str, facts: Facts = ()) -> None:
    """Print tables to standard output in one of ``FORMATS``, below a head of ``facts``.

    Raises:
        ConfigError: several tables as CSV: one holds one table.
    """
    from safeswap import tables as render

    if form == "terminal":
        from rich.console import Console

        render.print_tables(tables, Console())
    elif form == "csv":
        say(_one_csv(tables), nl=False)
    elif form == "html":
        say(render.as_html(tables, _TITLE, facts=facts))
    elif form == "md":
        say(render.as_markdown_report(tables, _TITLE, facts))
    else:
        say(render.as_latex_report(tables, _TITLE, facts))


def _one_csv(tables: Sequence[Table]) -> str:
    from safeswap.tables import as_csv, names_of

    if len(tables) != 1:
        names = ", ".join(names_of(tables)) or "none"
        raise ConfigError(
            f"a CSV holds one table and these are {len(tables)}: name one with --table NAME "
            f"({names}), or have a file of each, where the verb has --out FOLDER."
        )
    return as_csv(tables[0])
