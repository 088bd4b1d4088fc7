"""The verb ``methods``: selectors and operators, their sources and parameters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any

import click

from safeswap.cli.options import JSON, print_json
from safeswap.cli.verbs import Verb, say

Catalogue = list[tuple[str, Mapping[str, Any], Callable[[str], str]]]


def _catalogue() -> Catalogue:
    """Title, entries by name (each with a summary, a source and parameters), and how a parameter
    of theirs is written on the command line.
    """
    from safeswap.operators import OPERATORS
    from safeswap.selectors import option_of, registered

    selectors = "selectors: profile → weights per unit (--method NAME)"
    operators = "operators: how the task vectors of a unit are joined (--operator NAME)"
    return [
        (selectors, registered(), option_of),
        (operators, OPERATORS, lambda name: f"--operator-set {name}"),
    ]


@click.command(cls=Verb)
@click.argument("name", required=False)
@JSON
def methods(name: str | None, as_json: bool) -> None:
    """List selectors and operators; with NAME, its parameters."""
    catalogue = _catalogue()
    if name is not None and not any(name in entries for _, entries, _ in catalogue):
        from safeswap.errors import ConfigError, nearest

        known = [known for _, entries, _ in catalogue for known in entries]
        raise ConfigError(f"there is no method {name!r}{nearest(name, known)}")
    if as_json:
        print_json(_records(catalogue, name))
        return
    if name is None:
        for title, entries, _ in catalogue:
            say(f"{_hung(title, 2)}\n")
            for entry in entries.values():
                say(_hung(f"  {entry.name:<18}{entry.summary}", 20))
                say(_hung(f"{'':20}{entry.source}", 20))
            say()
        more = "Parameters: safeswap methods NAME. Formulas: docs/methods.md, docs/operators.md."
        say(_hung(more, 0))
        return
    for _, entries, spelled in catalogue:
        if name in entries:
            _describe(entries[name], spelled)
            return


def _hung(text: str, indent: int) -> str:
    """Folded to the terminal, further lines as far in as the first one's text; whole in a pipe."""
    if not sys.stdout.isatty():
        return text
    width = max(40, get_terminal_size().columns)
    folded = wrap(
        text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )
    return "\n".join(folded)


def _records(catalogue: Catalogue, name: str | None) -> dict[str, Any]:
    """Selectors and operators for scripts; with ``name``, only what is called so."""
    found: dict[str, Any] = {"kind": "methods"}
    for title, entries, spelled in catalogue:
        found[title.partition(":")[0]] = [
            {
                "name": entry.name,
                "summary": entry.summary,
                "source": entry.source,
                "parameters": [_parameter(one, spelled(one.name)) for one in entry.parameters],
            }
            for entry in entries.values()
            if name in (None, entry.name)
        ]
    return found


def _parameter(parameter: Any, option: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "option": option,
        "default": parameter.default,
        "meaning": parameter.doc,
        "range": parameter.limits,
    }


def _describe(entry: Any, spelled: Callable[[str], str]) -> None:
    say(_hung(f"{entry.name}: {entry.summary}", 2))
    say(_hung(f"source: {entry.source}", 2))
    for parameter in entry.parameters:
        named = parameter.default not in (None, "")
        default = f"  [default: {_default(parameter)}]" if named else ""
        option = spelled(parameter.name)
        say(_hung(f"  {option:<28}{parameter.doc}{default}", 30))
        say(_hung(f"{'':30}{parameter.limits}", 30))
    if not entry.parameters:
        say("  no parameters")


def _default(parameter: Any) -> str:
    """The default as it may be typed; shares in per cent, as everywhere that a person reads."""
    value = _shown(parameter.default)
    return f"{100 * parameter.default:.6g}%" if parameter.share else value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


COMMANDS = (methods,)
