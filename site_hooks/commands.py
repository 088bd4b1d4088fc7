"""The reference of the command line, written from the click commands: ``<!-- commands -->``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import click

from safeswap.cli import main
from safeswap.cli.verbs import Verbs

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference where a page asks for it."""
    return markdown.replace(MARK, "\n".join(reference())) if MARK in markdown else markdown


def reference() -> Iterator[str]:
    """The verbs, section by section, in the order of the help."""
    assert isinstance(main, Verbs)
    top = click.Context(main, info_name="safeswap", **main.context_settings)
    yield from command("safeswap", main, top, "##")
    for title, names in main.sections.items():
        yield f"\n## {title}\n"
        for name in names:
            yield from verb(f"safeswap {name}", main.commands[name], top, "###")


def verb(path: str, one: click.Command, above: click.Context, mark: str) -> Iterator[str]:
    """A verb, and what it has below it."""
    context = click.Context(one, parent=above, info_name=one.name)
    yield from command(path, one, context, mark)
    if isinstance(one, click.Group):
        for name, inner in one.commands.items():
            yield from verb(f"{path} {name}", inner, context, f"{mark}#")


def command(path: str, one: click.Command, context: click.Context, mark: str) -> Iterator[str]:
    """Usage, what it does, and its options under their headings."""
    yield f"\n{mark} {path}\n"
    usage = " ".join([path, *one.collect_usage_pieces(context)])
    yield f"```text\n{usage}\n```\n"
    yield plain(inspect.cleandoc(one.help or "")) + "\n"
    groups: dict[str, list[click.Option]] = {}
    for option in one.get_params(context):
        if isinstance(option, click.Option) and not option.hidden:
            groups.setdefault(getattr(option, "heading", "Options"), []).append(option)
    for heading in sorted(groups, key=lambda name: name == "Options"):
        yield f"\n| {heading} | |\n| --- | --- |"
        yield from (row(option, context) for option in groups[heading])


def row(option: click.Option, context: click.Context) -> str:
    """An option: its spellings with what it takes, and its help with the default."""
    record = option.get_help_record(context)
    assert record is not None
    names, said = record
    return f"| <code>{plain(names)}</code> | {plain(said)} |"


def plain(text: str) -> str:
    """Help is no Markdown: its signs are shown as they are."""
    shown = text.replace("\b\n", "")
    return "".join(f"&#{ord(sign)};" if sign in r"\`*_{}[]#|<>$&" else sign for sign in shown)
