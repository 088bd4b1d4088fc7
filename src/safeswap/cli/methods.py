"""The verb ``methods``: selectors and operators, their sources and parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from safeswap.cli.options import JSON, print_json
from safeswap.cli.verbs import Verb


def _catalogue() -> dict[str, Mapping[str, Any]]:
    """Title → name → what has a name, a summary, a source and parameters."""
    from safeswap.operators import OPERATORS
    from safeswap.selectors import registered

    return {
        "selectors: profile → weights per unit (--method NAME)": registered(),
        "operators: how the task vectors of a unit are joined (--operator NAME)": OPERATORS,
    }


@click.command(cls=Verb)
@click.argument("name", required=False)
@JSON
def methods(name: str | None, as_json: bool) -> None:
    """List selectors and operators; with NAME, its parameters."""
    catalogue = _catalogue()
    if name is not None and not any(name in entries for entries in catalogue.values()):
        from safeswap.errors import ConfigError, nearest

        known = [known for entries in catalogue.values() for known in entries]
        raise ConfigError(f"there is no method {name!r}{nearest(name, known)}")
    if as_json:
        print_json(_records(catalogue, name))
        return
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


def _records(catalogue: Mapping[str, Mapping[str, Any]], name: str | None) -> dict[str, Any]:
    """Selectors and operators for scripts; with ``name``, only what is called so."""
    found: dict[str, Any] = {"kind": "methods"}
    for title, entries in catalogue.items():
        found[title.partition(":")[0]] = [
            {
                "name": entry.name,
                "summary": _line(entry),
                "source": entry.source,
                "parameters": [_parameter(one) for one in entry.parameters],
            }
            for entry in entries.values()
            if name in (None, entry.name)
        ]
    return found


def _parameter(parameter: Any) -> dict[str, Any]:
    option, doc, limits = _words(parameter)
    return {
        "name": parameter.name,
        "option": option,
        "default": parameter.default,
        "meaning": doc,
        "range": limits,
    }


def _line(entry: Any) -> str:
    """What it does, as a sentence: selectors have a summary, operators a line."""
    return str(
        entry.summary if hasattr(entry, "summary") else f"{entry.line[:1].upper()}{entry.line[1:]}."
    )


def _describe(entry: Any) -> None:
    click.echo(f"{entry.name}: {_line(entry)}\nsource: {entry.source}")
    for parameter in entry.parameters:
        option, doc, limits = _words(parameter)
        named = parameter.default not in (None, "")
        default = f"  [default: {_shown(parameter.default)}]" if named else ""
        click.echo(f"  {option:<28}{doc}{default}\n{'':30}{limits}")
    if not entry.parameters:
        click.echo("  no parameters")


def _words(parameter: Any) -> tuple[str, str, str]:
    """Option, meaning and range; an operator's says them in other words than a selector's."""
    if hasattr(parameter, "option"):
        return parameter.option, parameter.doc, parameter.limits
    return f"--operator-set {parameter.name}", parameter.meaning, parameter.range


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


COMMANDS = (methods,)
