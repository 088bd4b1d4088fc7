"""The verb ``methods``: selectors and operators, their sources and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click


def _catalogue() -> dict[str, Mapping[str, Any]]:
    """Title → name → what has a name, a summary, a source and parameters."""
    from safeswap.operators import OPERATORS
    from safeswap.selectors import registered

    return {
        "selectors: profile → weights per unit (--method NAME)": registered(),
        "operators: how the task vectors of a unit are joined (--operator NAME)": OPERATORS,
    }


@click.command()
@click.argument("name", required=False)
def methods(name: str | None) -> None:
    """List selectors and operators; with NAME, its parameters."""
    catalogue = _catalogue()
    if name is None:
        for title, entries in catalogue.items():
            click.echo(f"{title}\n")
            for entry in entries.values():
                click.echo(f"  {entry.name:<18}{_line(entry)}\n{'':20}{entry.source}")
            click.echo()
        click.echo(
            "Parameters: safeswap methods NAME. Formulas: docs/methods.md, docs/operators.md."
        )
        return
    for entries in catalogue.values():
        if name in entries:
            _describe(entries[name])
            return
    from safeswap.errors import PlanError, nearest

    known = [known for entries in catalogue.values() for known in entries]
    raise PlanError(f"there is no method {name!r}{nearest(name, known)}")


def _line(entry: Any) -> str:
    """What it does, as a sentence: selectors have a summary, operators a line."""
    return str(
        entry.summary if hasattr(entry, "summary") else f"{entry.line[:1].upper()}{entry.line[1:]}."
    )


def _describe(entry: Any) -> None:
    click.echo(f"{entry.name}: {_line(entry)}\nsource: {entry.source}")
    for parameter in entry.parameters:
        own = hasattr(parameter, "option")  # a selector's; an operator's says it in other words
        option = parameter.option if own else f"--operator-set {parameter.name}"
        doc, limits = (
            (parameter.doc, parameter.limits) if own else (parameter.meaning, parameter.range)
        )
        named = parameter.default not in (None, "")
        default = f"  [default: {_shown(parameter.default)}]" if named else ""
        click.echo(f"  {option:<28}{doc}{default}\n{'':30}{limits}")
    if not entry.parameters:
        click.echo("  no parameters")


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


COMMANDS = (methods,)
